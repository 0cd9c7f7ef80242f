import { type ByteSource, files } from '#platform';
import { CheckpointError } from '../../errors.js';
import type { StateDict, TensorInfo } from '../state_dict.js';
import { headerLength, parseHeader, type SafetensorsHeader } from './header.js';

const unreadable = (what: string, error: unknown) =>
  new CheckpointError(`${what} cannot be read: ${(error as Error).message}`, { cause: error });

async function readRange(source: ByteSource, position: number, length: number, what: string): Promise<Uint8Array> {
  try {
    return await source.read(position, length);
  } catch (error) {
    throw unreadable(what, error);
  }
}

/** An open safetensors file; its header has been checked, its tensors are read on demand. */
export class SafetensorsFile implements StateDict {
  private open = true;

  constructor(
    /** Path that the file was opened with. */
    readonly path: string,
    private readonly source: ByteSource,
    private readonly header: SafetensorsHeader,
    private readonly dataStart: number,
  ) {}

  /** The header's `__metadata__`, for instance `{format: 'pt'}`. */
  get metadata(): Readonly<Record<string, string>> {
    return this.header.metadata;
  }

  keys(): string[] {
    return [...this.header.tensors.keys()];
  }

  info(key: string): TensorInfo | undefined {
    const entry = this.header.tensors.get(key);
    return entry && { dtype: entry.dtype, shape: [...entry.shape] };
  }

  async read(key: string): Promise<Uint8Array> {
    const { position, length, what } = this.locate(key);
    return readRange(this.source, position, length, what);
  }

  private locate(key: string): { position: number; length: number; what: string } {
    const entry = this.header.tensors.get(key);
    if (!entry) {
      throw new CheckpointError(`${this.path}: there is no tensor '${key}'`);
    }
    if (!this.open) {
      throw new CheckpointError(`${this.path}: tensor '${key}' is read after the file was closed`);
    }
    const what = `${this.path}: tensor '${key}'`;
    return { position: this.dataStart + entry.begin, length: entry.end - entry.begin, what };
  }

  async close(): Promise<void> {
    if (this.open) {
      this.open = false;
      await this.source.close();
    }
  }
}

/**
 * Opens a safetensors file and checks all that its header says: its length, JSON, names, types, shapes against byte
 * lengths, overlaps, holes and the file's end. Only the header is read; close the result after use.
 * @throws {CheckpointError} naming the file, the tensor, what was expected and what was found
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  let source: ByteSource;
  try {
    source = await files.open(path);
  } catch (error) {
    const missing = (error as { code?: string }).code === 'ENOENT';
    const why = missing ? 'there is no such file' : (error as Error).message;
    throw new CheckpointError(`${path}: cannot be opened: ${why}`, { cause: error });
  }
  try {
    if (source.size < 8) {
      throw new CheckpointError(
        `${path}: a safetensors file has at least 8 bytes, this one has ${source.size}; download or copy it again`,
      );
    }
    const length = headerLength(await readRange(source, 0, 8, path), source.size, path);
    const dataStart = 8 + length;
    const header = parseHeader(await readRange(source, 8, length, path), source.size - dataStart, path);
    return new SafetensorsFile(path, source, header, dataStart);
  } catch (error) {
    await source.close();
    throw error;
  }
}

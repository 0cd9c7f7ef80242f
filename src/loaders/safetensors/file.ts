import { readSync } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { CheckpointError } from '../../errors.js';
import type { StateDict, TensorInfo } from '../state_dict.js';
import { headerLength, parseHeader, type SafetensorsHeader } from './header.js';

/** Most bytes asked of the system in one read; Node refuses 2 GiB and more. */
const MAX_READ_BYTES = 2 ** 30;

const unreadable = (what: string, error: unknown) =>
  new CheckpointError(`${what} cannot be read: ${(error as Error).message}`, { cause: error });

function endedAfter(done: number, length: number): Error {
  return new Error(`the file ended after ${done} of ${length} bytes; was it changed meanwhile?`);
}

/** Reads exactly `length` bytes at `position` into a buffer of their own. */
async function readRange(handle: FileHandle, position: number, length: number, what: string): Promise<Uint8Array> {
  let bytes: Buffer;
  try {
    bytes = Buffer.allocUnsafeSlow(length);
    for (let done = 0; done < length; ) {
      const { bytesRead } = await handle.read(bytes, done, Math.min(length - done, MAX_READ_BYTES), position + done);
      if (bytesRead === 0) {
        throw endedAfter(done, length);
      }
      done += bytesRead;
    }
  } catch (error) {
    throw unreadable(what, error);
  }
  return new Uint8Array(bytes.buffer, 0, length);
}

/** The same, without giving way to the event loop. */
function readRangeSync(handle: FileHandle, position: number, length: number, what: string): Uint8Array {
  let bytes: Buffer;
  try {
    bytes = Buffer.allocUnsafeSlow(length);
    for (let done = 0; done < length; ) {
      const count = readSync(handle.fd, bytes, done, Math.min(length - done, MAX_READ_BYTES), position + done);
      if (count === 0) {
        throw endedAfter(done, length);
      }
      done += count;
    }
  } catch (error) {
    throw unreadable(what, error);
  }
  return new Uint8Array(bytes.buffer, 0, length);
}

/** An open safetensors file; its header has been checked, its tensors are read on demand. */
export class SafetensorsFile implements StateDict {
  private open = true;

  constructor(
    /** Path that the file was opened with. */
    readonly path: string,
    private readonly handle: FileHandle,
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
    return readRange(this.handle, position, length, what);
  }

  readSync(key: string): Uint8Array {
    const { position, length, what } = this.locate(key);
    return readRangeSync(this.handle, position, length, what);
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
      await this.handle.close();
    }
  }
}

/**
 * Opens a safetensors file and checks all that its header says: its length, JSON, names, types, shapes against byte
 * lengths, overlaps, holes and the file's end. Only the header is read; close the result after use.
 * @throws {CheckpointError} naming the file, the tensor, what was expected and what was found
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  let handle: FileHandle;
  let fileBytes: number;
  try {
    const stats = await stat(path);
    if (!stats.isFile()) {
      throw new Error(stats.isDirectory() ? 'it is a directory' : 'it is not a regular file');
    }
    fileBytes = stats.size;
    handle = await open(path, 'r');
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    const why = missing ? 'there is no such file' : (error as Error).message;
    throw new CheckpointError(`${path}: cannot be opened: ${why}`, { cause: error });
  }
  try {
    if (fileBytes < 8) {
      throw new CheckpointError(
        `${path}: a safetensors file has at least 8 bytes, this one has ${fileBytes}; download or copy it again`,
      );
    }
    const length = headerLength(await readRange(handle, 0, 8, path), fileBytes, path);
    const dataStart = 8 + length;
    const header = parseHeader(await readRange(handle, 8, length, path), fileBytes - dataStart, path);
    return new SafetensorsFile(path, handle, header, dataStart);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

import { CheckpointError } from '../../errors.js';
import type { TensorInfo } from '../state_dict.js';
import { BYTES_PER_ELEMENT, type StorageType } from './number_formats.js';

/** Largest header that the format allows, in bytes (MAX_HEADER_SIZE of the safetensors library). */
export const MAX_HEADER_BYTES = 100_000_000;

/** A tensor and where its bytes lie, counted from the end of the header: from `begin` up to `end`. */
export interface TensorEntry extends TensorInfo {
  begin: number;
  end: number;
}

export interface SafetensorsHeader {
  /** Tensors by name, in the order of their bytes. */
  tensors: Map<string, TensorEntry>;
  metadata: Record<string, string>;
}

/** Position of the quote that ends the JSON string which starts at `start`. */
function endOfString(json: string, start: number): number {
  for (let quote = start; ; ) {
    quote = json.indexOf('"', quote + 1);
    let backslashes = 0;
    while (json[quote - 1 - backslashes] === '\\') {
      backslashes++;
    }
    if (backslashes % 2 === 0) {
      return quote;
    }
  }
}

/** First key that an object of a valid JSON text holds twice; JSON.parse keeps only the last without a word. */
function duplicateKey(json: string): string | undefined {
  const scopes: (Set<string> | null)[] = [];
  let text = '';
  for (let i = 0; i < json.length; i++) {
    switch (json[i]) {
      case '"': {
        const end = endOfString(json, i);
        text = json.slice(i, end + 1);
        i = end;
        break;
      }
      case ':': {
        const keys = scopes.at(-1)!;
        const key = JSON.parse(text) as string;
        if (keys.has(key)) {
          return key;
        }
        keys.add(key);
        break;
      }
      case '{':
        scopes.push(new Set());
        break;
      case '[':
        scopes.push(null);
        break;
      case '}':
      case ']':
        scopes.pop();
        break;
    }
  }
  return undefined;
}

function parseJsonObject(bytes: Uint8Array, file: string): Record<string, unknown> {
  let json: unknown;
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    json = JSON.parse(text);
  } catch (error) {
    throw new CheckpointError(
      `${file}: the header is not JSON (${(error as Error).message}); this is not a safetensors file, or it is damaged`,
      { cause: error },
    );
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new CheckpointError(`${file}: the header is not a JSON object; this is not a safetensors file`);
  }
  const duplicate = duplicateKey(text);
  if (duplicate !== undefined) {
    throw new CheckpointError(`${file}: the header has the key '${duplicate}' twice; a tensor's name must be unique`);
  }
  return json as Record<string, unknown>;
}

function parseMetadata(value: unknown, file: string): Record<string, string> {
  if (value === undefined || value === null) {
    return {};
  }
  const valid =
    typeof value === 'object' && !Array.isArray(value) && Object.values(value).every((v) => typeof v === 'string');
  if (!valid) {
    throw new CheckpointError(
      `${file}: __metadata__ must map names to strings, got ${JSON.stringify(value).slice(0, 80)}`,
    );
  }
  return value as Record<string, string>;
}

const isSize = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

function parseEntry(name: string, value: unknown, file: string): TensorEntry {
  const where = `${file}: tensor '${name}'`;
  if (typeof value !== 'object' || value === null) {
    throw new CheckpointError(`${where} must be described by an object with dtype, shape and data_offsets`);
  }
  const { dtype, shape, data_offsets: offsets } = value as Record<string, unknown>;
  if (typeof dtype !== 'string' || !Object.hasOwn(BYTES_PER_ELEMENT, dtype)) {
    const known = Object.keys(BYTES_PER_ELEMENT).join(', ');
    throw new CheckpointError(`${where} has dtype ${JSON.stringify(dtype)}; expected one of ${known}`);
  }
  if (!Array.isArray(shape) || !shape.every(isSize)) {
    throw new CheckpointError(`${where} has shape ${JSON.stringify(shape)}; expected a list of sizes`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize) || offsets[0] > offsets[1]) {
    throw new CheckpointError(
      `${where} has data_offsets ${JSON.stringify(offsets)}; expected [begin, end] with 0 <= begin <= end`,
    );
  }
  const [begin, end] = offsets as [number, number];
  const expected =
    shape.reduce((product: number, size: number) => product * size, 1) * BYTES_PER_ELEMENT[dtype as StorageType];
  if (end - begin !== expected) {
    throw new CheckpointError(
      `${where} of shape [${shape}] in ${dtype} takes ${expected} bytes, but its data_offsets [${begin}, ${end}] hold ${end - begin}`,
    );
  }
  return { dtype: dtype as StorageType, shape: shape as number[], begin, end };
}

/** Checks that the tensors fill the data from its first byte to its last: no overlap, no hole, nothing outside. */
function checkLayout(tensors: [string, TensorEntry][], dataBytes: number, file: string): void {
  let position = 0;
  let previous = '';
  for (const [name, { begin, end }] of tensors) {
    if (begin < position) {
      throw new CheckpointError(
        `${file}: tensor '${name}' at [${begin}, ${end}] overlaps '${previous}', which ends at ${position}`,
      );
    }
    if (begin > position) {
      const after = previous === '' ? 'before' : `between '${previous}' and`;
      throw new CheckpointError(`${file}: bytes ${position} to ${begin} ${after} tensor '${name}' belong to no tensor`);
    }
    if (end > dataBytes) {
      throw new CheckpointError(
        `${file}: tensor '${name}' ends at byte ${end} of the data, but the file has only ${dataBytes}; ` +
          'it is truncated: download or copy it again',
      );
    }
    position = end;
    previous = name;
  }
  if (position !== dataBytes) {
    throw new CheckpointError(`${file}: ${dataBytes - position} bytes after the last tensor belong to no tensor`);
  }
}

/** Length in bytes of the header, from the first eight bytes of a file of `fileBytes`. */
export function headerLength(prefix: Uint8Array, fileBytes: number, file: string): number {
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw new CheckpointError(
      `${file}: the header would be ${length} bytes long, the format allows ${MAX_HEADER_BYTES}; ` +
        'this is not a safetensors file, or it is damaged',
    );
  }
  if (length > BigInt(fileBytes - 8)) {
    throw new CheckpointError(
      `${file}: the header is ${length} bytes long, but only ${fileBytes - 8} bytes follow; ` +
        'the file is truncated (download or copy it again) or not a safetensors file',
    );
  }
  return Number(length);
}

/**
 * Parses and checks a header against the number of data bytes that follow it.
 * @throws {CheckpointError} naming the file and, where one is at fault, the tensor
 */
export function parseHeader(bytes: Uint8Array, dataBytes: number, file: string): SafetensorsHeader {
  const { __metadata__: metadata, ...described } = parseJsonObject(bytes, file);
  const entries = Object.entries(described).map(([name, value]): [string, TensorEntry] => [
    name,
    parseEntry(name, value, file),
  ]);
  entries.sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  checkLayout(entries, dataBytes, file);
  return { tensors: new Map(entries), metadata: parseMetadata(metadata, file) };
}

import { files } from '#platform';
import { InvalidArgumentError } from '../../errors.js';
import { MAX_HEADER_BYTES } from './header.js';
import { BYTES_PER_ELEMENT, type StorageType } from './number_formats.js';

/** A tensor to be written: `data` gives its little-endian bytes when its turn comes. */
export interface SafetensorsEntry {
  name: string;
  dtype: StorageType;
  shape: readonly number[];
  data: () => Promise<Uint8Array> | Uint8Array;
}

function checkEntries(entries: SafetensorsEntry[]): void {
  const names = new Set<string>();
  for (const { name, shape } of entries) {
    if (names.has(name) || name === '__metadata__') {
      throw new InvalidArgumentError(`[writeSafetensors] the name '${name}' is taken; each tensor needs its own`);
    }
    if (!shape.every((size) => Number.isSafeInteger(size) && size >= 0)) {
      throw new InvalidArgumentError(`[writeSafetensors] tensor '${name}' has shape [${shape}]; expected sizes`);
    }
    names.add(name);
  }
}

/**
 * Writes a safetensors file in two passes, the header and then each tensor's data, so that only one tensor is in memory
 * at a time. Tensors with larger elements come first, which keeps every one aligned. The file appears whole or not at all.
 * @throws {InvalidArgumentError} on a repeated name, a bad shape or data of another length than the shape says
 * @throws {FileWriteError} when `path` cannot be written
 */
export async function writeSafetensors(
  path: string,
  entries: AsyncIterable<SafetensorsEntry> | Iterable<SafetensorsEntry>,
  metadata: Record<string, string> = { format: 'pt' },
): Promise<void> {
  const all: SafetensorsEntry[] = [];
  for await (const entry of entries) {
    all.push(entry);
  }
  checkEntries(all);
  all.sort((a, b) => BYTES_PER_ELEMENT[b.dtype] - BYTES_PER_ELEMENT[a.dtype]);

  const byteLength = ({ dtype, shape }: SafetensorsEntry): number =>
    shape.reduce((product, size) => product * size, 1) * BYTES_PER_ELEMENT[dtype];
  let position = 0;
  const described: [string, unknown][] = all.map((entry) => {
    const begin = position;
    position += byteLength(entry);
    return [entry.name, { dtype: entry.dtype, shape: [...entry.shape], data_offsets: [begin, position] }];
  });
  const text = new TextEncoder().encode(JSON.stringify(Object.fromEntries([['__metadata__', metadata], ...described])));
  const length = Math.ceil(text.length / 8) * 8;
  if (length > MAX_HEADER_BYTES) {
    throw new InvalidArgumentError(
      `[writeSafetensors] the names and metadata take ${length} bytes; the format allows ${MAX_HEADER_BYTES}`,
    );
  }
  const header = new Uint8Array(8 + length).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(length), true);
  header.set(text, 8);

  await files.write(path, async (sink) => {
    await sink(header);
    for (const entry of all) {
      const bytes = await entry.data();
      if (bytes.byteLength !== byteLength(entry)) {
        throw new InvalidArgumentError(
          `[writeSafetensors] tensor '${entry.name}' of shape [${entry.shape}] in ${entry.dtype} takes ` +
            `${byteLength(entry)} bytes, got ${bytes.byteLength}`,
        );
      }
      await sink(bytes);
    }
  });
}

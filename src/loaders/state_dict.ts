import { CheckpointError } from '../errors.js';
import type { StorageType } from './safetensors/number_formats.js';

export { BYTES_PER_ELEMENT, decodeToFloat32, type StorageType } from './safetensors/number_formats.js';

/** What a checkpoint says about a tensor; the shape is the file's own (for a convolution [out, in, height, width]). */
export interface TensorInfo {
  dtype: StorageType;
  shape: number[];
}

/** Named tensors of a checkpoint, read one at a time. */
export interface StateDict {
  /** Every name, in the checkpoint's order. */
  keys(): string[];
  /** Type and shape of a tensor, undefined when there is none of that name. */
  info(key: string): TensorInfo | undefined;
  /**
   * Raw little-endian bytes of a tensor, exactly its size, at the start of a buffer of their own (so that any typed
   * array can be laid over them).
   * @throws {CheckpointError} when there is no such tensor or its bytes cannot be read
   */
  read(key: string): Promise<Uint8Array>;
  /** Closes the files behind the dictionary; reading afterwards is an error, closing again is not. */
  close(): Promise<void>;
}

/**
 * A view of a dictionary under other names. `rename` gives a key's new name, or null to leave the tensor out.
 * Closing the view closes the dictionary behind it.
 * @throws {CheckpointError} when two tensors get the same name
 */
export function renameKeys(dict: StateDict, rename: (key: string) => string | null): StateDict {
  const original = new Map<string, string>();
  for (const key of dict.keys()) {
    const renamed = rename(key);
    if (renamed === null) {
      continue;
    }
    const taken = original.get(renamed);
    if (taken !== undefined) {
      throw new CheckpointError(`tensors '${taken}' and '${key}' of the checkpoint both become '${renamed}'`);
    }
    original.set(renamed, key);
  }
  const originalOf = (key: string): string => {
    const from = original.get(key);
    if (from === undefined) {
      throw new CheckpointError(`the checkpoint has no tensor '${key}'`);
    }
    return from;
  };
  return {
    keys: () => [...original.keys()],
    info(key) {
      const from = original.get(key);
      return from === undefined ? undefined : dict.info(from);
    },
    async read(key) {
      return dict.read(originalOf(key));
    },
    close: () => dict.close(),
  };
}

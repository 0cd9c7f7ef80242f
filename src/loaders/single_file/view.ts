import { CheckpointError } from '../../errors.js';
import { BYTES_PER_ELEMENT, type StateDict, type TensorInfo } from '../state_dict.js';
import type { Origin } from './open_clip_names.js';

/**
 * A part of a checkpoint under other names, its tensors whole, transposed or cut in thirds. Keys that belong to the part
 * and are no tensor's origin are listed as they are, so that loading can refuse them. Closing it closes `dict`.
 *
 * @param origins of each tensor; those that the checkpoint lacks are left out
 * @param own whether a key belongs to the part
 */
export function viewOf(
  dict: StateDict,
  origins: ReadonlyMap<string, Origin>,
  own: (key: string) => boolean,
): StateDict {
  const found = new Map([...origins].filter(([, { key }]) => dict.info(key)));
  const used = new Set([...found.values()].map(({ key }) => key));
  const rest = dict.keys().filter((key) => own(key) && !used.has(key));
  const originOf = (name: string) => found.get(name) ?? (rest.includes(name) ? { key: name } : undefined);
  return {
    keys: () => [...found.keys(), ...rest],
    info: (name) => {
      const origin = originOf(name);
      return origin && partInfo(dict.info(origin.key)!, origin);
    },
    async read(name) {
      const origin = originOf(name);
      if (!origin) {
        throw new CheckpointError(`the checkpoint has no tensor '${name}'`);
      }
      return partBytes(await dict.read(origin.key), dict.info(origin.key)!, origin);
    },
    close: () => dict.close(),
  };
}

function partInfo({ dtype, shape }: TensorInfo, { transposed, third }: Origin): TensorInfo {
  const [rows = 0, ...rest] = shape;
  return {
    dtype,
    shape: third !== undefined ? [Math.floor(rows / 3), ...rest] : transposed ? [...shape].reverse() : shape,
  };
}

function partBytes(bytes: Uint8Array, { dtype, shape }: TensorInfo, { transposed, third }: Origin): Uint8Array {
  if (third !== undefined) {
    const length = bytes.length / 3;
    return bytes.slice(third * length, (third + 1) * length);
  }
  return transposed ? transpose(bytes, shape as [number, number], BYTES_PER_ELEMENT[dtype]) : bytes;
}

function transpose(bytes: Uint8Array, [rows, columns]: [number, number], size: number): Uint8Array {
  const out = new Uint8Array(bytes.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const from = (row * columns + column) * size;
      out.set(bytes.subarray(from, from + size), (column * rows + row) * size);
    }
  }
  return out;
}

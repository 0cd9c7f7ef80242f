import { readFileSync } from 'node:fs';

interface HeaderEntry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

export interface TestTensor {
  dtype: string;
  shape: number[];
  data: Float32Array | Int32Array | BigInt64Array | Uint8Array;
}

/** Reads a small reference file whole; independent of the library's own loader, which has its own tests. */
export function loadSafetensors(path: string): {
  tensors: Record<string, TestTensor>;
  metadata: Record<string, string>;
} {
  const file = readFileSync(path);
  const headerLength = Number(file.readBigUInt64LE(0));
  const { __metadata__: metadata = {}, ...entries } = JSON.parse(file.toString('utf8', 8, 8 + headerLength));
  const tensors: Record<string, TestTensor> = {};
  for (const [name, { dtype, shape, data_offsets }] of Object.entries<HeaderEntry>(entries)) {
    const [begin, end] = data_offsets.map((offset) => 8 + headerLength + offset);
    const bytes = file.buffer.slice(file.byteOffset + begin, file.byteOffset + end);
    const types: Record<string, new (b: ArrayBufferLike) => TestTensor['data']> = {
      F32: Float32Array,
      I32: Int32Array,
      I64: BigInt64Array,
      U8: Uint8Array,
    };
    const Type = types[dtype];
    if (!Type) {
      throw new Error(`${path}: ${name} has type ${dtype}, which the test reader does not know`);
    }
    tensors[name] = { dtype, shape, data: new Type(bytes) };
  }
  return { tensors, metadata };
}

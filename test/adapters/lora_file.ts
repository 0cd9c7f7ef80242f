import { encodeFromFloat32 } from '../../src/loaders/safetensors/number_formats.js';
import { writeSafetensors } from '../../src/loaders/safetensors/writer.js';
import { generatedTensor } from '../support/generated_weights.js';

/** A file of adapters as test/reference/lora_cases.py describes it. */
export interface DescribedFile {
  tensors: Record<string, number[]>;
  values: Record<string, number>;
  metadata?: Record<string, string>;
}

/** Writes the file that is described. */
export async function writeDescribed(
  path: string,
  { tensors, values, metadata = {} }: DescribedFile,
  dtype: 'F32' | 'F16' = 'F32',
): Promise<void> {
  const generated = Object.entries(tensors).map(([name, shape]) => ({
    name,
    shape,
    data: generatedTensor(name, shape).map((x) => (shape.length > 1 ? Math.fround(x * Math.fround(0.7)) : x)),
  }));
  const scalars = Object.entries(values).map(([name, value]) => ({ name, shape: [], data: Float32Array.of(value) }));
  const entries = [...generated, ...scalars].map(({ name, shape, data }) => ({
    ...{ name, dtype, shape },
    data: () => encodeFromFloat32(data, dtype),
  }));
  await writeSafetensors(path, entries, { format: 'pt', ...metadata });
}

import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import type { StateDict } from '../../src/loaders/state_dict.js';
import { loadStateDict } from '../../src/models/index.js';
import type { Parameter } from '../../src/nn/index.js';
import { TorchGenerator } from '../../src/utils/torch_generator.js';

/** The numbers that test/reference/generated_weights.py gives a tensor of that name and shape. */
export function generatedTensor(name: string, shape: readonly number[]): Float32Array {
  const data = new TorchGenerator(crc32(name)).randn(shape);
  const fanIn = shape.slice(1).reduce((a, b) => a * b, 1);
  const scale = Math.fround(shape.length > 1 ? 1 / Math.sqrt(fanIn) : 0.1);
  const offset = shape.length === 1 && name.endsWith('weight') ? 1 : 0;
  return data.map((x) => Math.fround(offset + Math.fround(x * scale)));
}

/** Digest of the names and shapes of a model's tensors, as the reference script takes it of diffusers' model. */
export function digest(parameters: readonly Parameter[]): string {
  const lines = parameters.map(({ path, shape }) => `${path}[${shape}]`).sort();
  return createHash('sha256').update(lines.join('\n')).digest('hex');
}

/** A checkpoint in memory. */
export function memoryStateDict(tensors: ReadonlyMap<string, { shape: number[]; data: Float32Array }>): StateDict {
  const bytes = (key: string) => new Uint8Array(tensors.get(key)!.data.slice().buffer);
  return {
    keys: () => [...tensors.keys()],
    info: (key) => {
      const tensor = tensors.get(key);
      return tensor && { dtype: 'F32', shape: tensor.shape };
    },
    read: async (key) => bytes(key),
    close: async () => undefined,
  };
}

/** Name, shape and generated numbers of each tensor of a model. */
export function generatedState(parameters: readonly Parameter[]): Map<string, { shape: number[]; data: Float32Array }> {
  return new Map(parameters.map(({ path, shape }) => [path, { shape, data: generatedTensor(path, shape) }]));
}

/** Loads the generated weights into a model. */
export async function loadGenerated(model: { parameters: readonly Parameter[] }): Promise<void> {
  await loadStateDict(model.parameters, memoryStateDict(generatedState(model.parameters)));
}

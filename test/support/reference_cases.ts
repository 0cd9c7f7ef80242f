import * as tf from '@tensorflow/tfjs-core';
import { toNHWC } from './compare.js';
import { loadSafetensors, type TestTensor } from './safetensors.js';

/** One case of a file that a script in test/reference wrote: its description and its tensors. */
export interface ReferenceCase {
  name: string;
  config: Record<string, unknown>;
  digest: string;
  tensors: Record<string, TestTensor>;
}

/** The cases of a file: tensor '3.out' is the tensor 'out' of case number 3. */
export function loadReferenceCases(path: string): ReferenceCase[] {
  const { tensors, metadata } = loadSafetensors(path);
  return (JSON.parse(metadata.cases!) as Omit<ReferenceCase, 'tensors'>[]).map((description, i) => ({
    ...description,
    tensors: Object.fromEntries(
      Object.entries(tensors)
        .filter(([key]) => key.startsWith(`${i}.`))
        .map(([key, tensor]) => [key.slice(`${i}.`.length), tensor]),
    ),
  }));
}

/** The numbers of a float32 reference tensor; those with four axes come in our order, N,H,W,C. */
export function numbers({ data, shape }: TestTensor): Float32Array {
  return shape.length === 4 ? toNHWC(data as Float32Array, shape) : (data as Float32Array);
}

/** A float32 reference tensor as ours: [N,C,H,W] becomes [N,H,W,C]. */
export function tensor<T extends tf.Tensor>(reference: TestTensor): T {
  const [n, c, h, w] = reference.shape;
  const shape = reference.shape.length === 4 ? [n!, h!, w!, c!] : reference.shape;
  return tf.tensor(numbers(reference), shape, 'float32') as T;
}

import type { Tensor } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { nestedGradients } from './nested_gradients.js';

/**
 * Gradient checkpointing (Chen et al. 2016; torch.utils.checkpoint): computes f(...inputs) without keeping any of its
 * intermediate tensors for the backward pass, which computes f once more instead.
 *
 * @param f a pure function of its inputs and of `weights`; random numbers in it must be the same at both calls
 * @param inputs tensors that f gets
 * @param weights tensors that f uses by itself (a layer's parameters), for which there shall be gradients too; they must
 *   be the same tensors, unchanged, in the backward pass
 */
export function checkpoint<T extends Tensor>(
  f: (...inputs: Tensor[]) => T,
  inputs: readonly Tensor[],
  weights: readonly Tensor[] = [],
): T {
  const count = inputs.length;
  const recomputed = tf.customGrad((...args) => {
    const save = args[count + weights.length] as unknown as tf.GradSaveFunc;
    const given = args.slice(0, count) as Tensor[];
    save(given);
    return {
      value: f(...given),
      gradFunc: (dy: Tensor, saved: Tensor[]) => nestedGradients(() => f(...saved), [...saved, ...weights], dy),
    };
  });
  return recomputed(...inputs, ...weights) as T;
}

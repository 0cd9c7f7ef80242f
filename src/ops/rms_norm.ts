import type { Tensor, Tensor1D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../errors.js';
import { type Implementation, runFused } from './fused.js';

type NormInputs = { x: Tensor; gamma?: Tensor };

function composedRmsNorm({ x, gamma }: NormInputs, epsilon: number): Tensor {
  const normal = tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), epsilon)));
  return gamma ? tf.mul(normal, gamma) : normal;
}

/**
 * Root mean square normalisation over the last axis: x / sqrt(mean(x^2) + epsilon) * gamma (Zhang & Sennrich 2019).
 *
 * @param x [..., C] float32
 * @param gamma [C]; 1 when left out
 * @returns like x
 * @throws InvalidArgumentError when gamma does not have C numbers
 */
export function rmsNorm<T extends Tensor>(
  x: T,
  gamma?: Tensor1D | null,
  options: { epsilon?: number; impl?: Implementation } = {},
): T {
  const { epsilon = 1e-6, impl } = options;
  if (gamma && gamma.size !== x.shape[x.rank - 1]) {
    throw new InvalidArgumentError(`[rmsNorm] gamma has ${gamma.size} numbers, x [${x.shape}] needs its last size`);
  }
  return runFused<NormInputs>(
    {
      kernel: 'RmsNorm',
      inputs: { x, gamma: gamma ?? undefined },
      attrs: { epsilon },
      composed: (inputs) => composedRmsNorm(inputs, epsilon),
    },
    impl,
  ) as T;
}

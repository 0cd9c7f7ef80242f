import type { Tensor, Tensor1D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../errors.js';
import { silu } from './activations.js';
import { type Implementation, runFused } from './fused.js';

export interface GroupNormOptions {
  groups: number;
  epsilon?: number;
  /** 'silu' is applied to the normalised values in the same pass. */
  activation?: 'linear' | 'silu';
  impl?: Implementation;
}

type NormInputs = { x: Tensor; gamma: Tensor; beta: Tensor };

function composedGroupNorm({ x, gamma, beta }: NormInputs, groups: number, epsilon: number, act: string): Tensor {
  const [n, c] = [x.shape[0]!, x.shape[x.rank - 1]!];
  const grouped = tf.reshape(x, [n, -1, groups, c / groups]);
  const mean = tf.mean(grouped, [1, 3], true);
  const centered = tf.sub(grouped, mean);
  const variance = tf.mean(tf.square(centered), [1, 3], true);
  const normal = tf.mul(centered, tf.rsqrt(tf.add(variance, epsilon)));
  const y = tf.add(tf.mul(tf.reshape(normal, x.shape), gamma), beta);
  return act === 'silu' ? silu(y) : y;
}

/**
 * Group normalisation over all but the first axis (Wu & He 2018), optionally followed by SiLU.
 *
 * @param x [N, ..., C] float32
 * @param gamma [C]
 * @param beta [C]
 * @returns like x
 * @throws InvalidArgumentError when C is not a multiple of `groups`
 */
export function groupNorm<T extends Tensor>(x: T, gamma: Tensor1D, beta: Tensor1D, options: GroupNormOptions): T {
  const { groups, epsilon = 1e-5, activation = 'linear', impl } = options;
  const channels = x.shape[x.rank - 1]!;
  if (channels % groups !== 0 || gamma.size !== channels) {
    throw new InvalidArgumentError(
      `[groupNorm] expects channels to be a multiple of ${groups} groups and equal to gamma's ${gamma.size}, got ${channels}`,
    );
  }
  return runFused<NormInputs>(
    {
      kernel: 'GroupNorm',
      inputs: { x, gamma, beta },
      attrs: { groups, epsilon, activation },
      composed: (inputs) => composedGroupNorm(inputs, groups, epsilon, activation),
    },
    impl,
  ) as T;
}

import type { Tensor, Tensor1D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../errors.js';
import { type Implementation, runFused } from './fused.js';

type NormInputs = { x: Tensor; gamma: Tensor; beta: Tensor };

function composedLayerNorm({ x, gamma, beta }: NormInputs, epsilon: number): Tensor {
  const centered = tf.sub(x, tf.mean(x, -1, true));
  const variance = tf.mean(tf.square(centered), -1, true);
  return tf.add(tf.mul(tf.mul(centered, tf.rsqrt(tf.add(variance, epsilon))), gamma), beta);
}

/**
 * Layer normalisation over the last axis (Ba et al. 2016).
 *
 * @param x [..., C] float32
 * @param gamma [C]
 * @param beta [C]
 * @returns like x
 * @throws InvalidArgumentError when gamma does not have C numbers
 */
export function layerNorm<T extends Tensor>(
  x: T,
  gamma: Tensor1D,
  beta: Tensor1D,
  options: { epsilon?: number; impl?: Implementation } = {},
): T {
  const { epsilon = 1e-5, impl } = options;
  if (gamma.size !== x.shape[x.rank - 1]) {
    throw new InvalidArgumentError(`[layerNorm] gamma has ${gamma.size} numbers, x [${x.shape}] needs its last size`);
  }
  return runFused<NormInputs>(
    {
      kernel: 'LayerNorm',
      inputs: { x, gamma, beta },
      attrs: { epsilon },
      composed: (inputs) => composedLayerNorm(inputs, epsilon),
    },
    impl,
  ) as T;
}

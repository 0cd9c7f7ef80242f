import type { Tensor, Tensor1D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { physicalTypeOf, toPhysicalType } from '../backends/precision.js';
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
 * @param gamma [C]; 1 when null
 * @param beta [C]; 0 when null
 * @returns like x
 * @throws InvalidArgumentError when gamma does not have C numbers
 */
export function layerNorm<T extends Tensor>(
  x: T,
  gamma: Tensor1D | null = null,
  beta: Tensor1D | null = null,
  options: { epsilon?: number; impl?: Implementation } = {},
): T {
  const { epsilon = 1e-5, impl } = options;
  if (gamma && gamma.size !== x.shape[x.rank - 1]) {
    throw new InvalidArgumentError(`[layerNorm] gamma has ${gamma.size} numbers, x [${x.shape}] needs its last size`);
  }
  const run = (scale: Tensor, shift: Tensor) =>
    runFused<NormInputs>(
      {
        kernel: 'LayerNorm',
        inputs: { x, gamma: scale, beta: shift },
        attrs: { epsilon },
        composed: (inputs) => composedLayerNorm(inputs, epsilon),
      },
      impl,
    ) as T;
  if (gamma && beta) {
    return run(gamma, beta);
  }
  const channels = x.shape[x.rank - 1]!;
  const constant = (value: number) => toPhysicalType(tf.fill([channels], value), physicalTypeOf(x));
  return tf.tidy(() => run(gamma ?? constant(1), beta ?? constant(0)));
}

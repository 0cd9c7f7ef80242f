import * as tf from '@tensorflow/tfjs-core';
import { f32 } from './numeric.js';

/**
 * Dynamic thresholding (https://arxiv.org/abs/2205.11487, section 2.3; `_threshold_sample` of diffusers): each batch
 * item is clipped to its own quantile of magnitudes, at least 1 and at most `maxValue`, and divided by it.
 *
 * @param sample float32 [N, ...].
 * @param ratio the quantile, within [0, 1].
 */
export function thresholdSample(sample: tf.Tensor, ratio: number, maxValue: number): tf.Tensor {
  return tf.tidy(() => {
    const [batch = 1] = sample.shape;
    const values = sample.dataSync() as Float32Array;
    const size = values.length / batch;
    const bounds = Array.from({ length: batch }, (_, i) => {
      const quantile = quantile32(values.slice(i * size, (i + 1) * size).map(Math.abs), ratio);
      return Math.min(Math.max(quantile, 1), f32(maxValue));
    });
    const bound = tf.tensor(bounds, [batch, ...sample.shape.slice(1).map(() => 1)], 'float32');
    return tf.div(tf.minimum(tf.maximum(sample, tf.neg(bound)), bound), bound);
  });
}

/** `torch.quantile` of float32 numbers, linear between neighbours; sorts its argument. */
function quantile32(values: Float32Array, q: number): number {
  if (values.some(Number.isNaN)) {
    return Number.NaN;
  }
  values.sort();
  const rank = f32(f32(q) * (values.length - 1));
  const below = values[Math.floor(rank)]!;
  const above = values[Math.ceil(rank)]!;
  const weight = f32(rank - Math.floor(rank));
  const gap = f32(above - below);
  return weight < 0.5 ? f32(below + weight * gap) : f32(above - gap * f32(1 - weight));
}

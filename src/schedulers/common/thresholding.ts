import * as tf from '@tensorflow/tfjs-core';

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
    const magnitudes = tf.abs(tf.reshape(sample, [batch, sample.size / batch])) as tf.Tensor2D;
    const clipped = tf.minimum(tf.maximum(quantile(magnitudes, ratio), 1), maxValue);
    const bound = tf.reshape(clipped, [batch, ...sample.shape.slice(1).map(() => 1)]);
    return tf.div(tf.minimum(tf.maximum(sample, tf.neg(bound)), bound), bound);
  });
}

/** Quantile of each row, linear between neighbours (`torch.quantile`); [N, size] -> [N, 1], without a readback. */
function quantile(rows: tf.Tensor2D, q: number): tf.Tensor {
  const [batch, size] = rows.shape;
  const rank = Math.fround(Math.fround(q) * (size - 1));
  const [below, above] = [Math.floor(rank), Math.ceil(rank)];
  const { values } = tf.topk(rows, size - below, true);
  const ascending = (index: number): tf.Tensor => tf.slice(values, [0, size - 1 - index], [batch, 1]);
  const [low, high] = [ascending(below), ascending(above)];
  return tf.add(low, tf.mul(rank - below, tf.sub(high, low)));
}

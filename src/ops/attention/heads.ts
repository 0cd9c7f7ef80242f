import type { Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';

/** [B, N, heads * d] -> [B, heads, N, d]. */
export function splitHeads(x: Tensor3D, heads: number): Tensor4D {
  return tf.tidy(() => {
    const [b, n, c] = x.shape;
    return tf.transpose(tf.reshape(x, [b, n, heads, c / heads]), [0, 2, 1, 3]) as Tensor4D;
  });
}

/** [B, heads, N, d] -> [B, N, heads * d]. */
export function mergeHeads(x: Tensor4D): Tensor3D {
  return tf.tidy(() => {
    const [b, heads, n, d] = x.shape;
    return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [b, n, heads * d]) as Tensor3D;
  });
}

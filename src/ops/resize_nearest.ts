import type { Tensor, Tensor2D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';

/** [from, to] matrix of zeros and ones: pixel j of the result is pixel floor(j * from / to). */
function selection(from: number, to: number): Tensor2D {
  const data = new Float32Array(from * to);
  for (let j = 0; j < to; j++) {
    data[Math.floor((j * from) / to) * to + j] = 1;
  }
  return tf.tensor2d(data, [from, to]);
}

/**
 * [N,H,W,C] -> [N,height,width,C] by nearest neighbour, as torch's interpolate(mode='nearest'). The gradient is summed here:
 * that of tfjs's own op is wrong for batches on its cpu backend.
 */
export function resizeNearest(x: Tensor4D, [height, width]: [number, number]): Tensor4D {
  const [n, h, w, c] = x.shape;
  const f = tf.customGrad((y) => ({
    value: tf.image.resizeNearestNeighbor(y as Tensor4D, [height, width]),
    gradFunc: (dy: Tensor) =>
      tf.tidy(() => {
        const rows = tf.matMul(tf.expandDims(selection(h, height), 0), tf.reshape(dy, [n, height, width * c]));
        const pixels = tf.matMul(tf.expandDims(selection(w, width), 0), tf.reshape(rows, [n * h, width, c]));
        return tf.reshape(pixels, [n, h, w, c]);
      }),
  }));
  return f(x) as Tensor4D;
}

/** [N,H,W,C] -> [N,2H,2W,C], each pixel repeated. */
export function upsampleNearest2x(x: Tensor4D): Tensor4D {
  return resizeNearest(x, [x.shape[1] * 2, x.shape[2] * 2]);
}

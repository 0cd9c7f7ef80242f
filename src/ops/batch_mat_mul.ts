import type { Tensor, Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { traits } from '../backends/traits.js';

function transposed<T extends Tensor>(x: T): T {
  const axes = Array.from({ length: x.rank }, (_, i) => i);
  return tf.transpose(x, [...axes.slice(0, -2), x.rank - 1, x.rank - 2]) as T;
}

/** One matrix product per batch item. */
function itemByItem(a: Tensor, b: Tensor): Tensor {
  return tf.tidy(() => {
    const [batch, rows, columns] = [a.shape.slice(0, -2), a.shape[a.rank - 2]!, b.shape[b.rank - 1]!];
    const flat = (x: Tensor) => tf.reshape(x, [-1, x.shape[x.rank - 2]!, x.shape[x.rank - 1]!]) as Tensor3D;
    const [x, y] = [flat(a), flat(b)];
    const products = Array.from({ length: x.shape[0] }, (_, i) =>
      tf.tidy(() => {
        const [p, q] = [x, y].map((z) => tf.squeeze(tf.slice(z, [i, 0, 0], [1, -1, -1]), [0]));
        return tf.matMul(p!, q!) as Tensor;
      }),
    );
    return tf.reshape(tf.concat(products, 0), [...batch, rows, columns]);
  });
}

/**
 * tf.matMul of [..., M, K] and [..., K, N] with equal batch axes. tfjs's wasm backend multiplies single matrices with
 * XNNPACK, but batches of them with plain loops that are twenty times slower: there each item is a product of its own.
 */
export function batchMatMul<T extends Tensor>(a: T, b: T): T {
  const batch = a.shape.slice(0, -2).reduce((x, y) => x * y, 1);
  if (!traits().oneMatrixAtATime || batch === 1) {
    return tf.matMul(a, b) as T;
  }
  const f = tf.customGrad((...args) => {
    const [x, y, save] = args as unknown as [Tensor, Tensor, tf.GradSaveFunc];
    save([x, y]);
    return {
      value: itemByItem(x, y),
      gradFunc: (dy: Tensor, saved: Tensor[]) =>
        tf.tidy(() => [itemByItem(dy, transposed(saved[1]!)), itemByItem(transposed(saved[0]!), dy)]),
    };
  });
  return f(a, b) as T;
}

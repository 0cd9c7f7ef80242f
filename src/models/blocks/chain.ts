import type { Tensor } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';

/** Applies layers one after another and frees each intermediate as soon as the next exists; `x` itself stays. */
export function chain<T extends Tensor>(x: T, ...layers: ((x: T) => T)[]): T {
  let current = x;
  for (const layer of layers) {
    const next = tf.tidy(() => layer(current));
    if (current !== x && next !== current) {
      current.dispose();
    }
    current = next;
  }
  return current;
}

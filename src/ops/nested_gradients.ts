import type { Tensor } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';

/**
 * Gradients of f with respect to xs, for use inside the gradient function of a tf.customGrad. tf.grads cannot be used
 * there: when it ends it clears the tape that the outer gradient is still walking along.
 *
 * @param f uses the very tensors of xs
 * @param dy gradient of f's result
 * @returns one gradient per x, zeros for those that f does not depend on
 */
export function nestedGradients(f: () => Tensor, xs: Tensor[], dy: Tensor): Tensor[] {
  const engine = tf.engine();
  const outerTape = engine.state.activeTape;
  try {
    return tf.tidy(() => engine.gradients(f, xs, dy, true).grads.map((grad, i) => grad ?? tf.zerosLike(xs[i]!)));
  } finally {
    engine.state.activeTape = outerTape;
  }
}

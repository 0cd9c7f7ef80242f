import type { Tensor } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';

/**
 * tf.customGrad for attention: the gradient is computed from the inputs, the output and the log-sum-exp.
 *
 * @param forward gives the output, which is returned, and the log-sum-exp
 * @param gradients gives one gradient per input
 */
export function withSavedOutputs(
  inputs: Tensor[],
  forward: (inputs: Tensor[]) => [Tensor, Tensor],
  gradients: (dy: Tensor, inputs: Tensor[], out: Tensor, lse: Tensor) => Tensor[],
): Tensor {
  const count = inputs.length;
  const f = tf.customGrad((...args) => {
    const given = args.slice(0, count) as Tensor[];
    const save = args[count] as unknown as tf.GradSaveFunc;
    const [out, lse] = forward(given);
    save([...given, out, lse]);
    return {
      value: out,
      gradFunc: (dy: Tensor, saved: Tensor[]) => gradients(dy, saved.slice(0, count), saved[count]!, saved[count + 1]!),
    };
  });
  return tf.tidy(() => f(...inputs));
}

import type { Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';

/** Standard deviation of each sample over all its numbers, [B,1,1,1]. */
function standardDeviation(x: Tensor4D): Tensor4D {
  const centered = tf.sub(x, tf.mean(x, [1, 2, 3], true));
  return tf.sqrt(tf.mean(tf.square(centered), [1, 2, 3], true));
}

/**
 * Classifier-free guidance (Ho & Salimans 2022): uncond + scale (cond - uncond), brought back towards the deviation of
 * the conditional prediction by `rescale` (Lin et al. 2023, diffusers' rescale_noise_cfg).
 *
 * @param prediction [2B,H,W,C], the unconditional half first
 * @returns [B,H,W,C]
 */
export function classifierFreeGuidance(prediction: Tensor4D, scale: number, rescale = 0): Tensor4D {
  return tf.tidy(() => {
    const [uncond, cond] = tf.split(prediction, 2, 0) as [Tensor4D, Tensor4D];
    const guided = tf.add(uncond, tf.mul(tf.sub(cond, uncond), scale)) as Tensor4D;
    if (rescale <= 0) {
      return guided;
    }
    const rescaled = tf.mul(guided, tf.div(standardDeviation(cond), standardDeviation(guided)));
    return tf.add(tf.mul(rescaled, rescale), tf.mul(guided, 1 - rescale)) as Tensor4D;
  });
}

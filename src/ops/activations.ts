import type { Tensor } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';

/** Pointwise activations, by diffusers' and transformers' names. 'gelu' is the exact one (erf). */
export type Activation = 'linear' | 'silu' | 'gelu' | 'gelu_tanh' | 'quick_gelu';

const SQRT_HALF = Math.SQRT1_2;

/** x * sigmoid(x), also called swish (Ramachandran et al. 2017). */
export function silu<T extends Tensor>(x: T): T {
  return tf.tidy(() => tf.mul(x, tf.sigmoid(x)) as T);
}

/** x * Phi(x) with the exact normal distribution function (Hendrycks & Gimpel 2016; torch's gelu, approximate='none'). */
export function gelu<T extends Tensor>(x: T): T {
  return tf.tidy(() => tf.mul(tf.mul(x, 0.5), tf.add(tf.erf(tf.mul(x, SQRT_HALF)), 1)) as T);
}

/** 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) (torch's gelu, approximate='tanh'). */
export function geluTanh<T extends Tensor>(x: T): T {
  return tf.tidy(() => {
    const inner = tf.mul(tf.add(x, tf.mul(tf.mul(tf.square(x), x), 0.044715)), Math.sqrt(2 / Math.PI));
    return tf.mul(tf.mul(x, 0.5), tf.add(tf.tanh(inner), 1)) as T;
  });
}

/** x * sigmoid(1.702 x), the activation of OpenAI's CLIP. */
export function quickGelu<T extends Tensor>(x: T): T {
  return tf.tidy(() => tf.mul(x, tf.sigmoid(tf.mul(x, 1.702))) as T);
}

/** Applies the named activation. */
export function activate<T extends Tensor>(x: T, activation: Activation): T {
  switch (activation) {
    case 'linear':
      return x;
    case 'silu':
      return silu(x);
    case 'gelu':
      return gelu(x);
    case 'gelu_tanh':
      return geluTanh(x);
    case 'quick_gelu':
      return quickGelu(x);
  }
}

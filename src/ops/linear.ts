import type { Tensor, Tensor1D, Tensor2D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../errors.js';
import { type Activation, activate, gelu, geluTanh } from './activations.js';
import { type Implementation, runFused } from './fused.js';

export interface LinearOptions {
  /** [out] */
  bias?: Tensor1D;
  /** Added after the activation; the shape of the output. */
  residual?: Tensor;
  /** 'geglu' halves the output: y[..., :n] * gelu(y[..., n:]) (Shazeer 2020, diffusers/models/activations.py). */
  activation?: Activation | 'geglu';
  impl?: Implementation;
}

type LinearInputs = { x: Tensor; weight: Tensor; bias?: Tensor; residual?: Tensor };

function composedLinear(inputs: LinearInputs, activation: Activation | 'geglu'): Tensor {
  const { x, weight, bias, residual } = inputs;
  const [rows, features] = [x.shape.slice(0, -1), x.shape[x.rank - 1]!];
  let y: Tensor = tf.matMul(tf.reshape(x, [-1, features]), weight as Tensor2D);
  if (bias) {
    y = tf.add(y, bias);
  }
  if (activation === 'geglu') {
    const [hidden, gate] = tf.split(y, 2, 1);
    y = tf.mul(hidden!, gelu(gate!));
  } else {
    y = activate(y, activation);
  }
  y = tf.reshape(y, [...rows, y.shape[1]!]);
  return residual ? tf.add(y, residual) : y;
}

/**
 * Fused linear layer: act(x W + b) + residual.
 *
 * @param x [..., in] float32
 * @param weight [in, out] (a checkpoint's [out, in] transposed)
 * @returns [..., out], or [..., out / 2] with 'geglu'
 * @throws InvalidArgumentError when the sizes do not fit
 */
export function linear(x: Tensor, weight: Tensor2D, options: LinearOptions = {}): Tensor {
  const { bias, residual, activation = 'linear', impl } = options;
  const features = x.shape[x.rank - 1]!;
  if (weight.shape[0] !== features) {
    throw new InvalidArgumentError(
      `[linear] weight of shape [${weight.shape}] expects ${weight.shape[0]} input features, got x of shape [${x.shape}]`,
    );
  }
  if (bias && bias.size !== weight.shape[1]) {
    throw new InvalidArgumentError(`[linear] bias expects ${weight.shape[1]} numbers, got shape [${bias.shape}]`);
  }
  if (activation === 'gelu_tanh') {
    // no kernel has it: the product is fused, the activation is a composition
    return tf.tidy(() => {
      const y = geluTanh(linear(x, weight, { bias, impl }));
      return residual ? tf.add(y, residual) : y;
    });
  }
  return runFused<LinearInputs>(
    {
      kernel: 'Linear',
      inputs: { x, weight, bias, residual },
      attrs: { activation },
      composed: (inputs) => composedLinear(inputs, activation),
    },
    impl,
  );
}

import type { Tensor, Tensor1D, Tensor2D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../errors.js';
import { type Activation, activate } from './activations.js';
import { convolve, type Padding2D } from './convolve.js';
import { type Implementation, runFused } from './fused.js';
import { upsampleNearest2x } from './resize_nearest.js';

export interface Conv2dOptions {
  /** [Cout] */
  bias?: Tensor1D;
  /** Added last; the shape of the output. */
  residual?: Tensor4D;
  /** [N, Cout], added to every pixel before the activation (ResnetBlock2D's time embedding). */
  timeEmbedding?: Tensor2D;
  activation?: Exclude<Activation, 'gelu_tanh'>;
  stride?: number;
  /** Zeros around the input: a number for all sides, or [[top, bottom], [left, right]]. */
  padding?: number | Padding2D;
  /** 2: the input is first enlarged by nearest neighbour (diffusers' Upsample2D with its convolution). */
  upsample?: 1 | 2;
  impl?: Implementation;
}

type ConvInputs = { x: Tensor; filter: Tensor; bias?: Tensor; residual?: Tensor; timeEmbedding?: Tensor };

function composedConv2d(inputs: ConvInputs, stride: number, pad: Padding2D, upsample: number, act: Activation): Tensor {
  const filter = inputs.filter as Tensor4D;
  let x = inputs.x as Tensor4D;
  if (upsample === 2) {
    x = upsampleNearest2x(x);
  }
  let y: Tensor;
  if (filter.shape[0] === 1 && filter.shape[1] === 1 && stride === 1 && pad.flat().every((p) => p === 0)) {
    const [n, h, w, c] = x.shape;
    const product = tf.matMul(tf.reshape(x, [-1, c]), tf.reshape(filter, [c, -1]));
    y = tf.reshape(product, [n, h, w, filter.shape[3]]);
  } else {
    y = convolve(x, filter, stride, pad);
  }
  if (inputs.bias) {
    y = tf.add(y, inputs.bias);
  }
  if (inputs.timeEmbedding) {
    const [n, c] = inputs.timeEmbedding.shape;
    y = tf.add(y, tf.reshape(inputs.timeEmbedding, [n!, 1, 1, c!]));
  }
  y = activate(y, act);
  return inputs.residual ? tf.add(y, inputs.residual) : y;
}

/**
 * Fused convolution: act(conv(upsample(x), filter) + bias + timeEmbedding) + residual.
 *
 * @param x [N,H,W,Cin] float32
 * @param filter [kh,kw,Cin,Cout] (a checkpoint's OIHW permuted)
 * @returns [N,Ho,Wo,Cout]
 * @throws InvalidArgumentError when the channels do not fit
 */
export function conv2d(x: Tensor4D, filter: Tensor4D, options: Conv2dOptions = {}): Tensor4D {
  const { bias, residual, timeEmbedding, activation = 'linear', stride = 1, padding = 0, upsample = 1, impl } = options;
  if (x.rank !== 4 || filter.rank !== 4) {
    throw new InvalidArgumentError(
      `[conv2d] expects x [N,H,W,C] and filter [kh,kw,Cin,Cout], got x [${x.shape}] and filter [${filter.shape}]`,
    );
  }
  if (x.shape[3] !== filter.shape[2]) {
    throw new InvalidArgumentError(
      `[conv2d] filter expects ${filter.shape[2]} input channels, got ${x.shape[3]} (x [${x.shape}], filter [${filter.shape}])`,
    );
  }
  const pad: Padding2D = Array.isArray(padding)
    ? padding
    : [
        [padding, padding],
        [padding, padding],
      ];
  return runFused<ConvInputs>(
    {
      kernel: 'Conv2dFused',
      inputs: { x, filter, bias, residual, timeEmbedding },
      attrs: { strides: [stride, stride], pad: pad as unknown as number[], activation, upsample },
      composed: (inputs) => composedConv2d(inputs, stride, pad, upsample, activation),
    },
    impl,
  ) as Tensor4D;
}

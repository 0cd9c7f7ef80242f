import type { Tensor, Tensor2D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { traits } from '../backends/traits.js';

/** [[top, bottom], [left, right]] in pixels. */
export type Padding2D = [[number, number], [number, number]];

/** Gradient of the filter [kh,kw,Cin,Cout], one matrix product for each of its positions. */
function filterGradient(x: Tensor4D, dy: Tensor4D, filterShape: number[], stride: number): Tensor {
  const [kh, kw, inChannels, outChannels] = filterShape as [number, number, number, number];
  const [n, height, width] = dy.shape;
  const gradient = tf.reshape(dy, [-1, outChannels]) as Tensor2D;
  const [h, w] = [height, width].map((size) => (size - 1) * stride + 1) as [number, number];
  const positions = Array.from({ length: kh * kw }, (_, i) =>
    tf.tidy(() => {
      const begin = [0, Math.floor(i / kw), i % kw, 0];
      const end = [n, begin[1]! + h, begin[2]! + w, inChannels];
      const pixels = tf.reshape(tf.stridedSlice(x, begin, end, [1, stride, stride, 1]), [-1, inChannels]);
      return tf.matMul(tf.transpose(pixels), gradient) as Tensor;
    }),
  );
  return tf.reshape(tf.concat(positions, 0), filterShape);
}

function padded(x: Tensor4D, [rows, columns]: Padding2D): Tensor4D {
  return tf.pad(x, [[0, 0], rows, columns, [0, 0]]) as Tensor4D;
}

function forward(x: Tensor4D, filter: Tensor4D, stride: number, pad: Padding2D): Tensor4D {
  const [[top, bottom], [left, right]] = pad;
  // equal padding on all sides is the convolution kernel's own
  return top === bottom && left === right && top === left
    ? tf.conv2d(x, filter, stride, top)
    : tf.conv2d(padded(x, pad), filter, stride, 'valid');
}

/**
 * Convolution with any padding. tfjs's wasm backend has no kernel for the gradient of the filter, tfjs-node's take no
 * padding; there the gradient of the filter is made of matrix products.
 *
 * @param x [N,H,W,Cin]
 * @param filter [kh,kw,Cin,Cout]
 * @returns [N,Ho,Wo,Cout]
 */
export function convolve(x: Tensor4D, filter: Tensor4D, stride: number, pad: Padding2D): Tensor4D {
  if (tf.getKernel('Conv2DBackpropFilter', tf.getBackend()) && !traits().padsForwardOnly) {
    return forward(x, filter, stride, pad);
  }
  const f = tf.customGrad((...args) => {
    const [y, kernel, save] = args as unknown as [Tensor4D, Tensor4D, tf.GradSaveFunc];
    save([y, kernel]);
    return {
      value: forward(y, kernel, stride, pad),
      gradFunc: (dy: Tensor, saved: Tensor[]) => {
        const [savedX, savedFilter] = saved as [Tensor4D, Tensor4D];
        return tf.tidy(() => {
          const wide = padded(savedX, pad);
          const dWide = tf.conv2dTranspose(dy as Tensor4D, savedFilter, wide.shape, stride, 'valid');
          return [
            tf.slice(dWide, [0, pad[0][0], pad[1][0], 0], savedX.shape) as Tensor,
            filterGradient(wide, dy as Tensor4D, savedFilter.shape, stride),
          ];
        });
      },
    };
  });
  return f(x, filter) as Tensor4D;
}

import type { KernelConfig, KernelFunc } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';

const KERNEL = { kernelName: 'Conv2D', backendName: 'tensorflow' };

/** tfjs-node refuses padding by a number, which is the same as explicit padding on all sides; TensorFlow computes that. */
export function takePaddingByNumber(): void {
  const { kernelFunc } = tf.getKernel(KERNEL.kernelName, KERNEL.backendName) as KernelConfig;
  const padded: KernelFunc = (call) => {
    const pad = call.attrs?.pad;
    return typeof pad === 'number'
      ? kernelFunc({ ...call, attrs: { ...call.attrs, pad: explicit(pad) } })
      : kernelFunc(call);
  };
  tf.unregisterKernel(KERNEL.kernelName, KERNEL.backendName);
  tf.registerKernel({ ...KERNEL, kernelFunc: padded });
}

const explicit = (pad: number) => [
  [0, 0],
  [pad, pad],
  [pad, pad],
  [0, 0],
];

import * as tf from '@tensorflow/tfjs-core';
import { WebGpuBackend } from './backend.js';
import { type OpenDevice, openDevice } from './device.js';
import { attention } from './kernels/attention.js';
import { convolution } from './kernels/convolution.js';
import type { KernelDefinition } from './kernels/definition.js';
import { elementwise } from './kernels/elementwise.js';
import { indexing } from './kernels/indexing.js';
import { matmul } from './kernels/matmul.js';
import { movement } from './kernels/movement.js';
import { normalization } from './kernels/normalization.js';
import { reduction } from './kernels/reduction.js';

const BACKEND = 'webgpu';

const KERNELS: KernelDefinition[] = [
  ...[elementwise, movement, reduction, indexing, matmul, convolution, normalization, attention],
].flat();

/** The names of the kernels of this backend. There are no others: nothing is computed on the CPU in their place. */
export const webGpuKernels: readonly string[] = KERNELS.map(({ name }) => name);

let current: WebGpuBackend | null = null;

/**
 * Makes the backend 'webgpu' known to tfjs-core, with all its kernels, on a GPU that it opens; does nothing when it is
 * known already and its GPU works.
 *
 * @returns why that is not possible here, or undefined
 */
export async function registerWebGpu(): Promise<string | undefined> {
  if (tf.findBackendFactory(BACKEND)) {
    if (!current?.isLost) {
      return undefined;
    }
    tf.removeBackend(BACKEND);
  }
  let opened: OpenDevice;
  try {
    opened = await openDevice();
  } catch (error) {
    return (error as Error).message.replace(/^\[webgpu\] /, '');
  }
  const backend = new WebGpuBackend(opened);
  current = backend;
  for (const { name, run } of KERNELS) {
    const kernelFunc = run as tf.KernelFunc;
    tf.registerKernel({ kernelName: name, backendName: BACKEND, kernelFunc });
  }
  tf.registerGradient({
    kernelName: 'PhysicalCast',
    gradFunc: (dy) => ({ x: () => tf.cast(dy as tf.Tensor, 'float32') }),
  });
  tf.registerBackend(BACKEND, () => backend, 1);
  return undefined;
}

/** The backend's GPU, once it is registered. */
export const describeGpu = () => current?.description;

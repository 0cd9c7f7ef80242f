import * as tf from '@tensorflow/tfjs-core';
import { loadAddon } from '#native-addon';
import { OneDnnBackend } from './backend.js';
import { forward } from './forward.js';
import { cast } from './kernels/cast.js';
import { complex } from './kernels/complex.js';
import { convolution } from './kernels/convolution.js';
import type { KernelDefinition } from './kernels/definition.js';
import { elementwise } from './kernels/elementwise.js';
import { fused } from './kernels/fused.js';
import { indexing } from './kernels/indexing.js';
import { joining } from './kernels/joining.js';
import { layout } from './kernels/layout.js';
import { matmul } from './kernels/matmul.js';
import { reduction } from './kernels/reduction.js';
import { resize } from './kernels/resize.js';
import { slicing } from './kernels/slicing.js';
import { views } from './kernels/views.js';

const BACKEND = 'onednn';
/** Above tfjs's own backends for Node, so that tfjs-core takes this one by itself. */
const PRIORITY = 10;

const KERNELS: KernelDefinition[] = [
  ...[cast, elementwise, views, complex, slicing, joining, layout, reduction, indexing],
  ...[matmul, convolution, resize, fused],
].flat();

/** The names of the kernels that run in the addon; the others of tfjs-core are forwarded to tfjs's cpu kernels. */
export const nativeKernels: readonly string[] = KERNELS.map(({ name }) => name);

function register(kernelName: string, kernelFunc: KernelDefinition['run']): void {
  tf.registerKernel({ kernelName, backendName: BACKEND, kernelFunc: kernelFunc as unknown as tf.KernelFunc });
}

/**
 * Makes the backend 'onednn' known to tfjs-core, with all its kernels; does nothing when it is known already.
 *
 * @returns why that is not possible here, or undefined
 */
export function registerOneDnn(): string | undefined {
  if (tf.findBackendFactory(BACKEND)) return undefined;
  const loaded = loadAddon();
  if (!loaded.addon) return loaded.reason;
  const { addon } = loaded;
  for (const { name, run } of KERNELS) register(name, run);
  const native = new Set(nativeKernels);
  for (const { kernelName } of tf.getKernelsForBackend('cpu')) {
    if (native.has(kernelName)) continue;
    register(kernelName, (args) => forward(kernelName, args));
  }
  tf.registerGradient({
    kernelName: 'PhysicalCast',
    gradFunc: (dy) => ({ x: () => tf.cast(dy as tf.Tensor, 'float32') }),
  });
  tf.registerBackend(BACKEND, () => new OneDnnBackend(addon), PRIORITY);
  return undefined;
}

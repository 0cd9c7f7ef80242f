import * as tf from '@tensorflow/tfjs-core';
import { loadAddon } from '#native-addon';
import { NativeBackend } from './backend.js';
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

/** Above tfjs's own backends for Node, so that tfjs-core takes a native one by itself. */
const PRIORITY = 10;

const KERNELS: KernelDefinition[] = [
  ...[cast, elementwise, views, complex, slicing, joining, layout, reduction, indexing],
  ...[matmul, convolution, resize, fused],
].flat();

/** The kernels that this library has a native form for, if the addon has what they need. */
export const nativeKernels: readonly string[] = KERNELS.map(({ name }) => name);

/**
 * The native kernels that an addon with the functions `has` cannot run, by name: those of tfjs-core go to tfjs's cpu
 * backend, those of src/ops to their composition.
 */
export function absentKernels(has: readonly string[]): string[] {
  const there = new Set(has);
  return KERNELS.filter(({ needs }) => !needs.every((name) => there.has(name))).map(({ name }) => name);
}

/**
 * Makes a native backend known to tfjs-core, with all its kernels; does nothing when it is known already.
 *
 * @param name of the backend and of its addon: name.node
 * @returns why that is not possible here, or undefined
 */
export function registerNative(name: string): string | undefined {
  if (tf.findBackendFactory(name)) return undefined;
  const loaded = loadAddon(name);
  if (!loaded.addon) return loaded.reason;
  const { addon } = loaded;
  registerKernels(name, new Set(absentKernels(addon.kernels)));
  tf.registerGradient({
    kernelName: 'PhysicalCast',
    gradFunc: (dy) => ({ x: () => tf.cast(dy as tf.Tensor, 'float32') }),
  });
  tf.registerBackend(name, () => new NativeBackend(name, addon), PRIORITY);
  return undefined;
}

function registerKernels(backendName: string, absent: ReadonlySet<string>): void {
  const register = (kernelName: string, kernelFunc: KernelDefinition['run']) =>
    tf.registerKernel({ kernelName, backendName, kernelFunc: kernelFunc as unknown as tf.KernelFunc });
  const native = KERNELS.filter(({ name }) => !absent.has(name));
  for (const { name, run } of native) register(name, run);
  const done = new Set(native.map(({ name }) => name));
  for (const { kernelName } of tf.getKernelsForBackend('cpu')) {
    if (!done.has(kernelName)) register(kernelName, (args) => forward(kernelName, args));
  }
}

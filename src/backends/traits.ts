import * as tf from '@tensorflow/tfjs-core';
import { freeMemory as systemFreeMemory } from '#platform';
import { supportsPhysicalTypes } from './types.js';

/** Bytes that could still be allocated. */
export type FreeMemory = () => number;

/** What the layers above ask of a backend instead of its name. */
export interface BackendTraits {
  /** Only products of single matrices are fast, so that batches of them are computed one by one. */
  readonly oneMatrixAtATime: boolean;
  /** It has gradients of convolutions without padding only. */
  readonly padsForwardOnly: boolean;
  /** It computes in a GPU's memory. */
  readonly isGpu: boolean;
  /** Bytes that could still be allocated: of its pool and limit, of the system where it cannot tell. */
  readonly freeMemory: FreeMemory;
}

/** The address space of a 32-bit WebAssembly memory. */
const WASM_HEAP_BYTES = 4294901760;
const GPU_BACKENDS: readonly string[] = ['cuda', 'webgl', 'webgpu'];

/** tfjs-node-gpu computes in a GPU's memory when it finds one. */
const tensorFlowIsOnGpu = () => (tf.backend() as { isUsingGpuDevice?: boolean }).isUsingGpuDevice === true;

function nativeFreeMemory(): number | null {
  const backend = tf.backend();
  if (!supportsPhysicalTypes(backend)) {
    return null;
  }
  const { freeBytes, poolBytes, limitBytes, bytesInUse } = backend.memoryInfo();
  const free = freeBytes + poolBytes;
  return limitBytes > 0 ? Math.min(free, Math.max(0, limitBytes - bytesInUse)) : free;
}

const wasmFreeMemory = () => Math.min(systemFreeMemory(), Math.max(0, WASM_HEAP_BYTES - tf.memory().numBytes));

const DEFAULT: BackendTraits = {
  oneMatrixAtATime: false,
  padsForwardOnly: false,
  isGpu: false,
  freeMemory: () => nativeFreeMemory() ?? systemFreeMemory(),
};
const GPU: BackendTraits = { ...DEFAULT, isGpu: true };
// tfjs's wasm backend multiplies single matrices with XNNPACK, but batches of them with plain loops
const WASM: BackendTraits = { ...DEFAULT, oneMatrixAtATime: true, freeMemory: wasmFreeMemory };
const TENSORFLOW: BackendTraits = { ...DEFAULT, padsForwardOnly: true };

/** The traits of the active backend. */
export function traits(): BackendTraits {
  const name = tf.getBackend();
  if (name === 'wasm') {
    return WASM;
  }
  if (name === 'tensorflow') {
    return { ...TENSORFLOW, isGpu: tensorFlowIsOnGpu() };
  }
  return GPU_BACKENDS.includes(name) ? GPU : DEFAULT;
}

/** Free memory as the active backend sees it, in bytes. */
export function freeMemory(): number {
  return traits().freeMemory();
}

/**
 * Waits until the active backend has computed all that it was given. Kernels of a GPU may run after their calls return, so
 * that times, progress and an abort are only true after this.
 *
 * @throws BackendError, OutOfMemoryError when the GPU failed meanwhile
 */
export async function synchronize(): Promise<void> {
  const backend = tf.backend() as tf.KernelBackend & { sync?: () => Promise<void> };
  await backend.sync?.();
}

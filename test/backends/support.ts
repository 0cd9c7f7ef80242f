import * as tf from '@tensorflow/tfjs-core';
import { type BackendName, pickBackend } from '../../src/backends/index.js';
import { loadAddon } from '../../src/backends/native/addon.js';
import type { NativeBackend } from '../../src/backends/native/backend.js';
import type { PhysicalType } from '../../src/backends/types.js';

export const TYPES: PhysicalType[] = ['float32', 'bfloat16', 'float16'];
/** Of one rounding to the type; sums are float32. */
export const BOUND: Record<PhysicalType, number> = { float32: 2e-6, bfloat16: 6e-3, float16: 8e-4 };

export type Impl = 'native' | 'composed';

/** The native backend under test; scripts/test_cuda.mjs names cuda, on its emulator. */
export const NATIVE_BACKEND = (process.env.TFJS_DIFFUSERS_TEST_BACKEND ?? 'onednn') as BackendName;

/** Whether its addon is built here; without it there is nothing to test. Where it was asked for, its absence fails. */
export const hasNative =
  process.env.TFJS_DIFFUSERS_TEST_BACKEND !== undefined || loadAddon(NATIVE_BACKEND).addon !== undefined;

export async function startNative(): Promise<NativeBackend> {
  await pickBackend(NATIVE_BACKEND);
  return tf.backend() as NativeBackend;
}

/** Reproducible numbers around 0 with a standard deviation near 1. */
export function numbers(shape: number[], seed: number, scale = 1): tf.Tensor {
  return tf.tidy(() => tf.mul(tf.randomNormal(shape, 0, 1, 'float32', seed), scale));
}

/** The same numbers on tfjs's cpu backend. */
export async function onCpu<T>(work: () => T): Promise<T> {
  const before = tf.getBackend();
  await tf.setBackend('cpu');
  try {
    return work();
  } finally {
    await tf.setBackend(before);
  }
}

import * as tf from '@tensorflow/tfjs-core';
import { pickBackend } from '../../src/backends/index.js';
import type { NativeBackend } from '../../src/backends/native/backend.js';
import type { PhysicalType } from '../../src/backends/types.js';
import { NATIVE_BACKEND } from '../support/native.js';

export const TYPES: PhysicalType[] = ['float32', 'bfloat16', 'float16'];
/** Of one rounding to the type; sums are float32. */
export const BOUND: Record<PhysicalType, number> = { float32: 2e-6, bfloat16: 6e-3, float16: 8e-4 };

export type Impl = 'native' | 'composed';

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

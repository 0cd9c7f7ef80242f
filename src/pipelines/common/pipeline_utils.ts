import * as tf from '@tensorflow/tfjs-core';
import { type BackendName, pickBackend } from '../../backends/index.js';
import { type PhysicalType, supportsPhysicalTypes } from '../../backends/types.js';
import { AbortedError, InvalidArgumentError } from '../../errors.js';
import { warn } from '../../utils/logging.js';

/** What came where something else was expected, for error messages. */
export function describe(value: unknown): string {
  if (value instanceof tf.Tensor) {
    return `a ${value.isDisposed ? 'disposed ' : ''}tensor [${value.shape}]`;
  }
  if (typeof value === 'object' && value !== null) {
    return Array.isArray(value) ? `a list of ${value.length}` : 'an object';
  }
  return typeof value === 'string' ? JSON.stringify(value.slice(0, 80)) : String(value);
}

/**
 * Options without those that are null, as callers from JavaScript write Python's None.
 *
 * @throws InvalidArgumentError when they are no object
 */
export function withoutNulls<T extends object>(where: string, options: T): T {
  if (typeof (options ?? {}) !== 'object' || Array.isArray(options) || options instanceof tf.Tensor) {
    throw new InvalidArgumentError(`[${where}] expects an object of options, got ${describe(options)}`);
  }
  return Object.fromEntries(Object.entries(options ?? {}).filter(([, value]) => value !== null)) as T;
}

/** @throws AbortedError when the signal has been given */
export function checkAborted(signal: AbortSignal | undefined, what: string): void {
  if (signal?.aborted) {
    throw new AbortedError(`${what} was stopped`, { cause: signal.reason });
  }
}

/**
 * Makes the wanted backend the active one: the named one; else whichever is active already; else the fastest that works.
 *
 * @throws BackendError when the named backend does not work here
 */
export async function ensureBackend(name?: 'auto' | BackendName): Promise<void> {
  if (name !== undefined) {
    await pickBackend(name);
  } else if (!tf.getBackend()) {
    await pickBackend('auto');
  }
}

/** 16-bit types where the active backend has them; float32, with a warning, elsewhere. */
export function usableType(dtype: PhysicalType): PhysicalType {
  if (dtype !== 'float32' && !supportsPhysicalTypes(tf.backend())) {
    warn(`the backend '${tf.getBackend()}' computes in float32 only; dtype '${dtype}' is not used`);
    return 'float32';
  }
  return dtype;
}

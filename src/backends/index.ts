import * as tf from '@tensorflow/tfjs-core';
import { BackendError } from '../errors.js';

export {
  type MemoryInfo,
  type NativeTensorBackend,
  type PhysicalType,
  type StorageType,
  supportsPhysicalTypes,
} from './types.js';

/** The tfjs backends that this library knows how to start, fastest first. */
export type BackendName = 'onednn' | 'tensorflow' | 'wasm' | 'cpu';

const AUTOMATIC: readonly BackendName[] = ['onednn', 'wasm', 'cpu'];
const MODULES: Partial<Record<BackendName, string>> = {
  tensorflow: '@tensorflow/tfjs-node',
  wasm: '@tensorflow/tfjs-backend-wasm',
  cpu: '@tensorflow/tfjs-backend-cpu',
};

/** Makes the backend `name` known to tfjs-core; returns why that is not possible, or undefined. */
async function register(name: BackendName): Promise<string | undefined> {
  if (tf.findBackendFactory(name)) return undefined;
  const module = MODULES[name];
  if (!module) return 'the native addon is not built';
  try {
    await import(module);
  } catch (error) {
    return `${module} cannot be loaded: ${(error as Error).message}`;
  }
  return tf.findBackendFactory(name) ? undefined : `${module} does not provide the backend '${name}'`;
}

/** Registers every backend that is part of this installation with tfjs-core; chooses none. */
export async function registerBackends(): Promise<void> {
  for (const name of AUTOMATIC) await register(name);
}

/**
 * Makes a backend the active one of tfjs-core and waits until it is ready.
 *
 * @param name 'auto' takes the fastest that works here: onednn, wasm, cpu
 * @returns the name of the backend that is now active
 * @throws BackendError when the backend that was asked for does not work here
 */
export async function pickBackend(name: 'auto' | BackendName = 'auto'): Promise<BackendName> {
  const reasons: string[] = [];
  for (const candidate of name === 'auto' ? AUTOMATIC : [name]) {
    const reason = (await register(candidate)) ?? (await activate(candidate));
    if (!reason) return candidate;
    reasons.push(`${candidate}: ${reason}`);
  }
  throw new BackendError(`[backend] no usable backend (${reasons.join('; ')})`);
}

async function activate(name: BackendName): Promise<string | undefined> {
  try {
    if (await tf.setBackend(name)) {
      await tf.ready();
      return undefined;
    }
    return 'it failed to start';
  } catch (error) {
    return (error as Error).message;
  }
}

/** One line of the `doctor` command. */
export interface BackendDescription {
  name: BackendName;
  available: boolean;
  /** Why it is not available, or what it runs on. */
  detail: string;
}

/** Which backends work here and why the others do not. */
export async function describeBackends(): Promise<BackendDescription[]> {
  const descriptions: BackendDescription[] = [];
  for (const name of [...AUTOMATIC, 'tensorflow'] as const) {
    const reason = await register(name);
    descriptions.push({ name, available: !reason, detail: reason ?? 'ready' });
  }
  return descriptions;
}

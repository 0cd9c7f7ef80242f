import * as tf from '@tensorflow/tfjs-core';
import { loadAddon } from '#native-addon';
import { BackendError } from '../errors.js';
import { registerNative } from './native/register.js';
import { describeTensorFlow, registerTensorFlow } from './tensorflow/register.js';
import { describeGpu, registerWebGpu } from './webgpu/register.js';

export { type BackendTraits, type FreeMemory, freeMemory, traits } from './traits.js';
export {
  type FloatStorageType,
  type MemoryInfo,
  type NativeTensorBackend,
  type PhysicalType,
  supportsPhysicalTypes,
} from './types.js';

/** The tfjs backends that this library knows how to start, fastest first. */
export const BACKEND_NAMES = ['cuda', 'onednn', 'webgpu', 'tensorflow', 'wasm', 'cpu'] as const;
export type BackendName = (typeof BACKEND_NAMES)[number];

const AUTOMATIC: readonly BackendName[] = ['cuda', 'onednn', 'wasm', 'cpu'];
/** Those of this library that are addons, one of its name each. */
const NATIVE: ReadonlySet<string> = new Set(['cuda', 'onednn']);
/** The packages of tfjs's own backends; bundlers must see the names that they are imported by. */
const MODULES: Partial<Record<BackendName, { name: string; load: () => Promise<unknown> }>> = {
  wasm: { name: '@tensorflow/tfjs-backend-wasm', load: () => import('@tensorflow/tfjs-backend-wasm') },
  cpu: { name: '@tensorflow/tfjs-backend-cpu', load: () => import('@tensorflow/tfjs-backend-cpu') },
};

/** Makes the backend `name` known to tfjs-core; returns why that is not possible, or undefined. */
async function register(name: BackendName): Promise<string | undefined> {
  if (NATIVE.has(name)) return registerNative(name);
  if (name === 'webgpu') return registerWebGpu();
  if (name === 'tensorflow') return registerTensorFlow();
  if (tf.findBackendFactory(name)) return undefined;
  const entry = Object.hasOwn(MODULES, name) ? MODULES[name] : undefined;
  if (!entry) {
    return 'there is no backend of this name';
  }
  const { name: module, load } = entry;
  try {
    await load();
  } catch (error) {
    return `${module} cannot be loaded: ${(error as Error).message}`;
  }
  return tf.findBackendFactory(name) ? undefined : `${module} does not provide the backend '${name}'`;
}

/** What 'auto' tries, in that order. Who has a GPU and installed webgpu wants to use both; a GPU in software is for tests. */
async function automatic(): Promise<BackendName[]> {
  const gpu = (await register('webgpu')) ? undefined : describeGpu();
  return gpu && !gpu.isSoftware ? ['cuda', 'webgpu', ...AUTOMATIC.slice(1)] : [...AUTOMATIC];
}

/** Registers every backend that is part of this installation with tfjs-core; chooses none. */
export async function registerBackends(): Promise<void> {
  for (const name of AUTOMATIC) await register(name);
}

/**
 * Makes a backend the active one of tfjs-core and waits until it is ready.
 *
 * @param name 'auto' takes the fastest that works here: cuda, webgpu where the package webgpu finds a GPU, onednn, wasm,
 *   cpu
 * @returns the name of the backend that is now active
 * @throws BackendError when the backend that was asked for does not work here
 */
export async function pickBackend(name: 'auto' | BackendName = 'auto'): Promise<BackendName> {
  const reasons: string[] = [];
  for (const candidate of name === 'auto' ? await automatic() : [name]) {
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
  /** What it runs on, or why it is not available. */
  detail: string;
  /** What would make pictures faster. */
  advice?: string;
}

function describeNative(name: string): Pick<BackendDescription, 'detail' | 'advice'> {
  const loaded = loadAddon(name);
  if (!loaded.addon) return { detail: loaded.reason };
  const { detail, advice } = loaded.addon.describe();
  return { detail: `${detail} (${loaded.path})`, advice };
}

function describeWebGpu(): Pick<BackendDescription, 'detail' | 'advice'> {
  const gpu = describeGpu()!;
  const [least, most] = gpu.subgroupSizes;
  const parts = [
    `${gpu.description} (${gpu.vendor} ${gpu.architecture})`,
    gpu.hasFloat16 ? 'float16' : 'no float16',
    gpu.hasSubgroups ? `subgroups of ${least === most ? least : `${least} to ${most}`}` : 'no subgroups',
    `buffers of up to ${Math.round(gpu.maxBindingBytes / 2 ** 20)} MiB`,
    `${gpu.workgroupBytes / 1024} KiB per workgroup`,
  ];
  const detail = parts.join(', ');
  if (gpu.isSoftware) {
    return { detail: `${detail}; a GPU in software, for tests` };
  }
  return gpu.hasFloat16 ? { detail, advice: `dtype 'float16' halves the memory of the GPU` } : { detail };
}

function describe(name: BackendName): Pick<BackendDescription, 'detail' | 'advice'> {
  if (NATIVE.has(name)) {
    return describeNative(name);
  }
  if (name === 'tensorflow') {
    return { detail: describeTensorFlow() };
  }
  return name === 'webgpu' ? describeWebGpu() : { detail: 'ready' };
}

/** Everybody with a processor is better off with the native engine; the other backends are for those who want them. */
function describeAbsent(name: BackendName, reason: string): Pick<BackendDescription, 'detail' | 'advice'> {
  const advice = `the native engine (${name}) is much faster than wasm, but: ${reason.split('\n')[0]}`;
  return name === 'onednn' ? { detail: reason, advice } : { detail: reason };
}

/** Which backends work here and why the others do not. */
export async function describeBackends(): Promise<BackendDescription[]> {
  const descriptions: BackendDescription[] = [];
  for (const name of [...AUTOMATIC, 'webgpu', 'tensorflow'] as const) {
    const reason = await register(name);
    const extra = reason ? describeAbsent(name, reason) : describe(name);
    descriptions.push({ name, available: !reason, ...extra });
  }
  return descriptions;
}

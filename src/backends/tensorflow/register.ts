import * as tf from '@tensorflow/tfjs-core';
import { loadAddon } from '#native-addon';
import { importNodePackage, loadedLibrary, restoreIsNullOrUndefined } from '#platform';
import { warn } from '../../utils/logging.js';
import { takePaddingByNumber } from './conv2d.js';
import { registerOps } from './ops.js';

/** The backend that tfjs-node and tfjs-node-gpu provide. */
const BACKEND = 'tensorflow';
/** The one with the larger device first: who has both installed wants it. */
const PACKAGES = ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node'] as const;
/** TensorFlow's own, and that of a Python wheel. */
const LIBRARY = /\/libtensorflow(_cc)?\.so(\.\d+)*$/;

/** What is used of the binding of tfjs-node. */
export interface TensorFlowBinding {
  readonly TF_Version: string;
  readonly TF_ATTR_INT: number;
  readonly TF_ATTR_FLOAT: number;
  readonly TF_ATTR_STRING: number;
}

/** The tfjs backend of tfjs-node. */
export interface TensorFlowBackend extends tf.KernelBackend {
  readonly binding: TensorFlowBinding;
  readonly isUsingGpuDevice: boolean;
  executeMultipleOutputs(
    name: string,
    attributes: { name: string; type: number; value: number | string }[],
    inputs: tf.Tensor[],
    outputs: number,
  ): tf.Tensor[];
}

const backend = () => tf.findBackend(BACKEND) as TensorFlowBackend;

/** Why our ops are not in TensorFlow, or undefined when they are. */
function addOps(): string | undefined {
  if (backend().isUsingGpuDevice) {
    return 'they have no kernels for a GPU yet';
  }
  const loaded = loadAddon('onednn');
  if (!loaded.addon) {
    return loaded.reason;
  }
  const library = loadedLibrary(LIBRARY);
  if (!loaded.addon.registerTensorFlowOps || !library) {
    return library ? `${loaded.path} has none` : 'its library was not found in this process';
  }
  try {
    registerOps(loaded.addon.registerTensorFlowOps(library), backend().binding);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** tfjs-node brings tfjs's other backends along; tfjs-core would warn of every kernel that is registered again. */
async function loadQuietly(name: string): Promise<void> {
  const isProduction = tf.env().getBool('PROD');
  tf.env().set('PROD', true);
  try {
    await importNodePackage(name);
  } finally {
    tf.env().set('PROD', isProduction);
  }
}

async function loadPackage(): Promise<string | undefined> {
  const reasons: string[] = [];
  for (const name of PACKAGES) {
    try {
      await loadQuietly(name);
      return undefined;
    } catch (error) {
      reasons.push(`${name} cannot be loaded: ${(error as Error).message.split('\n')[0]}`);
    }
  }
  return reasons.find((reason) => !/Cannot find (package|module) '@tensorflow/.test(reason)) ?? reasons.at(-1);
}

/**
 * Makes the backend of tfjs-node(-gpu) known to tfjs-core, and our fused ops to its TensorFlow. Without the ops everything
 * runs by compositions of TensorFlow's own; a warning says so once.
 *
 * @returns why the backend cannot be used here, or undefined
 */
export async function registerTensorFlow(): Promise<string | undefined> {
  if (tf.findBackendFactory(BACKEND)) {
    return undefined;
  }
  restoreIsNullOrUndefined();
  const active = tf.engine().backendName;
  const problem = await loadPackage();
  if (problem) {
    return problem;
  }
  // tfjs-node makes itself the active backend when it is loaded
  if (active) {
    tf.setBackend(active);
  }
  takePaddingByNumber();
  const missing = addOps();
  if (missing) {
    warn(
      `TensorFlow ${backend().binding.TF_Version} runs without the ops of this library (${missing}): attention and norms are chains of its own ops, which takes more time and memory`,
    );
  }
  return undefined;
}

/** What the backend runs on, in one line. */
export function describeTensorFlow(): string {
  const { binding, isUsingGpuDevice } = backend();
  return `TensorFlow ${binding.TF_Version} on ${isUsingGpuDevice ? 'a GPU' : 'the processor'}`;
}

import * as tf from '@tensorflow/tfjs-core';
import { pickBackend } from '../../src/backends/index.js';
import type { PhysicalType } from '../../src/backends/types.js';
import { type GpuData, WebGpuBackend } from '../../src/backends/webgpu/backend.js';

/** Of one rounding to the type; sums are float32. */
export const BOUND: Record<'float32' | 'float16', number> = { float32: 2e-6, float16: 8e-4 };

export interface Gpu {
  backend: WebGpuBackend;
  /** The physical types that the adapter has. */
  types: (keyof typeof BOUND)[];
  /** What the GPU has complained of since the last call. */
  complaints(): Promise<string[]>;
}

/** NaN as float32 and as float16, and a large number as int32. */
const POISON = 0x7fc07fc0;

/** Every result's buffer is filled with NaN before its kernel runs: numbers that no kernel wrote are seen. */
function poison(backend: WebGpuBackend): void {
  const { empty } = backend;
  backend.empty = function (this: WebGpuBackend, ...args: Parameters<WebGpuBackend['empty']>) {
    const info = empty.apply(this, args);
    const { buffer } = info.dataId as GpuData;
    this.queue.flush();
    this.queue.write(buffer!, new Uint32Array(buffer!.bytes / 4).fill(POISON));
    return info;
  };
}

/** Starts the backend; `poisoned` for tests that compare numbers. */
export async function startWebGpu({ poisoned = false } = {}): Promise<Gpu> {
  await pickBackend('webgpu');
  const backend = tf.backend();
  if (!(backend instanceof WebGpuBackend)) {
    throw new Error(`the active backend is ${tf.getBackend()}`);
  }
  const heard: string[] = [];
  backend.device.addEventListener('uncapturederror', ({ error }) => heard.push(error.message));
  if (poisoned) {
    poison(backend);
  }
  const complaints = async () => {
    await backend.device.queue.onSubmittedWorkDone();
    return heard.splice(0);
  };
  return { backend, types: backend.description.hasFloat16 ? ['float32', 'float16'] : ['float32'], complaints };
}

/** Reproducible numbers around 0 with a standard deviation near 1. */
export function numbers(shape: number[], seed: number, scale = 1): Float32Array {
  const x = tf.randomNormal(shape, 0, scale, 'float32', seed);
  const values = x.dataSync().slice() as Float32Array;
  x.dispose();
  return values;
}

/** The numbers as the backend stores them in that type. */
export function onGpu(gpu: Gpu, values: Float32Array, shape: number[], type: PhysicalType): tf.Tensor {
  const x = tf.tensor(values, shape);
  return type === 'float32' ? x : tf.tidy(() => gpu.backend.toPhysical(x, type));
}

/** Works on tfjs's cpu backend and gives back the numbers and the shapes. */
export async function onCpu(work: () => tf.Tensor[]): Promise<{ values: Float32Array; shape: number[] }[]> {
  const before = tf.getBackend();
  await tf.setBackend('cpu');
  try {
    tf.engine().startScope();
    return work().map((x) => ({ values: x.dataSync().slice() as Float32Array, shape: x.shape }));
  } finally {
    tf.engine().endScope();
    await tf.setBackend(before);
  }
}

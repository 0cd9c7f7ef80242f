import type { DataId, Tensor } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { supportsPhysicalTypes } from './types.js';

export interface PeakMemory<T> {
  value: T;
  /** The most bytes held at one time above those held at the start. */
  peakBytes: number;
}

interface Tracker {
  state: { tensorInfo: { has(id: DataId): boolean } };
  trackTensor(tensor: Tensor, backend: unknown): void;
  disposeTensor(tensor: Tensor): void;
}

/** Counts the bytes of tensors' data (once, however many tensors share it) as tfjs-core makes and disposes of them. */
function trackEngine(): { peak: () => number; stop: () => void } {
  const engine = tf.engine() as unknown as Tracker;
  const { trackTensor, disposeTensor } = engine;
  const live = new Map<DataId, { tensors: number; bytes: number }>();
  let [bytes, peak] = [0, 0];
  engine.trackTensor = function (tensor, backend) {
    // a view of data from before the measurement costs nothing
    const isNew = !engine.state.tensorInfo.has(tensor.dataId);
    trackTensor.call(this, tensor, backend);
    const entry = live.get(tensor.dataId);
    if (entry) {
      entry.tensors++;
      return;
    }
    const size = isNew ? tensor.size * (tensor.dtype === 'bool' ? 1 : 4) : 0;
    live.set(tensor.dataId, { tensors: 1, bytes: size });
    bytes += size;
    peak = Math.max(peak, bytes);
  };
  engine.disposeTensor = function (tensor) {
    const entry = tensor.isDisposed ? undefined : live.get(tensor.dataId);
    disposeTensor.call(this, tensor);
    if (entry && --entry.tensors === 0) {
      live.delete(tensor.dataId);
      bytes -= entry.bytes;
    }
  };
  return {
    peak: () => peak,
    stop: () => {
      // the methods of the class come back into view
      delete (engine as Partial<Tracker>).trackTensor;
      delete (engine as Partial<Tracker>).disposeTensor;
    },
  };
}

/**
 * Runs f and measures how much memory it takes at its peak: as the native backend counts it, with the scratch memory of
 * its kernels; on other backends the data of all tensors that exist at a time.
 */
export async function measurePeak<T>(f: () => T | Promise<T>): Promise<PeakMemory<T>> {
  const backend = tf.backend();
  if (supportsPhysicalTypes(backend)) {
    const before = backend.memoryInfo().bytesInUse;
    backend.resetPeak();
    const value = await f();
    return { value, peakBytes: backend.memoryInfo().peakBytes - before };
  }
  const tracking = trackEngine();
  try {
    return { value: await f(), peakBytes: tracking.peak() };
  } finally {
    tracking.stop();
  }
}

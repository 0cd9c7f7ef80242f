import * as tf from '@tensorflow/tfjs-core';
import { supportsPhysicalTypes } from '../backends/types.js';

/** Bytes; tensors are those of the backend in use. */
export interface MemoryReport {
  /** Weights and whatever else is held between pictures. */
  heldBytes: number;
  /** The most that tensors took at one time, weights included. */
  peakBytes: number;
  /** The most that the whole process has taken from the system. */
  peakProcessBytes: number;
}

function bytesHeld(): number {
  const backend = tf.backend();
  return supportsPhysicalTypes(backend) ? backend.memoryInfo().bytesInUse : tf.memory().numBytes;
}

/** Runs `draw` and says what memory it took. */
export async function withMemoryReport<T>(draw: () => Promise<T>): Promise<{ value: T; memory: MemoryReport }> {
  // a measuring tool, which no other call loads
  const { measurePeak } = await import('../backends/peak_memory.js');
  const heldBytes = bytesHeld();
  const { value, peakBytes } = await measurePeak(draw);
  const peakProcessBytes = process.resourceUsage().maxRSS * 1024;
  return { value, memory: { heldBytes, peakBytes: heldBytes + peakBytes, peakProcessBytes } };
}

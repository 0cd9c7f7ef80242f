import { readFileSync } from 'node:fs';
import { freemem } from 'node:os';
import * as tf from '@tensorflow/tfjs-core';
import { supportsPhysicalTypes } from '../../backends/types.js';

/** Bytes that could still be allocated. */
export type FreeMemory = () => number;

/** The address space of a 32-bit WebAssembly memory. */
const WASM_HEAP_BYTES = 4294901760;

/** What the system could give to new allocations; /proc/meminfo counts caches that it would drop for them, os.freemem() does not. */
function systemFreeMemory(): number {
  try {
    const available = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'));
    if (available) {
      const constrained = process.constrainedMemory();
      const bytes = Number(available[1]) * 1024;
      // without a limit the number is 0 or larger than any machine's memory
      return constrained > 0 ? Math.min(bytes, Math.max(0, constrained - process.memoryUsage.rss())) : bytes;
    }
  } catch {
    // no /proc: not Linux
  }
  return freemem();
}

/** Free memory as the active backend sees it (its pool and limit), of the system where it cannot tell. */
export function freeMemory(): number {
  const backend = tf.backend();
  if (supportsPhysicalTypes(backend)) {
    const { freeBytes, poolBytes, limitBytes, bytesInUse } = backend.memoryInfo();
    const free = freeBytes + poolBytes;
    return limitBytes > 0 ? Math.min(free, Math.max(0, limitBytes - bytesInUse)) : free;
  }
  const free = systemFreeMemory();
  return tf.getBackend() === 'wasm' ? Math.min(free, Math.max(0, WASM_HEAP_BYTES - tf.memory().numBytes)) : free;
}

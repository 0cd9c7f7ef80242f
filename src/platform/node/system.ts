import { AsyncLocalStorage } from 'node:async_hooks';
import { readFileSync } from 'node:fs';
import { freemem } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { CallScope, Platform } from '../types.js';

export const env: Platform['env'] = (name) => process.env[name];

/** /proc/meminfo counts caches that the system would drop for an allocation, os.freemem() does not. */
export const freeMemory: Platform['freeMemory'] = () => {
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
};

export const yieldToEventLoop: Platform['yieldToEventLoop'] = () => new Promise((resolve) => setImmediate(resolve));

export function callScope<T>(): CallScope<T> {
  const storage = new AsyncLocalStorage<T>();
  return { get: () => storage.getStore(), run: (value, f) => storage.run(value, f) };
}

export const asBuffer: Platform['asBuffer'] = (bytes) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

export const pathOf: Platform['pathOf'] = (address) => fileURLToPath(address);

export const hasNodePackages: boolean = true;

export const importNodePackage: Platform['importNodePackage'] = (name) => import(name);

import type { Buffer } from 'node:buffer';
import { BackendError } from '../../errors.js';
import type { CallScope, Platform } from '../types.js';

const GIB = 2 ** 30;

export const env: Platform['env'] = () => undefined;

/** Half of what the browser says the device has (it says 8 GiB at most), 2 GiB where it says nothing. */
export const freeMemory: Platform['freeMemory'] = () =>
  (((navigator as { deviceMemory?: number }).deviceMemory ?? 4) / 2) * GIB;

export const yieldToEventLoop: Platform['yieldToEventLoop'] = () =>
  new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });

export function callScope<T>(): CallScope<T> {
  let current: T | undefined;
  return {
    get: () => current,
    run: (value, f) => {
      const outer = current;
      current = value;
      try {
        return f();
      } finally {
        current = outer;
      }
    },
  };
}

export const asBuffer: Platform['asBuffer'] = (bytes) => bytes as Buffer;

export const pathOf: Platform['pathOf'] = (address) => address.href;

export const hasNodePackages: boolean = false;

export const importNodePackage: Platform['importNodePackage'] = async (name) => {
  throw new BackendError(`[platform] ${name} runs in Node only`);
};

export const hubCacheDir: Platform['hubCacheDir'] = () => '';

export const storedHubToken: Platform['storedHubToken'] = async () => undefined;

export const missingGpuDriver: Platform['missingGpuDriver'] = () => undefined;

export const loadedLibrary: Platform['loadedLibrary'] = () => undefined;

export const restoreIsNullOrUndefined: Platform['restoreIsNullOrUndefined'] = () => {};

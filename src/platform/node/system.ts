import { AsyncLocalStorage } from 'node:async_hooks';
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { freemem, homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
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

/** Packages that the user names lie beside this one, or in the project in which a program runs that was installed elsewhere. */
export const importNodePackage: Platform['importNodePackage'] = async (name) => {
  try {
    return await import(name);
  } catch (error) {
    const path = resolveFromProject(name);
    if (!(error as NodeJS.ErrnoException).code?.endsWith('MODULE_NOT_FOUND') || !path) {
      throw error;
    }
    return import(pathToFileURL(path).href);
  }
};

function resolveFromProject(name: string): string | undefined {
  try {
    return createRequire(join(process.cwd(), 'package.json')).resolve(name);
  } catch {
    return undefined;
  }
}

/** Linux lists what is mapped. */
export const loadedLibrary: Platform['loadedLibrary'] = (path) => {
  try {
    const maps = readFileSync('/proc/self/maps', 'utf8');
    return maps
      .split('\n')
      .map((line) => line.slice(line.indexOf('/')))
      .find((file) => path.test(file));
  } catch {
    return undefined;
  }
};

/** Node 23 took it out of `util`; tfjs-node 4.22 calls it. */
export const restoreIsNullOrUndefined: Platform['restoreIsNullOrUndefined'] = () => {
  const util = createRequire(import.meta.url)('node:util');
  util.isNullOrUndefined ??= (value: unknown) => value === null || value === undefined;
};

/** Where Linux keeps the list of its Vulkan drivers. */
const VULKAN_FOLDERS = ['/usr/share', '/usr/local/share', '/etc', join(homedir(), '.local/share')];

/** Dawn prints warnings of its own when there is no driver, so it is not asked then. */
export const missingGpuDriver: Platform['missingGpuDriver'] = () => {
  const named = process.env.VK_DRIVER_FILES || process.env.VK_ADD_DRIVER_FILES || process.env.VK_ICD_FILENAMES;
  if (process.platform !== 'linux' || named || VULKAN_FOLDERS.some(hasVulkanDriver)) {
    return undefined;
  }
  return "no Vulkan driver is installed; it comes with the GPU's driver (Mesa's: apt-get install mesa-vulkan-drivers)";
};

function hasVulkanDriver(folder: string): boolean {
  try {
    return readdirSync(join(folder, 'vulkan', 'icd.d')).some((name) => name.endsWith('.json'));
  } catch {
    return false;
  }
}

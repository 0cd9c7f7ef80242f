export type {
  ByteSink,
  ByteSource,
  Files,
  HubCache,
  HubContent,
  ImageFormat,
  IncompleteContent,
  Pixels,
} from '../types.js';

import type { Files } from '../types.js';
import { fileSystem } from './files.js';
import { finishSaves, save } from './save_directory.js';

/** The file system. */
export const files: Files = { ...fileSystem, save, finishSaves };
export { openHubCache } from './hub_cache.js';
export { hubCacheDir, storedHubToken } from './hub_environment.js';
export { listHubFiles } from './hub_listing.js';
export { images } from './images.js';
export {
  asBuffer,
  callScope,
  env,
  freeMemory,
  hasNodePackages,
  importNodePackage,
  loadedLibrary,
  missingGpuDriver,
  pathOf,
  restoreIsNullOrUndefined,
  yieldToEventLoop,
} from './system.js';

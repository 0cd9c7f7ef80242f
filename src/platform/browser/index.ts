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
export { files, mountFiles } from './files.js';
export { openHubCache } from './hub_cache.js';
export { listHubFiles } from './hub_listing.js';
export { images } from './images.js';
export {
  asBuffer,
  callScope,
  env,
  freeMemory,
  hasNodePackages,
  hubCacheDir,
  importNodePackage,
  loadedLibrary,
  missingGpuDriver,
  pathOf,
  restoreIsNullOrUndefined,
  storedHubToken,
  yieldToEventLoop,
} from './system.js';

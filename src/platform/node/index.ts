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
export { files } from './files.js';
export { openHubCache } from './hub_cache.js';
export { hubCacheDir, storedHubToken } from './hub_environment.js';
export { images } from './images.js';
export { asBuffer, callScope, env, freeMemory, importNodePackage, yieldToEventLoop } from './system.js';

export type { ByteSink, ByteSource, Files, ImageFormat, Pixels } from '../types.js';
export { files } from './files.js';
export { images } from './images.js';
export { asBuffer, callScope, env, freeMemory, importNodePackage, yieldToEventLoop } from './system.js';

/** The library for browsers: all of it, on the browser's side of #platform, and a way to give it files. */
export * from './index.js';
export { mountFiles } from './platform/browser/files.js';

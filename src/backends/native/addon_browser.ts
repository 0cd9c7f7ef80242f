import type { LoadedAddon } from './addon.js';

/** In browsers there are no native engines; package.json's `imports` puts this in place of addon.ts. */
export function loadAddon(): LoadedAddon {
  return { reason: 'native engines run in Node only' };
}

import type { CrossAttention } from './cross_attention.js';

import type { AttentionName } from './options.js';
import { SdpAttention } from './sdp_attention.js';

/**
 * What the library takes when nobody chooses: memory-efficient attention where the backend has its kernel, which is both
 * the fastest and the smallest there, else what 'sdp' takes. `taken` says which one it was.
 */
export class AutoAttention extends SdpAttention {
  override readonly attentionName: AttentionName = 'auto';
}

/** The classes that computed so far, by the number of attention layers: { 'memory-efficient': 32 }. */
export function attentionStatistics(layers: Iterable<CrossAttention>): Partial<Record<AttentionName, number>> {
  const counts: Partial<Record<AttentionName, number>> = {};
  for (const { taken } of layers) {
    if (taken) {
      counts[taken] = (counts[taken] ?? 0) + 1;
    }
  }
  return counts;
}

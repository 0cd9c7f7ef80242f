import { computesByHead } from '../../ops/attention/by_head.js';
import type { CrossAttention } from '../layers/cross_attention.js';

import { hasFusedAttention } from './memory_efficient_cross_attention.js';
import type { AttentionName } from './options.js';
import { SdpAttention } from './sdp_attention.js';

/**
 * What the library takes when nobody chooses: memory-efficient attention where the backend has its kernel, which is both
 * the fastest and the smallest there, else what 'sdp' takes. `taken` says which one it was.
 */
export class AutoAttention extends SdpAttention {
  override readonly attentionName: AttentionName = 'auto';
}

/** What 'auto' takes on the active backend, in words. */
export function describeAutoAttention(): string {
  if (hasFusedAttention()) {
    return 'memory-efficient, one fused kernel';
  }
  return computesByHead()
    ? 'memory-efficient, in blocks of one head'
    : 'classic while the matrix of scores fits into memory, else memory-efficient in blocks';
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

import { MemoryEfficientCrossAttention } from './memory_efficient_cross_attention.js';
import type { AttentionName } from './options.js';

/**
 * Attention that gives the same bits from run to run and for any number of threads: the fused kernel, whose work per
 * block of queries does not depend on the threads, or blocks whose sizes follow from the shapes alone. Unlike 'sdp' it
 * never looks at how much memory happens to be free.
 */
export class SdpNoMemAttention extends MemoryEfficientCrossAttention {
  override readonly attentionName: AttentionName = 'sdp-no-mem';
}

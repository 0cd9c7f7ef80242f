import type { Tensor, Tensor3D } from '@tensorflow/tfjs-core';
import { type Implementation, memoryEfficientAttentionTokens } from '../ops/index.js';
import type { AttentionProjections } from './attention_projections.js';
import { CrossAttention } from './cross_attention.js';

/** CrossAttention by one op that never holds the matrix of scores, as xFormers' memory_efficient_attention does. */
export class MemoryEfficientCrossAttention extends CrossAttention {
  /** @param attentionOp which implementation of the op: 'native', 'composed', or 'auto' for the faster one there is */
  constructor(
    projections: AttentionProjections,
    readonly attentionOp: Implementation = 'auto',
  ) {
    super(projections);
  }

  protected override attend(q: Tensor3D, k: Tensor3D, v: Tensor3D, bias?: Tensor): Tensor3D {
    const { heads, scale } = this.projections;
    return memoryEfficientAttentionTokens(q, k, v, heads, { scale, bias, impl: this.attentionOp });
  }
}

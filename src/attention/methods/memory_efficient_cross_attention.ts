import type { Tensor, Tensor3D } from '@tensorflow/tfjs-core';
import { defaultBlocks } from '../../ops/attention/blocks.js';
import { computesByHead } from '../../ops/attention/by_head.js';
import type { AttentionShape } from '../../ops/attention/score_matrix.js';
import { hasKernel } from '../../ops/fused.js';
import {
  type Implementation,
  memoryEfficientAttentionPacked,
  memoryEfficientAttentionTokens,
} from '../../ops/index.js';
import { type AttentionClassOptions, CrossAttention } from '../layers/cross_attention.js';
import type { AttentionProjections } from '../layers/projections.js';
import type { AttentionName } from './options.js';

/** Whether the active backend computes memory-efficient attention in one kernel. */
export function hasFusedAttention(): boolean {
  return hasKernel('MemoryEfficientAttention');
}

/** CrossAttention by one op that never holds the matrix of scores, as xFormers' memory_efficient_attention does. */
export class MemoryEfficientCrossAttention extends CrossAttention {
  override readonly attentionName: AttentionName = 'memory-efficient';
  /** Which implementation of the op: 'native', 'composed', or 'auto' for the faster one there is. */
  readonly attentionOp: Implementation;

  constructor(projections: AttentionProjections, options: AttentionClassOptions = {}) {
    super(projections, options);
    this.attentionOp = options.attentionOp ?? 'auto';
  }

  /** With the kernel, q, k and v are one product and one tensor, which the kernel reads as it lies. */
  override attendToSelf(x: Tensor3D, bias?: Tensor): Tensor3D {
    if (this.attentionOp === 'composed' || !hasFusedAttention()) {
      return super.attendToSelf(x, bias);
    }
    const { projections } = this;
    const { heads, scale } = projections;
    this.taken = this.attentionName;
    return memoryEfficientAttentionPacked(projections.queriesKeysAndValues(x), heads, { scale, bias });
  }

  override attend(q: Tensor3D, k: Tensor3D, v: Tensor3D, bias?: Tensor): Tensor3D {
    const { heads, scale } = this.projections;
    this.taken = this.attentionName;
    return memoryEfficientAttentionTokens(q, k, v, heads, { scale, bias, impl: this.attentionOp });
  }

  /** The kernel holds no scores in tensors; the composition holds two blocks of them, whatever the number of tokens. */
  override requiredBytes(shape: AttentionShape): number {
    if (this.attentionOp !== 'composed' && hasFusedAttention()) {
      return 0;
    }
    const atATime = computesByHead() ? { ...shape, batch: 1, heads: 1 } : shape;
    const block = defaultBlocks(atATime);
    return super.requiredBytes({ ...atATime, queries: block.query, keys: block.key });
  }
}

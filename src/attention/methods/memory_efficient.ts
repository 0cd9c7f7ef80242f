import type { Tensor3D } from '@tensorflow/tfjs-core';
import { defaultBlocks } from '../../ops/attention/blocks.js';
import { computesByHead } from '../../ops/attention/by_head.js';
import type { AttentionShape } from '../../ops/attention/score_matrix.js';
import type { AttentionOperands } from '../../ops/attention/slices.js';
import { hasKernel } from '../../ops/fused.js';
import {
  type Implementation,
  memoryEfficientAttentionPacked,
  memoryEfficientAttentionTokens,
} from '../../ops/index.js';
import {
  AttentionMethod,
  type AttentionMethodOptions,
  bytesOfTwoMatrices,
  type PackedAttention,
} from './attention_method.js';
import type { AttentionName } from './options.js';

/** Whether the active backend computes memory-efficient attention in one kernel. */
export function hasFusedAttention(): boolean {
  return hasKernel('MemoryEfficientAttention');
}

/** One op that never holds the matrix of scores, as xFormers' memory_efficient_attention does. */
export class MemoryEfficientAttention extends AttentionMethod implements PackedAttention {
  readonly attentionName: AttentionName = 'memory-efficient';
  /** Which implementation of the op: 'native', 'composed', or 'auto' for the faster one there is. */
  readonly attentionOp: Implementation;

  constructor(options: AttentionMethodOptions = {}) {
    super(options);
    this.attentionOp = options.attentionOp ?? 'auto';
  }

  private get isFused(): boolean {
    return this.attentionOp !== 'composed' && hasFusedAttention();
  }

  /** With the kernel, q, k and v are one product and one tensor, which the kernel reads as it lies. */
  override get packed(): PackedAttention | null {
    return this.isFused ? this : null;
  }

  /** The kernel sums and normalises in float32. */
  override get scoresInFloat32(): boolean {
    return this.isFused;
  }

  /** Blocks have a bounded size, so that there is nothing to check. */
  attend({ q, k, v, bias, heads, scale }: AttentionOperands): Tensor3D {
    return memoryEfficientAttentionTokens(q, k, v, heads, { scale, bias, impl: this.attentionOp });
  }

  attendPacked(qkv: Tensor3D, { heads, scale, bias }: Omit<AttentionOperands, 'q' | 'k' | 'v'>): Tensor3D {
    return memoryEfficientAttentionPacked(qkv, heads, { scale, bias });
  }

  /** The kernel holds no scores in tensors; the composition holds two blocks of them, whatever the number of tokens. */
  requiredBytes(shape: AttentionShape): number {
    if (this.isFused) {
      return 0;
    }
    const atATime = computesByHead() ? { ...shape, batch: 1, heads: 1 } : shape;
    const block = defaultBlocks(atATime);
    return bytesOfTwoMatrices({ ...atATime, queries: block.query, keys: block.key });
  }
}

/**
 * Attention that gives the same bits from run to run and for any number of threads: the fused kernel, whose work per
 * block of queries does not depend on the threads, or blocks whose sizes follow from the shapes alone. Unlike 'sdp' it
 * never looks at how much memory happens to be free.
 */
export class SdpNoMemAttention extends MemoryEfficientAttention {
  override readonly attentionName: AttentionName = 'sdp-no-mem';
}

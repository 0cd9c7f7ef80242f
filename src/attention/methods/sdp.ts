import type { Tensor3D } from '@tensorflow/tfjs-core';
import { computesByHead } from '../../ops/attention/by_head.js';
import { type AttentionShape, attentionShape } from '../../ops/attention/score_matrix.js';
import type { AttentionOperands } from '../../ops/attention/slices.js';
import { AttentionMethod, type AttentionMethodOptions, type PackedAttention } from './attention_method.js';
import { ClassicAttention } from './classic.js';
import { hasFusedAttention, MemoryEfficientAttention } from './memory_efficient.js';
import type { AttentionName } from './options.js';

/** What must stay free beside the scores for the layer's other tensors. */
const USABLE = 0.7;

/**
 * The fastest attention that fits, chosen at each call as torch's scaled_dot_product_attention chooses among its
 * implementations: the backend's fused kernel; without one the whole matrix of scores while it fits into 70% of the free
 * memory, else blocks of it. On wasm the blocks, which are computed head by head, are always the faster ones.
 */
export class SdpAttention extends AttentionMethod {
  readonly attentionName: AttentionName = 'sdp';
  private readonly whole: ClassicAttention;
  private readonly blocks: MemoryEfficientAttention;

  constructor(options: AttentionMethodOptions = {}) {
    super(options);
    this.whole = new ClassicAttention(options);
    this.blocks = new MemoryEfficientAttention(options);
  }

  override choose(shape: AttentionShape): AttentionMethod {
    const blocksAreFaster = hasFusedAttention() || computesByHead();
    const fits = () => this.whole.requiredBytes(shape) <= this.freeMemory() * USABLE;
    return !blocksAreFaster && fits() ? this.whole : this.blocks;
  }

  override get packed(): PackedAttention | null {
    return this.blocks.packed;
  }

  requiredBytes(shape: AttentionShape): number {
    return this.choose(shape).requiredBytes(shape);
  }

  attend(operands: AttentionOperands): Tensor3D {
    return this.choose(attentionShape(operands.q, operands.k, operands.heads)).attend(operands);
  }
}

/**
 * What the library takes when nobody chooses: memory-efficient attention where the backend has its kernel, which is both
 * the fastest and the smallest there, else what 'sdp' takes.
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

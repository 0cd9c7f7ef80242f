import type { Tensor, Tensor3D } from '@tensorflow/tfjs-core';
import { computesByHead } from '../../ops/attention/by_head.js';
import { type AttentionShape, attentionShape } from '../../ops/attention/score_matrix.js';
import { type AttentionClassOptions, CrossAttention } from '../layers/cross_attention.js';
import type { AttentionProjections } from '../layers/projections.js';
import { hasFusedAttention, MemoryEfficientCrossAttention } from './memory_efficient_cross_attention.js';
import type { AttentionName } from './options.js';

/** What must stay free beside the scores for the layer's other tensors. */
const USABLE = 0.7;

/**
 * The fastest attention that fits, chosen at each call as torch's scaled_dot_product_attention chooses among its
 * implementations: the backend's fused kernel; without one the whole matrix of scores while it fits into 70% of the free
 * memory, else blocks of it. On wasm the blocks, which are computed head by head, are always the faster ones.
 */
export class SdpAttention extends CrossAttention {
  override readonly attentionName: AttentionName = 'sdp';
  private readonly whole: CrossAttention;
  private readonly blocks: MemoryEfficientCrossAttention;

  constructor(projections: AttentionProjections, options: AttentionClassOptions = {}) {
    super(projections, options);
    this.whole = new CrossAttention(projections, options);
    this.blocks = new MemoryEfficientCrossAttention(projections, options);
  }

  override attend(q: Tensor3D, k: Tensor3D, v: Tensor3D, bias?: Tensor): Tensor3D {
    const chosen = this.choose(attentionShape(q, k, this.projections.heads));
    const out = chosen.attend(q, k, v, bias);
    this.taken = chosen.taken;
    return out;
  }

  override attendToSelf(x: Tensor3D, bias?: Tensor): Tensor3D {
    if (!hasFusedAttention()) {
      return super.attendToSelf(x, bias);
    }
    const out = this.blocks.attendToSelf(x, bias);
    this.taken = this.blocks.taken;
    return out;
  }

  override requiredBytes(shape: AttentionShape): number {
    return this.choose(shape).requiredBytes(shape);
  }

  protected choose(shape: AttentionShape): CrossAttention {
    const blocksAreFaster = hasFusedAttention() || computesByHead();
    const fits = () => this.whole.requiredBytes(shape) <= this.freeMemory() * USABLE;
    return !blocksAreFaster && fits() ? this.whole : this.blocks;
  }
}

import type { Tensor, Tensor3D } from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../errors.js';
import { type AttentionShape, attentionShape } from '../../ops/attention/score_matrix.js';
import { attentionByRows } from '../../ops/attention/slices.js';
import { type AttentionClassOptions, CrossAttention } from '../layers/cross_attention.js';
import type { AttentionProjections } from '../layers/projections.js';
import type { AttentionName, SliceSize } from './options.js';

/** Rows of batch x heads per slice for a layer of that many heads. */
function rowsPerSlice(sliceSize: SliceSize, heads: number): number {
  if (sliceSize === 'max') {
    return 1;
  }
  if (sliceSize === 'auto') {
    return Math.max(1, Math.floor(heads / 2));
  }
  if (sliceSize > heads) {
    throw new InvalidArgumentError(`[sliced] sliceSize must be at most the layer's ${heads} heads, got ${sliceSize}`);
  }
  return sliceSize;
}

/**
 * Attention slicing: `sliceSize` rows of batch x heads at a time.
 * Source: diffusers/models/attention_processor.py (SlicedAttnProcessor).
 */
export class SlicedAttention extends CrossAttention {
  override readonly attentionName: AttentionName = 'sliced';
  readonly rows: number;

  /** @throws InvalidArgumentError when the slice is larger than the number of heads */
  constructor(projections: AttentionProjections, options: AttentionClassOptions = {}) {
    super(projections, options);
    this.rows = rowsPerSlice(options.sliceSize ?? 'auto', projections.heads);
  }

  override attend(q: Tensor3D, k: Tensor3D, v: Tensor3D, bias?: Tensor): Tensor3D {
    const { heads, scale } = this.projections;
    this.checkMemory(attentionShape(q, k, heads));
    return attentionByRows({ q, k, v, bias, heads, scale }, this.rows);
  }

  override requiredBytes(shape: AttentionShape): number {
    const { batch, heads } = shape;
    return super.requiredBytes({ ...shape, batch: 1, heads: Math.min(this.rows, batch * heads) });
  }
}

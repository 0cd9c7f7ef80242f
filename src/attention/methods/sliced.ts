import type { Tensor3D } from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../errors.js';
import type { AttentionShape } from '../../ops/attention/score_matrix.js';
import { type AttentionOperands, attentionByRows } from '../../ops/attention/slices.js';
import { AttentionMethod, type AttentionMethodOptions, bytesOfTwoMatrices } from './attention_method.js';
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
    throw new InvalidArgumentError(
      `[attention] sliceSize expects at most the layer's ${heads} heads, got ${sliceSize}`,
    );
  }
  return sliceSize;
}

/** Attention for a fixed number of rows of batch x heads at a time. */
export abstract class RowsAttention extends AttentionMethod {
  abstract readonly rows: number;

  attend(operands: AttentionOperands): Tensor3D {
    this.checkedShape(operands);
    return attentionByRows(operands, this.rows);
  }

  requiredBytes(shape: AttentionShape): number {
    const { batch, heads } = shape;
    return bytesOfTwoMatrices({ ...shape, batch: 1, heads: Math.min(this.rows, batch * heads) });
  }
}

/**
 * Attention slicing: `sliceSize` rows of batch x heads at a time.
 * Source: diffusers/models/attention_processor.py (SlicedAttnProcessor).
 */
export class SlicedAttention extends RowsAttention {
  readonly attentionName: AttentionName = 'sliced';
  readonly rows: number;

  /**
   * @param heads those of the layer
   * @throws InvalidArgumentError when the slice is larger than the number of heads
   */
  constructor(heads: number, options: AttentionMethodOptions = {}) {
    super(options);
    this.rows = rowsPerSlice(options.sliceSize ?? 'auto', heads);
  }
}

/**
 * Two rows of batch x heads at a time, whatever memory there is.
 * Source: AUTOMATIC1111's "V1 - original v1" (basujindal/stable-diffusion).
 */
export class SplitV1Attention extends RowsAttention {
  readonly attentionName: AttentionName = 'split-v1';
  readonly rows = 2;
}

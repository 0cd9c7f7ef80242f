import type { Tensor3D } from '@tensorflow/tfjs-core';
import type { AttentionShape } from '../../ops/attention/score_matrix.js';
import { type AttentionOperands, wholeAttention } from '../../ops/attention/slices.js';
import { AttentionMethod, bytesOfTwoMatrices } from './attention_method.js';
import type { AttentionName } from './options.js';

/**
 * The whole matrix of scores, [B, heads, N, Nk], at once.
 * Source: diffusers/models/attention_processor.py (AttnProcessor).
 */
export class ClassicAttention extends AttentionMethod {
  readonly attentionName: AttentionName = 'classic';

  attend(operands: AttentionOperands): Tensor3D {
    this.checkedShape(operands);
    return wholeAttention(operands);
  }

  requiredBytes(shape: AttentionShape): number {
    return bytesOfTwoMatrices(shape);
  }
}

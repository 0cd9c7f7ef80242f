import type { Tensor, Tensor3D } from '@tensorflow/tfjs-core';
import { type AttentionShape, attentionShape } from '../../ops/attention/score_matrix.js';
import { attentionByRows } from '../../ops/attention/slices.js';
import { CrossAttention } from '../layers/cross_attention.js';
import type { AttentionName } from './options.js';

const ROWS = 2;

/**
 * Two rows of batch x heads at a time, whatever memory there is. UNet only, as in the original: the VAE stays classic.
 * Source: AUTOMATIC1111's "V1 - original v1" (basujindal/stable-diffusion).
 */
export class SplitV1Attention extends CrossAttention {
  override readonly attentionName: AttentionName = 'split-v1';

  override attend(q: Tensor3D, k: Tensor3D, v: Tensor3D, bias?: Tensor): Tensor3D {
    const { heads, scale } = this.projections;
    this.checkMemory(attentionShape(q, k, heads));
    return attentionByRows({ q, k, v, bias, heads, scale }, ROWS);
  }

  override requiredBytes(shape: AttentionShape): number {
    const { batch, heads } = shape;
    return super.requiredBytes({ ...shape, batch: 1, heads: Math.min(ROWS, batch * heads) });
  }
}

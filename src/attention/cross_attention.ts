import type { Tensor, Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { mergeHeads, splitHeads } from '../ops/index.js';
import type { AttentionProjections } from './attention_projections.js';
import type { KeyValueCache } from './key_value_cache.js';

export interface AttentionInputs {
  /** [B, Nk, crossAttentionDim]; the hidden states themselves when left out (self-attention). */
  encoderHiddenStates?: Tensor3D;
  /** Added to the scores, broadcastable to [B, heads, N, Nk]. */
  bias?: Tensor;
  /** Added to the output, [B, N, C]. */
  residual?: Tensor3D;
  /** Keys and values of `encoderHiddenStates`, computed once. */
  cache?: KeyValueCache;
}

/**
 * Multi-head attention with the whole matrix of scores, [B, heads, N, Nk]; works for self- and cross-attention. The other
 * attention classes compute the same with less memory and override `attend`.
 * Source: diffusers/models/attention_processor.py (Attention, AttnProcessor).
 */
export class CrossAttention {
  constructor(readonly projections: AttentionProjections) {}

  /** hiddenStates [B, N, C] -> [B, N, C]. */
  forward(hiddenStates: Tensor3D, inputs: AttentionInputs = {}): Tensor3D {
    const { encoderHiddenStates, bias, residual, cache } = inputs;
    const { projections } = this;
    return tf.tidy(() => {
      const q = projections.toQ.forward(hiddenStates);
      const { k, v } =
        cache && encoderHiddenStates
          ? cache.get(projections, encoderHiddenStates)
          : projections.keysAndValues(encoderHiddenStates ?? hiddenStates);
      return projections.toOut.forward(this.attend(q, k, v, bias), { residual });
    });
  }

  /**
   * softmax(scale q k^T + bias) v for every head.
   *
   * @param q [B, N, heads * d]
   * @param k [B, Nk, heads * d]
   * @param v [B, Nk, heads * d]
   * @returns [B, N, heads * d]
   */
  protected attend(q: Tensor3D, k: Tensor3D, v: Tensor3D, bias?: Tensor): Tensor3D {
    const { heads, scale } = this.projections;
    const scores = tf.mul(tf.matMul(splitHeads(q, heads), keysTransposed(k, heads)), scale);
    const weights = tf.softmax(bias ? tf.add(scores, bias) : scores);
    return mergeHeads(tf.matMul(weights, splitHeads(v, heads)) as tf.Tensor4D);
  }
}

/** [B, Nk, heads * d] -> [B, heads, d, Nk], which backends multiply faster than a transposed operand. */
function keysTransposed(k: Tensor3D, heads: number): Tensor {
  const [b, n, c] = k.shape;
  return tf.transpose(tf.reshape(k, [b, n, heads, c / heads]), [0, 2, 3, 1]);
}

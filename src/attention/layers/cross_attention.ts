import type { Tensor, Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { physicalTypeOf, toPhysicalType } from '../../backends/precision.js';
import { type AttentionShape, attentionShape } from '../../ops/attention/score_matrix.js';
import type { AttentionMethod } from '../methods/attention_method.js';
import { ClassicAttention } from '../methods/classic.js';
import type { AttentionName } from '../methods/options.js';
import type { AttentionLayer } from './attention_layer.js';
import type { KeyValueCache } from './key_value_cache.js';
import type { AttentionProjections } from './projections.js';

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
 * Multi-head attention, self- and cross-: the learned projections and the method that attends.
 * Source: diffusers/models/attention_processor.py (Attention).
 */
export class CrossAttention implements AttentionLayer {
  taken: AttentionName | null = null;

  constructor(
    readonly projections: AttentionProjections,
    readonly method: AttentionMethod = new ClassicAttention(),
  ) {}

  /**
   * hiddenStates [B, N, C] -> [B, N, C].
   *
   * @throws AttentionMemoryError when the scores need more memory than is free
   */
  forward(hiddenStates: Tensor3D, inputs: AttentionInputs = {}): Tensor3D {
    const { encoderHiddenStates, bias, residual, cache } = inputs;
    return tf.tidy(() => {
      const attended = encoderHiddenStates
        ? this.attendToContext(hiddenStates, encoderHiddenStates, bias, cache)
        : this.attendToSelf(hiddenStates, bias);
      return this.projections.toOut.forward(attended, { residual });
    });
  }

  private attendToContext(x: Tensor3D, context: Tensor3D, bias?: Tensor, cache?: KeyValueCache): Tensor3D {
    const { projections } = this;
    const q = projections.toQ.forward(x);
    const { k, v } = cache ? cache.get(projections, context) : projections.keysAndValues(context);
    return this.attend(q, k, v, bias);
  }

  /** Self-attention before the output projection: [B, N, C] -> [B, N, heads * d]. */
  private attendToSelf(x: Tensor3D, bias?: Tensor): Tensor3D {
    const { packed } = this.method;
    if (!packed) {
      return this.attendToContext(x, x, bias);
    }
    const { heads, scale } = this.projections;
    this.taken = packed.attentionName;
    return packed.attendPacked(this.projections.queriesKeysAndValues(x), { heads, scale, bias });
  }

  /**
   * softmax(scale q k^T + bias) v for every head.
   *
   * @param q [B, N, heads * d]
   * @param k [B, Nk, heads * d]
   * @param v [B, Nk, heads * d]
   * @returns [B, N, heads * d]
   */
  attend(q: Tensor3D, k: Tensor3D, v: Tensor3D, bias?: Tensor): Tensor3D {
    const { heads, scale, upcast } = this.projections;
    const method = this.method.choose(attentionShape(q, k, heads));
    this.taken = method.attentionName;
    if (!upcast || method.scoresInFloat32) {
      return method.attend({ q, k, v, bias, heads, scale });
    }
    return tf.tidy(() => {
      const [q32, k32, v32] = [q, k, v].map((x) => toPhysicalType(x, 'float32')) as [Tensor3D, Tensor3D, Tensor3D];
      const out = method.attend({ q: q32, k: k32, v: v32, bias, heads, scale });
      return toPhysicalType(out, physicalTypeOf(q));
    });
  }

  /** Bytes of all matrices of scores that the method holds at the same time. */
  requiredBytes(shape: AttentionShape): number {
    return this.method.requiredBytes(shape);
  }
}

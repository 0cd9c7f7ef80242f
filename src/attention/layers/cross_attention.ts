import type { Tensor, Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { OutOfMemoryError } from '../../errors.js';
import { type AttentionShape, attentionShape, scoreBytes } from '../../ops/attention/score_matrix.js';
import { wholeAttention } from '../../ops/attention/slices.js';
import { type FreeMemory, freeMemory } from '../methods/free_memory.js';
import { describeShortage } from '../methods/memory_shortage.js';
import type { AttentionName, AttentionOptions } from '../methods/options.js';
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

/** What a class is told about its options and about where it works. */
export type AttentionClassOptions = Partial<AttentionOptions> & {
  /** The VAE's attention has one head of all channels. Default 'unet'. */
  place?: 'unet' | 'vae';
};

/** Below this, asking how much memory is free costs more than it can tell. */
const ALWAYS_THERE = 16 * 2 ** 20;

/**
 * Multi-head attention with the whole matrix of scores, [B, heads, N, Nk]; works for self- and cross-attention. The other
 * attention classes compute the same with less memory and override `attend` and `requiredBytes`.
 * Source: diffusers/models/attention_processor.py (Attention, AttnProcessor).
 */
export class CrossAttention {
  readonly attentionName: AttentionName = 'classic';
  /** The class that the last call computed with: this one, or the one that 'auto' or 'sdp' took. */
  taken: AttentionName | null = null;
  private readonly askFreeMemory: FreeMemory | undefined;

  constructor(
    readonly projections: AttentionProjections,
    options: AttentionClassOptions = {},
  ) {
    this.askFreeMemory = options.freeMemory;
  }

  /**
   * hiddenStates [B, N, C] -> [B, N, C].
   *
   * @throws OutOfMemoryError when the scores need more memory than is free
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
  attendToSelf(x: Tensor3D, bias?: Tensor): Tensor3D {
    return this.attendToContext(x, x, bias);
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
    const { heads, scale } = this.projections;
    this.checkMemory(attentionShape(q, k, heads));
    return wholeAttention({ q, k, v, bias, heads, scale });
  }

  /**
   * The formula of this class: bytes of all matrices of scores that it holds at the same time. What grows with the
   * number of tokens and not with its square (queries, keys, values and the output by head) comes on top.
   */
  requiredBytes(shape: AttentionShape): number {
    return scoreBytes(shape) * 2;
  }

  /** Bytes that are free now. */
  protected freeMemory(): number {
    return (this.askFreeMemory ?? freeMemory)();
  }

  /** Throws before an allocation that cannot succeed, and notes that this class computes the call. */
  protected checkMemory(shape: AttentionShape): void {
    this.taken = this.attentionName;
    const required = this.requiredBytes(shape);
    if (required <= ALWAYS_THERE && !this.askFreeMemory) {
      return;
    }
    const free = this.freeMemory();
    if (required > free) {
      const fits = (candidate: AttentionShape) => this.requiredBytes(candidate) <= free;
      throw new OutOfMemoryError(describeShortage(this.attentionName, shape, required, free, fits));
    }
  }
}

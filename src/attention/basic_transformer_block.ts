import type { Tensor, Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { LayerNorm, type Weights } from '../nn/index.js';
import { AttentionProjections } from './attention_projections.js';
import type { CrossAttention } from './cross_attention.js';
import { FeedForward } from './feed_forward.js';
import type { KeyValueCache } from './key_value_cache.js';
import type { AttentionName, AttentionOptions } from './options.js';
import { createAttention } from './registry.js';

export interface TransformerBlockConfig {
  /** Channels of the hidden states. */
  dim: number;
  heads: number;
  dimHead: number;
  crossAttentionDim: number;
  /** The first attention, too, looks at the encoder hidden states (Stable Diffusion x4 upscaler). */
  onlyCrossAttention?: boolean;
  attention: AttentionName | AttentionOptions;
}

export interface TransformerInputs {
  /** The prompt, [B, Nk, crossAttentionDim]. */
  encoderHiddenStates: Tensor3D;
  /** Added to the cross-attention's scores, broadcastable to [B, heads, N, Nk]. */
  encoderAttentionBias?: Tensor;
  cache?: KeyValueCache;
}

/** Self-attention, cross-attention and feed-forward, each behind a LayerNorm (diffusers/models/attention.py). */
export class BasicTransformerBlock {
  private readonly norm1: LayerNorm;
  private readonly norm2: LayerNorm;
  private readonly norm3: LayerNorm;
  private readonly ff: FeedForward;
  private readonly onlyCrossAttention: boolean;
  attn1: CrossAttention;
  attn2: CrossAttention;

  constructor(w: Weights, config: TransformerBlockConfig) {
    const { dim, heads, dimHead, crossAttentionDim, onlyCrossAttention = false, attention } = config;
    const self = { queryDim: dim, heads, dimHead, crossAttentionDim: onlyCrossAttention ? crossAttentionDim : dim };
    this.norm1 = new LayerNorm(w.at('norm1'), dim);
    this.attn1 = createAttention(attention, new AttentionProjections(w.at('attn1'), self));
    this.norm2 = new LayerNorm(w.at('norm2'), dim);
    const cross = { queryDim: dim, heads, dimHead, crossAttentionDim };
    this.attn2 = createAttention(attention, new AttentionProjections(w.at('attn2'), cross));
    this.norm3 = new LayerNorm(w.at('norm3'), dim);
    this.ff = new FeedForward(w.at('ff'), dim);
    this.onlyCrossAttention = onlyCrossAttention;
  }

  /** Computes both attentions in another way from now on; the weights stay. */
  setAttention(setting: AttentionName | AttentionOptions): void {
    this.attn1 = createAttention(setting, this.attn1.projections);
    this.attn2 = createAttention(setting, this.attn2.projections);
  }

  /** hiddenStates [B, N, dim] -> [B, N, dim]. */
  forward(hiddenStates: Tensor3D, inputs: TransformerInputs): Tensor3D {
    const { encoderHiddenStates, encoderAttentionBias: bias, cache } = inputs;
    const cross = { encoderHiddenStates, bias, cache };
    return tf.tidy(() => {
      const first = this.attn1.forward(this.norm1.forward(hiddenStates), {
        ...(this.onlyCrossAttention ? cross : {}),
        residual: hiddenStates,
      });
      const second = this.attn2.forward(this.norm2.forward(first), { ...cross, residual: first });
      return this.ff.forward(this.norm3.forward(second), second);
    });
  }
}

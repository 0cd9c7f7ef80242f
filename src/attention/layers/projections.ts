import type { Tensor3D } from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../errors.js';
import { Linear, type Weights } from '../../nn/index.js';
import { packedQkv } from '../../ops/index.js';

export interface AttentionConfig {
  /** Channels of the hidden states. */
  queryDim: number;
  /** Channels of the encoder hidden states; those of the hidden states when left out (self-attention). */
  crossAttentionDim?: number;
  heads: number;
  /** Channels of one head. */
  dimHead: number;
  /** Whether the query, key and value projections have a bias. */
  bias?: boolean;
  /** Keep the scores in float32 whatever the model's type (upcast_attention). */
  upcast?: boolean;
}

/** The learned part of an attention layer, shared by every way to compute it (diffusers/models/attention_processor.py). */
export class AttentionProjections {
  readonly toQ: Linear;
  readonly toK: Linear;
  readonly toV: Linear;
  readonly toOut: Linear;
  readonly heads: number;
  readonly dimHead: number;
  /** Factor of the scores. */
  readonly scale: number;
  readonly upcast: boolean;

  /** The second names are those of the first diffusers releases, which the VAEs of Stable Diffusion 1.x still have. */
  constructor(w: Weights, config: AttentionConfig) {
    const { queryDim, crossAttentionDim = queryDim, heads, dimHead, bias = false } = config;
    if (heads < 1 || dimHead < 1) {
      throw new InvalidArgumentError(
        `[${w.path}] attention needs at least one head of one channel, got ${heads} heads of ${dimHead} channels`,
      );
    }
    const inner = heads * dimHead;
    this.toQ = new Linear(w.at('to_q', 'query'), queryDim, inner, { bias });
    this.toK = new Linear(w.at('to_k', 'key'), crossAttentionDim, inner, { bias });
    this.toV = new Linear(w.at('to_v', 'value'), crossAttentionDim, inner, { bias });
    this.toOut = new Linear(w.at('to_out.0', 'proj_attn'), inner, queryDim);
    this.heads = heads;
    this.dimHead = dimHead;
    this.scale = 1 / Math.sqrt(dimHead);
    this.upcast = config.upcast ?? false;
  }

  /** Queries, keys and values of self-attention side by side: [B, N, C] -> [B, N, 3 * heads * dimHead]. */
  queriesKeysAndValues(hiddenStates: Tensor3D): Tensor3D {
    const { toQ, toK, toV } = this;
    const weights = { q: toQ.weight.effective, k: toK.weight.effective, v: toV.weight.effective };
    const bias =
      toQ.bias && toK.bias && toV.bias
        ? { q: toQ.bias.effective, k: toK.bias.effective, v: toV.bias.effective }
        : undefined;
    return packedQkv(hiddenStates, weights, { bias }) as Tensor3D;
  }

  /** Counts the changes of `keysAndValues` by adapters. */
  get version(): number {
    return [this.toK, this.toV].reduce((sum, { weight, bias }) => sum + weight.version + (bias?.version ?? 0), 0);
  }

  /** Keys and values of a context [B, Nk, C]: each [B, Nk, heads * dimHead]. */
  keysAndValues(context: Tensor3D): { k: Tensor3D; v: Tensor3D } {
    return { k: this.toK.forward(context), v: this.toV.forward(context) };
  }
}

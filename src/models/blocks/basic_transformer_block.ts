import type { Tensor, Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import {
  type AttentionMethod,
  type AttentionOptions,
  type AttentionPlace,
  AttentionProjections,
  type AttentionSetting,
  attentionLayer,
  type CrossAttention,
  createAttentionMethod,
  type KeyValueCache,
  type MapSize,
  resolveAttention,
  setAttentionAt,
  type TokenMerging,
} from '../../attention/index.js';
import type { MergedTokens } from '../../attention/token_merging/merged_tokens.js';
import { InvalidArgumentError } from '../../errors.js';
import { LayerNorm, type Parameter, type Weights } from '../../nn/index.js';
import { checkpoint } from '../../ops/checkpoint.js';
import { FeedForward } from './feed_forward.js';

export interface TransformerBlockConfig {
  /** Channels of the hidden states. */
  dim: number;
  heads: number;
  dimHead: number;
  crossAttentionDim: number;
  /** The first attention, too, looks at the encoder hidden states (Stable Diffusion x4 upscaler). */
  onlyCrossAttention?: boolean;
  attention: AttentionSetting;
  /** Keep the scores in float32 whatever the model's type. */
  upcastAttention?: boolean;
  /** Keep no intermediate tensors for the backward pass, which computes the block once more. Default false. */
  checkpoint?: boolean;
}

export interface TransformerInputs {
  /** The prompt, [B, Nk, crossAttentionDim]. */
  encoderHiddenStates: Tensor3D;
  /** Added to the cross-attention's scores, broadcastable to [B, heads, N, Nk]. */
  encoderAttentionBias?: Tensor;
  /** For inference; not used by a block that is checkpointed. */
  cache?: KeyValueCache;
  /** Size of the feature map whose pixels are the tokens, and that of the UNet's input; token merging needs both. */
  mapSize?: MapSize;
  originalSize?: MapSize;
}

type Layer = (x: Tensor3D, residual?: Tensor3D) => Tensor3D;

/** layer(x) + residual, with the layer working on merged tokens where there are any. */
function applyMerged(merged: MergedTokens | null, layer: Layer, x: Tensor3D, residual: Tensor3D): Tensor3D {
  return merged ? tf.add(merged.unmerge(layer(merged.merge(x))), residual) : layer(x, residual);
}

/** Self-attention, cross-attention and feed-forward, each behind a LayerNorm (diffusers/models/attention.py). */
export class BasicTransformerBlock implements AttentionPlace {
  private readonly norm1: LayerNorm;
  private readonly norm2: LayerNorm;
  private readonly norm3: LayerNorm;
  private readonly ff: FeedForward;
  private readonly onlyCrossAttention: boolean;
  /** The block's own tensors. */
  readonly parameters: readonly Parameter[];
  attn1: CrossAttention;
  attn2: CrossAttention;
  checkpoint: boolean;
  tokenMerging: TokenMerging | null = null;

  constructor(w: Weights, config: TransformerBlockConfig) {
    const { dim, heads, dimHead, crossAttentionDim, onlyCrossAttention = false } = config;
    const before = w.parameters.length;
    const method = createAttentionMethod(config.attention, heads);
    const shape = { queryDim: dim, heads, dimHead, upcast: config.upcastAttention };
    const self = { ...shape, crossAttentionDim: onlyCrossAttention ? crossAttentionDim : dim };
    this.norm1 = new LayerNorm(w.at('norm1'), dim);
    this.attn1 = attentionLayer(new AttentionProjections(w.at('attn1'), self), method);
    this.norm2 = new LayerNorm(w.at('norm2'), dim);
    this.attn2 = attentionLayer(new AttentionProjections(w.at('attn2'), { ...shape, crossAttentionDim }), method);
    this.norm3 = new LayerNorm(w.at('norm3'), dim);
    this.ff = new FeedForward(w.at('ff'), dim);
    this.onlyCrossAttention = onlyCrossAttention;
    this.parameters = w.parameters.slice(before);
    this.checkpoint = config.checkpoint ?? false;
  }

  /** Computes both attentions in another way from now on; the weights stay. */
  setAttention(setting: AttentionSetting): void {
    setAttentionAt([this], resolveAttention(setting));
  }

  methodFor(options: AttentionOptions): AttentionMethod {
    return createAttentionMethod(options, this.attn1.projections.heads);
  }

  setMethod(method: AttentionMethod): void {
    this.attn1 = attentionLayer(this.attn1.projections, method);
    this.attn2 = attentionLayer(this.attn2.projections, method);
  }

  /** hiddenStates [B, N, dim] -> [B, N, dim]. */
  forward(hiddenStates: Tensor3D, inputs: TransformerInputs): Tensor3D {
    const cells = this.chooseCells(hiddenStates, inputs);
    if (!this.checkpoint) {
      return this.compute(hiddenStates, inputs, cells);
    }
    const { encoderHiddenStates, encoderAttentionBias, cache: _, ...rest } = inputs;
    const bias = encoderAttentionBias ? [encoderAttentionBias] : [];
    return checkpoint(
      (x, context, encoderBias) =>
        this.compute(
          x as Tensor3D,
          { ...rest, encoderHiddenStates: context as Tensor3D, encoderAttentionBias: encoderBias },
          cells,
        ),
      [hiddenStates, encoderHiddenStates, ...bias],
      this.parameters.flatMap((parameter) => parameter.sources),
    );
  }

  /** Random choices are made outside of what a checkpoint computes twice. */
  private chooseCells(hiddenStates: Tensor3D, { mapSize, originalSize }: TransformerInputs): Int32Array | null {
    if (!this.tokenMerging) {
      return null;
    }
    if (!mapSize || !originalSize || mapSize.height * mapSize.width !== hiddenStates.shape[1]) {
      throw new InvalidArgumentError(
        `[tokenMerging] a block of ${hiddenStates.shape[1]} tokens needs mapSize and originalSize, got ` +
          `${JSON.stringify({ mapSize, originalSize })}`,
      );
    }
    return this.tokenMerging.chooseCells(hiddenStates.shape[0], mapSize, originalSize);
  }

  private compute(hiddenStates: Tensor3D, inputs: TransformerInputs, cells: Int32Array | null): Tensor3D {
    const { encoderHiddenStates, encoderAttentionBias: bias, cache } = inputs;
    const cross = { encoderHiddenStates, bias, cache };
    const merges = cells && this.tokenMerging ? this.tokenMerging.merges(hiddenStates, inputs.mapSize!, cells) : null;
    // the mask of the prompt is the second attention's alone, as in diffusers
    const self = this.onlyCrossAttention ? { encoderHiddenStates, cache } : {};
    const step = (merged: MergedTokens | null | undefined, norm: LayerNorm, layer: Layer, x: Tensor3D) =>
      tf.tidy(() => applyMerged(merged ?? null, layer, norm.forward(x), x));
    return tf.tidy(() => {
      const attend1: Layer = (x, residual) => this.attn1.forward(x, { ...self, residual });
      const attend2: Layer = (x, residual) => this.attn2.forward(x, { ...cross, residual });
      const first = step(merges?.attention, this.norm1, attend1, hiddenStates);
      const second = step(merges?.crossAttention, this.norm2, attend2, first);
      first.dispose();
      return step(merges?.mlp, this.norm3, (x, residual) => this.ff.forward(x, residual), second);
    });
  }
}

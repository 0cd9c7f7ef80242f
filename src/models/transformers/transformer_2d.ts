import type { Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import type { AttentionOptions } from '../../attention/index.js';
import { GroupNorm, Linear, type Weights } from '../../nn/index.js';
import { BasicTransformerBlock, type TransformerInputs } from '../blocks/basic_transformer_block.js';
import { chain } from '../blocks/chain.js';

export interface Transformer2DConfig {
  channels: number;
  heads: number;
  layers: number;
  crossAttentionDim: number;
  groups: number;
  useLinearProjection: boolean;
  onlyCrossAttention: boolean;
  upcastAttention: boolean;
  attention: AttentionOptions;
}

/** Transformer blocks over the pixels of a feature map (diffusers/models/transformers/transformer_2d.py). */
export class Transformer2DModel {
  private readonly norm: GroupNorm;
  private readonly projIn: Linear;
  private readonly projOut: Linear;
  readonly transformerBlocks: BasicTransformerBlock[];

  constructor(w: Weights, config: Transformer2DConfig) {
    const { channels, heads, layers, crossAttentionDim, groups, onlyCrossAttention, upcastAttention, attention } =
      config;
    const asConvolution = !config.useLinearProjection;
    this.norm = new GroupNorm(w.at('norm'), groups, channels, 1e-6);
    // heads that do not divide the channels leave a few of them out, as in diffusers
    const dimHead = Math.floor(channels / heads);
    const inner = heads * dimHead;
    this.projIn = new Linear(w.at('proj_in'), channels, inner, { asConvolution });
    const block = { dim: inner, heads, dimHead, crossAttentionDim, onlyCrossAttention, upcastAttention, attention };
    this.transformerBlocks = Array.from(
      { length: layers },
      (_, i) => new BasicTransformerBlock(w.at('transformer_blocks').at(i), block),
    );
    this.projOut = new Linear(w.at('proj_out'), inner, channels, { asConvolution });
  }

  /** x [N,H,W,C] -> [N,H,W,C]. */
  forward(x: Tensor4D, inputs: TransformerInputs): Tensor4D {
    const [n, h, w, c] = x.shape;
    const given = { ...inputs, mapSize: { height: h, width: w } };
    const blocks = this.transformerBlocks.map((block) => (tokens: Tensor3D) => block.forward(tokens, given));
    return tf.tidy(() => {
      const residual = tf.reshape(x, [n, h * w, c]) as Tensor3D;
      const tokens = chain<Tensor3D>(
        residual,
        (y) => this.projIn.forward(tf.reshape(this.norm.forward(x), y.shape)),
        ...blocks,
        (y) => this.projOut.forward(y, { residual }),
      );
      return tf.reshape(tokens, [n, h, w, c]);
    });
  }
}

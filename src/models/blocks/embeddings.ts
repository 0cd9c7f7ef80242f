import type { Tensor2D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { Linear, type Weights } from '../../nn/index.js';
import { silu } from '../../ops/index.js';

/** Two linear layers with SiLU between them (diffusers/models/embeddings.py TimestepEmbedding). */
export class TimestepEmbedding {
  private readonly linear1: Linear;
  private readonly linear2: Linear;
  private readonly condProj: Linear | null;
  private readonly postAct: boolean;

  constructor(
    w: Weights,
    inChannels: number,
    timeEmbedDim: number,
    options: { condProjDim?: number | null; postAct?: boolean } = {},
  ) {
    this.linear1 = new Linear(w.at('linear_1'), inChannels, timeEmbedDim);
    this.condProj = options.condProjDim
      ? new Linear(w.at('cond_proj'), options.condProjDim, inChannels, { bias: false })
      : null;
    this.linear2 = new Linear(w.at('linear_2'), timeEmbedDim, timeEmbedDim);
    this.postAct = options.postAct ?? false;
  }

  /** sample [B, in], condition [B, condProjDim] -> [B, timeEmbedDim]. */
  forward(sample: Tensor2D, condition?: Tensor2D): Tensor2D {
    return tf.tidy(() => {
      const input = condition && this.condProj ? this.condProj.forward(condition, { residual: sample }) : sample;
      const embedding = this.linear2.forward(this.linear1.forward(input, { activation: 'silu' }));
      return this.postAct ? silu(embedding) : embedding;
    });
  }
}

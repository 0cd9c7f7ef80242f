import type { Rank, Tensor } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { Layer } from './layer.js';
import type { Parameter } from './parameter.js';
import type { Weights } from './weights.js';

/** torch.nn.Embedding: int32 ids of any shape -> [..., dim]. */
export class Embedding extends Layer<Rank.R2> {
  readonly weight: Parameter<Rank.R2>;
  readonly bias = null;

  constructor(w: Weights, count: number, dim: number) {
    super();
    this.weight = w.parameter('weight', [count, dim], { initializer: 'normal' });
    w.register(this);
  }

  forward(ids: Tensor): Tensor {
    return tf.gather(this.weight.effective, ids);
  }
}

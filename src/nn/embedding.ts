import type { Rank, Tensor } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import type { Parameter } from './parameter.js';
import type { Weights } from './weights.js';

/** torch.nn.Embedding: int32 ids of any shape -> [..., dim]. */
export class Embedding {
  readonly weight: Parameter<Rank.R2>;

  constructor(w: Weights, count: number, dim: number) {
    this.weight = w.parameter('weight', [count, dim], { initializer: 'normal' });
  }

  forward(ids: Tensor): Tensor {
    return tf.gather(this.weight.value, ids);
  }
}

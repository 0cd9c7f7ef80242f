import type { Tensor3D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { Linear, type Weights } from '../../nn/index.js';

/** The transformer's feed-forward: GEGLU to 4 x dim, then back (diffusers/models/attention.py FeedForward). */
export class FeedForward {
  private readonly proj: Linear;
  private readonly out: Linear;

  constructor(w: Weights, dim: number, mult = 4) {
    this.proj = new Linear(w.at('net.0.proj'), dim, 2 * mult * dim);
    this.out = new Linear(w.at('net.2'), mult * dim, dim);
  }

  /** x [B, N, dim] -> [B, N, dim], plus the residual when given. */
  forward(x: Tensor3D, residual?: Tensor3D): Tensor3D {
    return tf.tidy(() => this.out.forward(this.proj.forward(x, { activation: 'geglu' }), { residual }));
  }
}

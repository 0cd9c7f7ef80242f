import type { Rank, Tensor } from '@tensorflow/tfjs-core';
import { groupNorm, layerNorm } from '../ops/index.js';
import type { Parameter } from './parameter.js';
import type { Weights } from './weights.js';

/** Scale and shift of a normalisation over `channels`. */
function affine(w: Weights, channels: number): { weight: Parameter<Rank.R1>; bias: Parameter<Rank.R1> } {
  return {
    weight: w.parameter('weight', [channels], { initializer: 'ones' }),
    bias: w.parameter('bias', [channels], { initializer: 'zeros' }),
  };
}

/** torch.nn.GroupNorm on [N, ..., C], with SiLU in the same pass when asked for. */
export class GroupNorm {
  private readonly affine;

  constructor(
    w: Weights,
    readonly groups: number,
    channels: number,
    readonly epsilon: number,
  ) {
    this.affine = affine(w, channels);
  }

  forward<T extends Tensor>(x: T, activation: 'linear' | 'silu' = 'linear'): T {
    const { groups, epsilon } = this;
    return groupNorm(x, this.affine.weight.value, this.affine.bias.value, { groups, epsilon, activation });
  }
}

/** torch.nn.LayerNorm over the last axis. */
export class LayerNorm {
  private readonly affine;

  constructor(
    w: Weights,
    channels: number,
    readonly epsilon = 1e-5,
  ) {
    this.affine = affine(w, channels);
  }

  forward<T extends Tensor>(x: T): T {
    return layerNorm(x, this.affine.weight.value, this.affine.bias.value, { epsilon: this.epsilon });
  }
}

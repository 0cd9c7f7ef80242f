import type { Rank, Tensor } from '@tensorflow/tfjs-core';
import { groupNorm, layerNorm } from '../ops/index.js';
import { Layer } from './layer.js';
import type { Parameter } from './parameter.js';
import type { Weights } from './weights.js';

/** Scale and shift of a normalisation over `channels`. */
abstract class AffineLayer extends Layer<Rank.R1> {
  readonly weight: Parameter<Rank.R1>;
  readonly bias: Parameter<Rank.R1>;

  constructor(w: Weights, channels: number) {
    super();
    this.weight = w.parameter('weight', [channels], { initializer: 'ones' });
    this.bias = w.parameter('bias', [channels], { initializer: 'zeros' });
    w.register(this);
  }
}

/** torch.nn.GroupNorm on [N, ..., C], with SiLU in the same pass when asked for. */
export class GroupNorm extends AffineLayer {
  constructor(
    w: Weights,
    readonly groups: number,
    channels: number,
    readonly epsilon: number,
  ) {
    super(w, channels);
  }

  forward<T extends Tensor>(x: T, activation: 'linear' | 'silu' = 'linear'): T {
    const { groups, epsilon } = this;
    return groupNorm(x, this.weight.effective, this.bias.effective, { groups, epsilon, activation });
  }
}

/** torch.nn.LayerNorm over the last axis. */
export class LayerNorm extends AffineLayer {
  constructor(
    w: Weights,
    channels: number,
    readonly epsilon = 1e-5,
  ) {
    super(w, channels);
  }

  forward<T extends Tensor>(x: T): T {
    return layerNorm(x, this.weight.effective, this.bias.effective, { epsilon: this.epsilon });
  }
}

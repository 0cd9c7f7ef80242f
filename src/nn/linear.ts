import type { Rank, Tensor } from '@tensorflow/tfjs-core';
import { type LinearOptions, linear } from '../ops/index.js';
import { Layer } from './layer.js';
import type { Parameter } from './parameter.js';
import type { Weights } from './weights.js';

/** torch.nn.Linear: [..., in] -> [..., out]. A checkpoint may hold it as a 1x1 convolution. */
export class Linear extends Layer<Rank.R2> {
  readonly weight: Parameter<Rank.R2>;
  readonly bias: Parameter<Rank.R1> | null;

  constructor(
    w: Weights,
    readonly inFeatures: number,
    readonly outFeatures: number,
    options: { bias?: boolean; asConvolution?: boolean } = {},
  ) {
    super();
    const shape = options.asConvolution ? [outFeatures, inFeatures, 1, 1] : [outFeatures, inFeatures];
    this.weight = w.parameter('weight', shape, { layout: 'linear' });
    this.bias = options.bias === false ? null : w.parameter('bias', [outFeatures], { fanIn: inFeatures });
    w.register(this);
  }

  forward<T extends Tensor>(x: T, options: Omit<LinearOptions, 'bias'> = {}): T {
    return linear(x, this.weight.effective, { ...options, bias: this.bias?.effective }) as T;
  }
}

import type { Rank, Tensor4D } from '@tensorflow/tfjs-core';
import { type Conv2dOptions, conv2d, type Padding2D } from '../ops/index.js';
import { Layer } from './layer.js';
import type { Parameter } from './parameter.js';
import type { Weights } from './weights.js';

/** torch.nn.Conv2d on [N,H,W,C]. */
export class Conv2d extends Layer<Rank.R4> {
  readonly weight: Parameter<Rank.R4>;
  readonly bias: Parameter<Rank.R1> | null;
  private readonly stride: number;
  private readonly padding: number | Padding2D;

  constructor(
    w: Weights,
    readonly inChannels: number,
    readonly outChannels: number,
    kernel: number,
    options: { stride?: number; padding?: number | Padding2D; bias?: boolean } = {},
  ) {
    super();
    this.weight = w.parameter('weight', [outChannels, inChannels, kernel, kernel], { layout: 'conv' });
    this.bias =
      options.bias === false ? null : w.parameter('bias', [outChannels], { fanIn: inChannels * kernel * kernel });
    this.stride = options.stride ?? 1;
    this.padding = options.padding ?? 0;
    w.register(this);
  }

  forward(x: Tensor4D, options: Omit<Conv2dOptions, 'bias' | 'stride' | 'padding'> = {}): Tensor4D {
    const { stride, padding } = this;
    return conv2d(x, this.weight.effective, { ...options, bias: this.bias?.effective, stride, padding });
  }
}

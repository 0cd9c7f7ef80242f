import type { Tensor2D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { Conv2d, GroupNorm, Linear, type Parameter, type Weights } from '../../nn/index.js';
import { checkpoint } from '../../ops/checkpoint.js';
import { resizeNearest, silu } from '../../ops/index.js';

export interface ResnetConfig {
  inChannels: number;
  outChannels: number;
  /** Channels of the time embedding; null for the blocks of a VAE, which have none. */
  tembChannels: number | null;
  groups: number;
  epsilon: number;
  /** 'scale_shift' lets the time embedding scale and shift the second normalisation instead of being added. */
  timeScaleShift?: 'default' | 'scale_shift';
  outputScaleFactor?: number;
}

/** Two normalised 3x3 convolutions around a shortcut (diffusers/models/resnet.py ResnetBlock2D). */
export class ResnetBlock2D {
  private readonly norm1: GroupNorm;
  private readonly conv1: Conv2d;
  private readonly timeEmbProj: Linear | null;
  private readonly norm2: GroupNorm;
  private readonly conv2: Conv2d;
  private readonly convShortcut: Conv2d | null;
  private readonly scaleShift: boolean;
  private readonly outputScaleFactor: number;
  private readonly parameters: readonly Parameter[];
  /** Keep no intermediate tensors for the backward pass, which computes the block once more. */
  checkpoint = false;

  constructor(w: Weights, config: ResnetConfig) {
    const before = w.parameters.length;
    const { inChannels, outChannels, tembChannels, groups, epsilon } = config;
    this.scaleShift = config.timeScaleShift === 'scale_shift';
    this.outputScaleFactor = config.outputScaleFactor ?? 1;
    this.norm1 = new GroupNorm(w.at('norm1'), groups, inChannels, epsilon);
    this.conv1 = new Conv2d(w.at('conv1'), inChannels, outChannels, 3, { padding: 1 });
    this.timeEmbProj = tembChannels
      ? new Linear(w.at('time_emb_proj'), tembChannels, (this.scaleShift ? 2 : 1) * outChannels)
      : null;
    this.norm2 = new GroupNorm(w.at('norm2'), groups, outChannels, epsilon);
    this.conv2 = new Conv2d(w.at('conv2'), outChannels, outChannels, 3, { padding: 1 });
    this.convShortcut =
      inChannels === outChannels ? null : new Conv2d(w.at('conv_shortcut'), inChannels, outChannels, 1);
    this.parameters = w.parameters.slice(before);
  }

  /**
   * @param x [N,H,W,inChannels]
   * @param temb [N, tembChannels], the time embedding after its activation
   * @returns [N,H,W,outChannels]
   */
  forward(x: Tensor4D, temb?: Tensor2D): Tensor4D {
    if (!this.checkpoint) {
      return this.compute(x, temb);
    }
    const weights = this.parameters.flatMap((parameter) => parameter.sources);
    return checkpoint((y, time) => this.compute(y as Tensor4D, time as Tensor2D), temb ? [x, temb] : [x], weights);
  }

  private compute(x: Tensor4D, temb?: Tensor2D): Tensor4D {
    return tf.tidy(() => {
      const time = temb && this.timeEmbProj ? this.timeEmbProj.forward(temb) : undefined;
      const first = tf.tidy(() =>
        this.conv1.forward(this.norm1.forward(x, 'silu'), { timeEmbedding: this.scaleShift ? undefined : time }),
      );
      const second = tf.tidy(() =>
        this.scaleShift ? this.scaleAndShift(first, time!) : this.norm2.forward(first, 'silu'),
      );
      first.dispose();
      const residual = this.convShortcut ? this.convShortcut.forward(x) : x;
      const sum = this.conv2.forward(second, { residual });
      return this.outputScaleFactor === 1 ? sum : tf.div(sum, this.outputScaleFactor);
    });
  }

  private scaleAndShift(x: Tensor4D, time: Tensor2D): Tensor4D {
    const [n, c] = [time.shape[0], time.shape[1] / 2];
    const [scale, shift] = tf.split(tf.reshape(time, [n, 1, 1, 2 * c]), 2, 3);
    return silu(tf.add(tf.mul(this.norm2.forward(x), tf.add(scale!, 1)), shift!) as Tensor4D);
  }
}

/** Halves height and width by a 3x3 convolution of stride 2 (diffusers/models/downsampling.py Downsample2D). */
export class Downsample2D {
  private readonly conv: Conv2d;

  /** @param padding 1 on every side for a UNet; 0 for a VAE, which pads the right and the bottom only */
  constructor(w: Weights, channels: number, padding: number) {
    this.conv = new Conv2d(w.at('conv', 'op'), channels, channels, 3, {
      stride: 2,
      padding:
        padding === 0
          ? [
              [0, 1],
              [0, 1],
            ]
          : padding,
    });
  }

  /** [N,H,W,C] -> [N,H/2,W/2,C], odd sizes rounded up with padding 1. */
  forward(x: Tensor4D): Tensor4D {
    return this.conv.forward(x);
  }
}

/** Doubles height and width by nearest neighbour and a 3x3 convolution (diffusers/models/upsampling.py Upsample2D). */
export class Upsample2D {
  private readonly conv: Conv2d;

  constructor(w: Weights, channels: number) {
    this.conv = new Conv2d(w.at('conv'), channels, channels, 3, { padding: 1 });
  }

  /**
   * @param x [N,H,W,C]
   * @param size height and width of the result where they are not twice those of x
   */
  forward(x: Tensor4D, size?: [number, number]): Tensor4D {
    if (!size || (size[0] === 2 * x.shape[1] && size[1] === 2 * x.shape[2])) {
      return this.conv.forward(x, { upsample: 2 });
    }
    return tf.tidy(() => this.conv.forward(resizeNearest(x, size)));
  }
}

import type { Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import {
  type AttentionMethod,
  type AttentionName,
  type AttentionOptions,
  type AttentionPlace,
  AttentionProjections,
  attentionLayer,
  ClassicAttention,
  type CrossAttention,
  createAttentionMethod,
  DoggettxAttention,
} from '../../attention/index.js';
import { Conv2d, GroupNorm, type Weights } from '../../nn/index.js';
import { chain } from '../blocks/chain.js';
import { Downsample2D, ResnetBlock2D, Upsample2D } from '../blocks/resnet.js';

export interface VaeConfig {
  blockOutChannels: number[];
  layersPerBlock: number;
  normNumGroups: number;
  midBlockAddAttention: boolean;
  attention: AttentionOptions;
}

const EPSILON = 1e-6;

type Layer = (x: Tensor4D) => Tensor4D;

function resnets(w: Weights, count: number, inChannels: number, outChannels: number, groups: number): Layer[] {
  return Array.from({ length: count }, (_, i) => {
    const resnet = new ResnetBlock2D(w.at('resnets').at(i), {
      inChannels: i === 0 ? inChannels : outChannels,
      outChannels,
      tembChannels: null,
      groups,
      epsilon: EPSILON,
    });
    return (x) => resnet.forward(x);
  });
}

/** Methods whose originals replace the UNet's attention only; the VAE then computes as 'classic'. */
const UNET_ONLY: ReadonlySet<AttentionName> = new Set<AttentionName>(['sliced', 'split-v1', 'invokeai']);

function vaeMethod(options: AttentionOptions): AttentionMethod {
  if (UNET_ONLY.has(options.name)) {
    return new ClassicAttention(options);
  }
  // the VAE's version knows only the factor 2.5 and no end of steps
  return options.name === 'doggettx'
    ? new DoggettxAttention({ ...options, halfFactor: 2.5, maxSteps: Number.POSITIVE_INFINITY })
    : createAttentionMethod(options, 1);
}

/** Self-attention over all pixels with one head, behind a GroupNorm and with a residual. */
export class VaeAttention implements AttentionPlace {
  private readonly groupNorm: GroupNorm;
  attention: CrossAttention;

  constructor(w: Weights, channels: number, groups: number, attention: AttentionOptions) {
    this.groupNorm = new GroupNorm(w.at('group_norm'), groups, channels, EPSILON);
    const config = { queryDim: channels, heads: 1, dimHead: channels, bias: true };
    this.attention = attentionLayer(new AttentionProjections(w, config), vaeMethod(attention));
  }

  methodFor(options: AttentionOptions): AttentionMethod {
    return vaeMethod(options);
  }

  setMethod(method: AttentionMethod): void {
    this.attention = attentionLayer(this.attention.projections, method);
  }

  /** x [N,H,W,C] -> [N,H,W,C]. */
  forward(x: Tensor4D): Tensor4D {
    const [n, h, w, c] = x.shape;
    return tf.tidy(() => {
      const residual = tf.reshape(x, [n, h * w, c]) as Tensor3D;
      const normal = tf.reshape(this.groupNorm.forward(x), [n, h * w, c]) as Tensor3D;
      return tf.reshape(this.attention.forward(normal, { residual }), [n, h, w, c]);
    });
  }
}

class MidBlock {
  readonly attention: VaeAttention | null;
  private readonly layers: Layer[];

  constructor(w: Weights, channels: number, config: VaeConfig) {
    const groups = config.normNumGroups;
    const [first, second] = resnets(w, 2, channels, channels, groups);
    this.attention = config.midBlockAddAttention
      ? new VaeAttention(w.at('attentions.0'), channels, groups, config.attention)
      : null;
    const attend: Layer[] = this.attention ? [(x) => this.attention!.forward(x)] : [];
    this.layers = [first!, ...attend, second!];
  }

  forward(x: Tensor4D): Tensor4D {
    return chain(x, ...this.layers);
  }
}

/** Picture to the parameters of the latent distribution (diffusers/models/autoencoders/vae.py Encoder). */
export class Encoder {
  readonly midBlock: MidBlock;
  private readonly layers: Layer[];

  constructor(w: Weights, inChannels: number, outChannels: number, config: VaeConfig) {
    const { blockOutChannels: channels, normNumGroups: groups } = config;
    const [first, last] = [channels[0]!, channels.at(-1)!];
    const convIn = new Conv2d(w.at('conv_in'), inChannels, first, 3, { padding: 1 });
    const down = channels.flatMap((out, i) => {
      const block = w.at('down_blocks').at(i);
      const layers = resnets(block, config.layersPerBlock, channels[Math.max(i - 1, 0)]!, out, groups);
      if (i < channels.length - 1) {
        const downsample = new Downsample2D(block.at('downsamplers.0'), out, 0);
        layers.push((x) => downsample.forward(x));
      }
      return layers;
    });
    this.midBlock = new MidBlock(w.at('mid_block'), last, config);
    const normOut = new GroupNorm(w.at('conv_norm_out'), groups, last, EPSILON);
    const convOut = new Conv2d(w.at('conv_out'), last, outChannels, 3, { padding: 1 });
    this.layers = [
      (x) => convIn.forward(x),
      ...down,
      (x) => this.midBlock.forward(x),
      (x) => normOut.forward(x, 'silu'),
      (x) => convOut.forward(x),
    ];
  }

  /** [N,H,W,3] -> [N,H/8,W/8,outChannels] with four blocks. */
  forward(x: Tensor4D): Tensor4D {
    return chain(x, ...this.layers);
  }
}

/** Latents to a picture (diffusers/models/autoencoders/vae.py Decoder). */
export class Decoder {
  readonly midBlock: MidBlock;
  private readonly layers: Layer[];

  constructor(w: Weights, inChannels: number, outChannels: number, config: VaeConfig) {
    const { normNumGroups: groups } = config;
    const channels = [...config.blockOutChannels].reverse();
    const [first, last] = [channels[0]!, channels.at(-1)!];
    const convIn = new Conv2d(w.at('conv_in'), inChannels, first, 3, { padding: 1 });
    this.midBlock = new MidBlock(w.at('mid_block'), first, config);
    const up = channels.flatMap((out, i) => {
      const block = w.at('up_blocks').at(i);
      const layers = resnets(block, config.layersPerBlock + 1, channels[Math.max(i - 1, 0)]!, out, groups);
      if (i < channels.length - 1) {
        const upsample = new Upsample2D(block.at('upsamplers.0'), out);
        layers.push((x) => upsample.forward(x));
      }
      return layers;
    });
    const normOut = new GroupNorm(w.at('conv_norm_out'), groups, last, EPSILON);
    const convOut = new Conv2d(w.at('conv_out'), last, outChannels, 3, { padding: 1 });
    this.layers = [
      (x) => convIn.forward(x),
      (x) => this.midBlock.forward(x),
      ...up,
      (x) => normOut.forward(x, 'silu'),
      (x) => convOut.forward(x),
    ];
  }

  /** [N,H,W,inChannels] -> [N,8H,8W,3] with four blocks. */
  forward(x: Tensor4D): Tensor4D {
    return chain(x, ...this.layers);
  }
}

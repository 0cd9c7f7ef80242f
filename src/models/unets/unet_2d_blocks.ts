import type { Tensor2D, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import type { Weights } from '../../nn/index.js';
import type { TransformerInputs } from '../blocks/basic_transformer_block.js';
import { chain } from '../blocks/chain.js';
import { Downsample2D, ResnetBlock2D, type ResnetConfig, Upsample2D } from '../blocks/resnet.js';
import { type Transformer2DConfig, Transformer2DModel } from '../transformers/transformer_2d.js';

/** What every block of one UNet call gets. */
export interface BlockInputs extends TransformerInputs {
  /** Time embedding after its activation, [N, tembChannels]. */
  temb: Tensor2D;
}

/** What the resnets and transformers of a UNet have in common. */
export interface BlockConfig {
  resnet: Omit<ResnetConfig, 'inChannels' | 'outChannels'>;
  /** null for blocks without attention. */
  transformer: (Omit<Transformer2DConfig, 'channels' | 'layers'> & { layers: number | number[] }) | null;
}

export interface DownBlockConfig extends BlockConfig {
  inChannels: number;
  outChannels: number;
  numLayers: number;
  addDownsample: boolean;
  downsamplePadding: number;
}

export interface MidBlockConfig extends BlockConfig {
  channels: number;
}

export interface UpBlockConfig extends BlockConfig {
  inChannels: number;
  outChannels: number;
  prevOutputChannel: number;
  numLayers: number;
  addUpsample: boolean;
}

export interface UNetBlockLayer {
  resnet: ResnetBlock2D;
  attention: Transformer2DModel | null;
}

/** The transformer of a block's attention number `i`, if it has any. */
function attention(w: Weights, i: number, channels: number, config: BlockConfig): Transformer2DModel | null {
  if (!config.transformer) {
    return null;
  }
  const { layers, ...rest } = config.transformer;
  const count = typeof layers === 'number' ? layers : layers[i]!;
  return new Transformer2DModel(w.at('attentions').at(i), { ...rest, layers: count, channels });
}

/** Pairs of resnet and transformer, `inputs[i]` to `channels` channels each. */
function layers(w: Weights, inputs: number[], channels: number, config: BlockConfig): UNetBlockLayer[] {
  return inputs.map((inChannels, i) => ({
    resnet: new ResnetBlock2D(w.at('resnets').at(i), { ...config.resnet, inChannels, outChannels: channels }),
    attention: attention(w, i, channels, config),
  }));
}

function applyLayer({ resnet, attention }: UNetBlockLayer, x: Tensor4D, inputs: BlockInputs): Tensor4D {
  const steps = [(y: Tensor4D) => resnet.forward(y, inputs.temb)];
  if (attention) {
    steps.push((y) => attention.forward(y, inputs));
  }
  return chain(x, ...steps);
}

function addToLast(states: Tensor4D[], residual: Tensor4D): void {
  states.push(tf.add(states.pop()!, residual));
}

/** DownBlock2D and CrossAttnDownBlock2D (diffusers/models/unets/unet_2d_blocks.py). */
export class DownBlock2D {
  readonly layers: UNetBlockLayer[];
  private readonly downsampler: Downsample2D | null;

  constructor(w: Weights, config: DownBlockConfig) {
    const { inChannels, outChannels, numLayers } = config;
    const inputs = Array.from({ length: numLayers }, (_, i) => (i === 0 ? inChannels : outChannels));
    this.layers = layers(w, inputs, outChannels, config);
    this.downsampler = config.addDownsample
      ? new Downsample2D(w.at('downsamplers.0'), outChannels, config.downsamplePadding)
      : null;
  }

  /** How many states `forward` gives. */
  get numStates(): number {
    return this.layers.length + (this.downsampler ? 1 : 0);
  }

  /**
   * x [N,H,W,C] -> the state after every layer and the downsampler, the last one being the block's output.
   *
   * @param residual a T2I-Adapter's: with attention added before the downsampler, without it to the block's output
   */
  forward(x: Tensor4D, inputs: BlockInputs, residual?: Tensor4D): Tensor4D[] {
    const states: Tensor4D[] = [];
    for (const layer of this.layers) {
      states.push(applyLayer(layer, states.at(-1) ?? x, inputs));
    }
    if (residual && this.layers[0]?.attention) {
      addToLast(states, residual);
    }
    if (this.downsampler) {
      states.push(this.downsampler.forward(states.at(-1)!));
    }
    if (residual && !this.layers[0]?.attention) {
      addToLast(states, residual);
    }
    return states;
  }
}

/** UNetMidBlock2DCrossAttn; UNetMidBlock2D, which in a text-conditioned UNet is one resnet alone. */
export class MidBlock2D {
  readonly first: ResnetBlock2D;
  readonly attention: Transformer2DModel | null;
  readonly second: ResnetBlock2D | null;

  constructor(w: Weights, config: MidBlockConfig) {
    const { channels, resnet, transformer } = config;
    const shape = { ...resnet, inChannels: channels, outChannels: channels };
    this.first = new ResnetBlock2D(w.at('resnets.0'), shape);
    this.attention = attention(w, 0, channels, config);
    this.second = transformer ? new ResnetBlock2D(w.at('resnets.1'), shape) : null;
  }

  /** x [N,H,W,C] -> [N,H,W,C]. */
  forward(x: Tensor4D, inputs: BlockInputs): Tensor4D {
    const { first, attention, second } = this;
    const middle = applyLayer({ resnet: first, attention }, x, inputs);
    if (!second) {
      return middle;
    }
    const last = second.forward(middle, inputs.temb);
    middle.dispose();
    return last;
  }
}

/** UpBlock2D and CrossAttnUpBlock2D (diffusers/models/unets/unet_2d_blocks.py). */
export class UpBlock2D {
  readonly layers: UNetBlockLayer[];
  private readonly upsampler: Upsample2D | null;

  constructor(w: Weights, config: UpBlockConfig) {
    const { inChannels, outChannels, prevOutputChannel, numLayers } = config;
    const inputs = Array.from({ length: numLayers }, (_, i) => {
      const skip = i === numLayers - 1 ? inChannels : outChannels;
      return (i === 0 ? prevOutputChannel : outChannels) + skip;
    });
    this.layers = layers(w, inputs, outChannels, config);
    this.upsampler = config.addUpsample ? new Upsample2D(w.at('upsamplers.0'), outChannels) : null;
  }

  /**
   * @param x [N,H,W,C]; it is disposed of
   * @param skips states of the way down, the last one first in line; those that are used are popped and disposed of
   * @returns [N,H',W',outChannels], twice the size where the block enlarges, or that of the next skip where it is odd
   */
  forward(x: Tensor4D, skips: Tensor4D[], inputs: BlockInputs): Tensor4D {
    let state = x;
    for (const layer of this.layers) {
      const skip = skips.pop()!;
      const joined = tf.concat([state, skip], 3);
      tf.dispose([state, skip]);
      state = applyLayer(layer, joined, inputs);
      joined.dispose();
    }
    if (!this.upsampler) {
      return state;
    }
    const next = skips.at(-1)!;
    const enlarged = this.upsampler.forward(state, [next.shape[1], next.shape[2]]);
    state.dispose();
    return enlarged;
  }
}

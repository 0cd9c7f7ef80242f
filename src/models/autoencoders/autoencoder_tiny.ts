import type { Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { Conv2d, Weights } from '../../nn/index.js';
import { silu } from '../../ops/index.js';
import { chain } from '../blocks/chain.js';
import {
  type ConfigJson,
  type FromConfigOptions,
  type LoadModelOptions,
  loadModel,
  type ModelOptions,
  modelFromConfig,
} from '../model.js';
import { Autoencoder, type LatentDistribution } from './autoencoder.js';
import { type AutoencoderTinyConfig, parseAutoencoderTinyConfig } from './autoencoder_tiny_config.js';
import { rampTiled } from './ramp_tiling.js';

type Layer = (x: Tensor4D) => Tensor4D;
type Conv2dOptions = ConstructorParameters<typeof Conv2d>[4];

/** Latents that the encoder gives without randomness. */
class Latents implements LatentDistribution {
  constructor(private readonly latents: Tensor4D) {}

  sample(): Tensor4D {
    return this.mode();
  }

  mode(): Tensor4D {
    return tf.clone(this.latents);
  }

  dispose(): void {
    this.latents.dispose();
  }
}

/** Layers of torch's nn.Sequential, whose places are counted. */
class Sequence {
  readonly layers: Layer[] = [];

  constructor(
    private readonly w: Weights,
    private readonly channels: number,
    private readonly activation: Layer,
  ) {}

  private conv(w: Weights, inChannels: number, outChannels: number, options: Conv2dOptions): Conv2d {
    return new Conv2d(w, inChannels, outChannels, 3, { padding: 1, ...options });
  }

  /** A 3x3 convolution, enlarging its input where `upsample` says so. */
  convolution(inChannels: number, outChannels: number, options: Conv2dOptions = {}, upsample: 1 | 2 = 1): void {
    // torch.nn.Upsample has a place of its own
    const place = this.layers.length + (upsample === 2 ? 1 : 0);
    const conv = this.conv(this.w.at(place), inChannels, outChannels, options);
    if (upsample === 2) {
      this.layers.push((x) => x);
    }
    this.layers.push((x) => conv.forward(x, { upsample }));
  }

  activate(): void {
    this.layers.push(this.activation);
  }

  /** AutoencoderTinyBlock: three convolutions and a shortcut (diffusers/models/unets/unet_2d_blocks.py). */
  block(): void {
    const { activation, channels } = this;
    const w = this.w.at(this.layers.length).at('conv');
    const [first, second, third] = [0, 2, 4].map((i) => this.conv(w.at(i), channels, channels, {})) as [
      Conv2d,
      Conv2d,
      Conv2d,
    ];
    this.layers.push((x) =>
      chain(
        x,
        (y) => activation(first.forward(y)),
        (y) => activation(second.forward(y)),
        (y) => tf.relu(third.forward(y, { residual: x })),
      ),
    );
  }
}

/**
 * A tiny autoencoder distilled from that of a diffusion model, hundreds of times faster: TAESD
 * (diffusers/models/autoencoders/autoencoder_tiny.py; https://github.com/madebyollin/taesd). Its latents are those that
 * the denoiser knows, so that its scaling factor is 1.
 */
export class AutoencoderTiny extends Autoencoder {
  static readonly weightsName = 'diffusion_pytorch_model';

  readonly parsed: AutoencoderTinyConfig;
  private readonly encoder: Layer[];
  private readonly decoder: Layer[];
  tileSampleMinSize = 512;
  tileOverlapFactor = 0.125;

  constructor(json: ConfigJson, options: ModelOptions & { source?: string } = {}) {
    const w = Weights.root(options.dtype);
    super(json, w, options);
    this.parsed = parseAutoencoderTinyConfig(json, options.source ?? 'vae/config.json');
    const activation = this.parsed.actFn === 'relu' ? (x: Tensor4D) => tf.relu(x) : (x: Tensor4D) => silu(x);
    this.encoder = encoderLayers(w.at('encoder.layers'), this.parsed, activation);
    this.decoder = decoderLayers(w.at('decoder.layers'), this.parsed, activation);
  }

  /** Loads an autoencoder from a directory with config.json and diffusion_pytorch_model.safetensors. */
  static fromPretrained(dir: string, options: LoadModelOptions = {}): Promise<AutoencoderTiny> {
    return loadModel(AutoencoderTiny, dir, options);
  }

  /** Builds an autoencoder from a configuration alone. */
  static fromConfig(config: ConfigJson, options: FromConfigOptions = {}): AutoencoderTiny {
    return modelFromConfig(AutoencoderTiny, config, options);
  }

  get scaleFactor(): number {
    return 2 ** (this.parsed.decoderBlockOutChannels.length - 1);
  }

  /**
   * Picture to latents; nothing is drawn, so that every sample is the same.
   *
   * @param image [N,H,W,3] float32 in -1..1; H and W multiples of scaleFactor
   */
  encode(image: Tensor4D): LatentDistribution {
    this.checkImage(image);
    const encode = (x: Tensor4D) => this.typed(x, toUnit, ...this.encoder);
    const { tileSampleMinSize: tile, tileOverlapFactor: overlap, tileLatentMinSize } = this;
    const tiling = { inputTile: tile, outputTile: tileLatentMinSize, overlap };
    return new Latents(this.inSlices(image, (x) => (this.isTiled ? rampTiled(x, tiling, encode) : encode(x))));
  }

  protected decodeAll(latents: Tensor4D): Tensor4D {
    const decode = (x: Tensor4D) => this.typed(x, clampSoftly, ...this.decoder, fromUnit);
    const { tileSampleMinSize: outputTile, tileLatentMinSize: inputTile, tileOverlapFactor: overlap } = this;
    return this.isTiled ? rampTiled(latents, { inputTile, outputTile, overlap }, decode) : decode(latents);
  }
}

const toUnit: Layer = (x) => tf.div(tf.add(x, 1), 2);
const fromUnit: Layer = (x) => tf.sub(tf.mul(x, 2), 1);
const clampSoftly: Layer = (x) => tf.mul(tf.tanh(tf.div(x, 3)), 3);

function encoderLayers(w: Weights, config: AutoencoderTinyConfig, activation: Layer): Layer[] {
  const channels = config.encoderBlockOutChannels[0]!;
  const sequence = new Sequence(w, channels, activation);
  for (const [i, blocks] of config.numEncoderBlocks.entries()) {
    sequence.convolution(i === 0 ? config.inChannels : channels, channels, i === 0 ? {} : { stride: 2, bias: false });
    for (let block = 0; block < blocks; block++) {
      sequence.block();
    }
  }
  sequence.convolution(channels, config.latentChannels);
  return sequence.layers;
}

function decoderLayers(w: Weights, config: AutoencoderTinyConfig, activation: Layer): Layer[] {
  const channels = config.decoderBlockOutChannels[0]!;
  const sequence = new Sequence(w, channels, activation);
  sequence.convolution(config.latentChannels, channels);
  sequence.activate();
  for (const [i, blocks] of config.numDecoderBlocks.entries()) {
    for (let block = 0; block < blocks; block++) {
      sequence.block();
    }
    if (i < config.numDecoderBlocks.length - 1) {
      sequence.convolution(channels, channels, { bias: false }, 2);
    } else {
      sequence.convolution(channels, config.outChannels);
    }
  }
  return sequence.layers;
}

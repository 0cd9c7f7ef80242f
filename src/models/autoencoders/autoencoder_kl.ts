import type { Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import type { CrossAttention } from '../../attention/index.js';
import { Conv2d, Weights } from '../../nn/index.js';
import { randnTensor } from '../../utils/randn_tensor.js';
import { TorchGenerator } from '../../utils/torch_generator.js';
import {
  type ConfigJson,
  type FromConfigOptions,
  type LoadModelOptions,
  loadModel,
  type ModelOptions,
  modelFromConfig,
} from '../model.js';
import { loadModelFile, type SingleFileOptions } from '../single_file.js';
import { Autoencoder, type LatentDistribution } from './autoencoder.js';
import { type AutoencoderKLConfig, parseAutoencoderConfig } from './autoencoder_kl_config.js';
import { tiled } from './tiling.js';
import { Decoder, Encoder, type VaeAttention } from './vae.js';

function unseeded(): TorchGenerator {
  const generator = new TorchGenerator();
  generator.seed();
  return generator;
}

/** Normal distribution of latents with a diagonal covariance; mean and logvar are [N,h,w,C]. */
export class DiagonalGaussianDistribution implements LatentDistribution {
  readonly mean: Tensor4D;
  readonly logvar: Tensor4D;

  /** @param moments [N,h,w,2C]: means, then logarithms of variances */
  constructor(moments: Tensor4D) {
    const [mean, logvar] = tf.split(moments, 2, 3) as [Tensor4D, Tensor4D];
    this.mean = mean;
    this.logvar = tf.tidy(() => tf.clipByValue(logvar, -30, 20));
    logvar.dispose();
  }

  /** One draw, with noise in N,C,H,W order as torch's; without a generator another one at each call. */
  sample(generator: TorchGenerator | readonly TorchGenerator[] = unseeded()): Tensor4D {
    return tf.tidy(() => {
      const noise = randnTensor(this.mean.shape, generator) as Tensor4D;
      return tf.add(this.mean, tf.mul(tf.exp(tf.mul(this.logvar, 0.5)), noise));
    });
  }

  /** The most likely latents. */
  mode(): Tensor4D {
    return tf.clone(this.mean);
  }

  dispose(): void {
    tf.dispose([this.mean, this.logvar]);
  }
}

/**
 * The variational autoencoder between pictures and latents (diffusers/models/autoencoders/autoencoder_kl.py; Kingma &
 * Welling 2013, Rombach et al. 2022).
 */
export class AutoencoderKL extends Autoencoder {
  static readonly weightsName = 'diffusion_pytorch_model';

  readonly parsed: AutoencoderKLConfig;
  private readonly encoder: Encoder;
  private readonly decoder: Decoder;
  private readonly quantConv: Conv2d | null;
  private readonly postQuantConv: Conv2d | null;
  tileSampleMinSize: number;
  tileOverlapFactor = 0.25;

  constructor(json: ConfigJson, options: ModelOptions & { source?: string } = {}) {
    const w = Weights.root(options.dtype);
    super(json, w, options);
    const config = parseAutoencoderConfig(json, options.source ?? 'vae/config.json');
    this.parsed = config;
    this.tileSampleMinSize = config.sampleSize;
    const latents = config.latentChannels;
    const shape = { ...config, attention: this.attention };
    this.encoder = new Encoder(w.at('encoder'), config.inChannels, 2 * latents, shape);
    this.decoder = new Decoder(w.at('decoder'), latents, config.outChannels, shape);
    this.quantConv = config.useQuantConv ? new Conv2d(w.at('quant_conv'), 2 * latents, 2 * latents, 1) : null;
    this.postQuantConv = config.usePostQuantConv ? new Conv2d(w.at('post_quant_conv'), latents, latents, 1) : null;
  }

  /** Loads an autoencoder from a directory with config.json and diffusion_pytorch_model.safetensors. */
  static fromPretrained(dir: string, options: LoadModelOptions = {}): Promise<AutoencoderKL> {
    return loadModel(AutoencoderKL, dir, options);
  }

  /**
   * Loads an autoencoder from a single file in the original layout, of a whole checkpoint or of the VAE alone.
   *
   * @param source a .safetensors file, or its address on the hub
   */
  static fromSingleFile(source: string, options: SingleFileOptions = {}): Promise<AutoencoderKL> {
    return loadModelFile(AutoencoderKL, 'vae', source, options);
  }

  /** Builds an autoencoder from a configuration alone. */
  static fromConfig(config: ConfigJson, options: FromConfigOptions = {}): AutoencoderKL {
    return modelFromConfig(AutoencoderKL, config, options);
  }

  /** Pixels per latent along an edge. */
  get scaleFactor(): number {
    return 2 ** (this.parsed.blockOutChannels.length - 1);
  }

  override get attentionLayers(): readonly CrossAttention[] {
    return this.attentionPlaces.map(({ attention }) => attention);
  }

  /** The mid-blocks' attention. */
  protected override get attentionPlaces(): readonly VaeAttention[] {
    return [this.encoder, this.decoder].flatMap(({ midBlock }) => midBlock.attention ?? []);
  }

  /**
   * Picture to latents.
   *
   * @param image [N,H,W,3] float32 in -1..1; H and W multiples of scaleFactor
   * @returns the distribution of the latents [N,H/8,W/8,4], to be disposed of; multiply a sample by scaling_factor
   */
  encode(image: Tensor4D): DiagonalGaussianDistribution {
    this.checkImage(image);
    const moments = this.inSlices(image, (x) => this.encodeMoments(x));
    const distribution = new DiagonalGaussianDistribution(moments);
    moments.dispose();
    return distribution;
  }

  private encodeMoments(image: Tensor4D): Tensor4D {
    const quant = this.quantConv ? [(x: Tensor4D) => this.quantConv!.forward(x)] : [];
    const encode = (x: Tensor4D) => this.typed(x, (y) => this.encoder.forward(y), ...quant);
    const tile = this.tileSampleMinSize;
    if (!this.isTiled || Math.max(image.shape[1], image.shape[2]) <= tile) {
      return encode(image);
    }
    const tiling = { inputTile: tile, outputTile: this.tileLatentMinSize, overlap: this.tileOverlapFactor };
    return tiled(image, tiling, encode);
  }

  protected decodeAll(latents: Tensor4D): Tensor4D {
    const quant = this.postQuantConv ? [(x: Tensor4D) => this.postQuantConv!.forward(x)] : [];
    const decode = (x: Tensor4D) => this.typed(x, ...quant, (y) => this.decoder.forward(y));
    const tile = this.tileLatentMinSize;
    if (!this.isTiled || Math.max(latents.shape[1], latents.shape[2]) <= tile) {
      return decode(latents);
    }
    const tiling = { inputTile: tile, outputTile: this.tileSampleMinSize, overlap: this.tileOverlapFactor };
    return tiled(latents, tiling, decode);
  }
}

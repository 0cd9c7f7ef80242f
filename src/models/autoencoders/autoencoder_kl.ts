import type { Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import type { CrossAttention } from '../../attention/index.js';
import { toPhysicalType } from '../../backends/precision.js';
import { Conv2d, Weights } from '../../nn/index.js';
import { invalid } from '../../utils/check.js';
import { randnTensor } from '../../utils/randn_tensor.js';
import { TorchGenerator } from '../../utils/torch_generator.js';
import { chain } from '../blocks/chain.js';
import {
  type ConfigJson,
  type FromConfigOptions,
  type LoadModelOptions,
  loadModel,
  Model,
  type ModelOptions,
  modelFromConfig,
} from '../model.js';
import { type AutoencoderKLConfig, parseAutoencoderConfig } from './autoencoder_kl_config.js';
import { tiled } from './tiling.js';
import { Decoder, Encoder, type VaeAttention } from './vae.js';

function unseeded(): TorchGenerator {
  const generator = new TorchGenerator();
  generator.seed();
  return generator;
}

/** Normal distribution of latents with a diagonal covariance; mean and logvar are [N,h,w,C]. */
export class DiagonalGaussianDistribution {
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
export class AutoencoderKL extends Model {
  static readonly weightsName = 'diffusion_pytorch_model';

  readonly parsed: AutoencoderKLConfig;
  private readonly encoder: Encoder;
  private readonly decoder: Decoder;
  private readonly quantConv: Conv2d | null;
  private readonly postQuantConv: Conv2d | null;
  private useSlicing = false;
  private useTiling = false;
  /** Edge of a picture's tile in pixels, when tiling is on. */
  tileSampleMinSize: number;
  /** Share of a tile that its neighbour covers, too. */
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

  /** Layers between float32 on the outside and the model's own type inside. */
  private typed(...layers: ((x: Tensor4D) => Tensor4D)[]): ((x: Tensor4D) => Tensor4D)[] {
    return [(x) => toPhysicalType(x, this.dtype), ...layers, (x) => toPhysicalType(x, 'float32')];
  }

  /**
   * Picture to latents.
   *
   * @param image [N,H,W,3] float32 in -1..1; H and W multiples of scaleFactor
   * @returns the distribution of the latents [N,H/8,W/8,4], to be disposed of; multiply a sample by scaling_factor
   */
  encode(image: Tensor4D): DiagonalGaussianDistribution {
    if (image.rank !== 4 || image.shape[3] !== this.parsed.inChannels) {
      throw invalid('AutoencoderKL', 'image', `a tensor [N,H,W,${this.parsed.inChannels}]`, image);
    }
    const moments = this.inSlices(image, (x) => this.encodeMoments(x));
    const distribution = new DiagonalGaussianDistribution(moments);
    moments.dispose();
    return distribution;
  }

  /**
   * Latents, divided by scaling_factor, to a picture.
   *
   * @param latents [N,h,w,4] float32
   * @returns [N,8h,8w,3], about -1..1
   */
  decode(latents: Tensor4D): Tensor4D {
    if (latents.rank !== 4 || latents.shape[3] !== this.parsed.latentChannels) {
      throw invalid('AutoencoderKL', 'latents', `a tensor [N,h,w,${this.parsed.latentChannels}]`, latents);
    }
    return this.inSlices(latents, (x) => this.decodeAll(x));
  }

  /** Works on one picture of a batch at a time: less memory, the same pictures. */
  enableSlicing(): void {
    this.useSlicing = true;
  }

  disableSlicing(): void {
    this.useSlicing = false;
  }

  /** Works on overlapping tiles of large pictures: memory of one tile, pictures that differ slightly. */
  enableTiling(use = true): void {
    this.useTiling = use;
  }

  disableTiling(): void {
    this.enableTiling(false);
  }

  get isSliced(): boolean {
    return this.useSlicing;
  }

  get isTiled(): boolean {
    return this.useTiling;
  }

  private get tileLatentMinSize(): number {
    return Math.trunc(this.tileSampleMinSize / this.scaleFactor);
  }

  private inSlices(x: Tensor4D, f: (x: Tensor4D) => Tensor4D): Tensor4D {
    const [batch, h, w, c] = x.shape;
    if (!this.useSlicing || batch === 1) {
      return f(x);
    }
    return tf.tidy(() =>
      tf.concat(
        Array.from({ length: batch }, (_, i) => tf.tidy(() => f(tf.slice(x, [i, 0, 0, 0], [1, h, w, c])))),
        0,
      ),
    );
  }

  private encodeMoments(image: Tensor4D): Tensor4D {
    const quant = this.quantConv ? [(x: Tensor4D) => this.quantConv!.forward(x)] : [];
    const encode = (x: Tensor4D) => chain(x, ...this.typed((y) => this.encoder.forward(y), ...quant));
    const tile = this.tileSampleMinSize;
    if (!this.useTiling || Math.max(image.shape[1], image.shape[2]) <= tile) {
      return encode(image);
    }
    const tiling = { inputTile: tile, outputTile: this.tileLatentMinSize, overlap: this.tileOverlapFactor };
    return tiled(image, tiling, encode);
  }

  private decodeAll(latents: Tensor4D): Tensor4D {
    const quant = this.postQuantConv ? [(x: Tensor4D) => this.postQuantConv!.forward(x)] : [];
    const decode = (x: Tensor4D) => chain(x, ...this.typed(...quant, (y) => this.decoder.forward(y)));
    const tile = this.tileLatentMinSize;
    if (!this.useTiling || Math.max(latents.shape[1], latents.shape[2]) <= tile) {
      return decode(latents);
    }
    const tiling = { inputTile: tile, outputTile: this.tileSampleMinSize, overlap: this.tileOverlapFactor };
    return tiled(latents, tiling, decode);
  }
}

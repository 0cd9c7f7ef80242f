import type { Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { toPhysicalType } from '../../backends/precision.js';
import { invalid } from '../../utils/check.js';
import type { TorchGenerator } from '../../utils/torch_generator.js';
import { chain } from '../blocks/chain.js';
import { Model } from '../model.js';

/** What an encoder gives: latents [N,h,w,C] or a distribution of them. */
export interface LatentDistribution {
  /** One draw; the caller owns it. */
  sample(generator?: TorchGenerator | readonly TorchGenerator[]): Tensor4D;
  /** The most likely latents; the caller owns them. */
  mode(): Tensor4D;
  dispose(): void;
}

/** What pipelines read of an autoencoder's configuration. */
export interface AutoencoderConfig {
  inChannels: number;
  latentChannels: number;
  /** The denoiser's latents are (latents - shiftFactor) * scalingFactor. */
  scalingFactor: number;
  shiftFactor: number | null;
  /** Whether 16-bit floats are too small for this model's activations. */
  forceUpcast: boolean;
}

type Layer = (x: Tensor4D) => Tensor4D;

/** What stands between pictures and latents: the base of AutoencoderKL and AutoencoderTiny. */
export abstract class Autoencoder extends Model {
  abstract readonly parsed: AutoencoderConfig;
  private useSlicing = false;
  private useTiling = false;
  /** Edge of a picture's tile in pixels, when tiling is on. */
  abstract tileSampleMinSize: number;
  /** Share of a tile that its neighbour covers, too. */
  abstract tileOverlapFactor: number;

  /** Computes in float32 whatever the weights are, for models whose activations 16 bits cannot hold (`forceUpcast`). */
  upcast = false;

  /** Pixels per latent along an edge. */
  abstract get scaleFactor(): number;

  /**
   * Picture to latents.
   *
   * @param image [N,H,W,3] float32 in -1..1; H and W multiples of scaleFactor
   * @returns latents [N,H/8,W/8,4], or their distribution, to be disposed of; multiply them by scaling_factor
   */
  abstract encode(image: Tensor4D): LatentDistribution;

  /**
   * Latents, divided by scaling_factor, to a picture.
   *
   * @param latents [N,h,w,4] float32
   * @returns [N,8h,8w,3], about -1..1
   */
  decode(latents: Tensor4D): Tensor4D {
    if (latents.rank !== 4 || latents.shape[3] !== this.parsed.latentChannels) {
      throw invalid(this.constructor.name, 'latents', `a tensor [N,h,w,${this.parsed.latentChannels}]`, latents);
    }
    return this.inSlices(latents, (x) => this.decodeAll(x));
  }

  /** Latents to a picture, in tiles where they are asked for. */
  protected abstract decodeAll(latents: Tensor4D): Tensor4D;

  protected checkImage(image: Tensor4D): void {
    if (image.rank !== 4 || image.shape[3] !== this.parsed.inChannels) {
      throw invalid(this.constructor.name, 'image', `a tensor [N,H,W,${this.parsed.inChannels}]`, image);
    }
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

  /** Edge of a tile in latents. */
  protected get tileLatentMinSize(): number {
    return Math.trunc(this.tileSampleMinSize / this.scaleFactor);
  }

  /** Applies layers, with float32 on the outside and the model's own type inside. */
  protected typed(x: Tensor4D, ...layers: Layer[]): Tensor4D {
    return chain(
      x,
      (y) => toPhysicalType(y, this.upcast ? 'float32' : this.dtype),
      ...layers,
      (y) => toPhysicalType(y, 'float32'),
    );
  }

  protected inSlices(x: Tensor4D, f: Layer): Tensor4D {
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
}

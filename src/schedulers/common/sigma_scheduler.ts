import * as tf from '@tensorflow/tfjs-core';
import type { OptionsOf } from '../../config/fields.js';
import type { PredictionType, TimestepSpacing } from './config.js';
import { f32, interpolate } from './numeric.js';
import {
  type BetaOptions,
  checkConversions,
  convertSigmas,
  finiteAlphasCumprod,
  fractionalTimesteps,
  logSigmasOf,
  type SigmaConversion,
  sigmasOf,
  sigmaToT,
} from './schedule.js';
import { asList, perItem, SchedulerMixin } from './scheduling_utils.js';

/** What the configurations of these schedulers have. */
export interface SigmaConfig extends BetaOptions, SigmaConversion {
  readonly prediction_type: PredictionType;
  readonly timestep_spacing: TimestepSpacing;
  readonly steps_offset: number;
}

/**
 * Schedulers that work on samples of growing variance, x = signal + sigma * noise, which the model sees divided by
 * sqrt(sigma^2 + 1) (Euler, LMS, Heun, KDPM2 and the ancestral ones).
 */
export abstract class SigmaScheduler<C extends SigmaConfig> extends SchedulerMixin<C> {
  /** Noise levels of the schedule, one more than steps of the method; float32. */
  sigmas = new Float32Array();
  readonly alphasCumprod: readonly number[];

  constructor(options?: OptionsOf<C>) {
    super(options);
    checkConversions(this.className, this.config);
    this.alphasCumprod = finiteAlphasCumprod(this.config);
  }

  get initNoiseSigma(): number {
    const max = this.sigmas.reduce((a, b) => Math.max(a, b), -Infinity);
    return this.config.timestep_spacing === 'leading' ? Math.sqrt(max ** 2 + 1) : max;
  }

  override scaleModelInput(sample: tf.Tensor, timestep?: number): tf.Tensor {
    const sigma = this.inputSigma(this.beginStep(timestep ?? Number.NaN));
    return tf.div(sample, Math.sqrt(sigma ** 2 + 1));
  }

  addNoise(original: tf.Tensor, noise: tf.Tensor, timesteps: number | ArrayLike<number>): tf.Tensor {
    const sigmas = asList(timesteps).map((t) => this.sigmas[this.noiseIndex(t)]!);
    return tf.tidy(() => tf.add(original, tf.mul(noise, perItem(sigmas, original))));
  }

  /** Noise level that the model's input has at a step. */
  protected inputSigma(index: number): number {
    return this.sigmas[index]!;
  }

  /** Noise levels of all training steps, ascending. */
  protected trainingSigmas(): number[] {
    return sigmasOf(this.alphasCumprod);
  }

  /** How the configuration, in which another class's entries may be, converts noise levels. */
  protected get conversion(): SigmaConversion {
    return this.config;
  }

  /** Noise levels and timesteps of so many steps, or of given timesteps, converted as configured. */
  protected spacedSigmas(
    steps: number,
    custom?: readonly number[],
  ): { sigmas: readonly number[]; timesteps: readonly number[] } {
    const timesteps = custom ?? fractionalTimesteps(this.config, steps);
    const trained = this.trainingSigmas();
    return this.convert(
      timesteps.map((t) => interpolate(t, trained)),
      timesteps,
      steps,
    );
  }

  /** The schedule's noise levels converted as configured, with their timesteps; or both as they came. */
  protected convert(
    sigmas: readonly number[],
    timesteps: readonly number[],
    steps: number,
  ): { sigmas: readonly number[]; timesteps: readonly number[] } {
    const converted = convertSigmas(this.conversion, sigmas, steps);
    return converted ? { sigmas: converted, timesteps: this.timestepsOf(converted) } : { sigmas, timesteps };
  }

  /** Training steps, fractions, at which the trained schedule has these noise levels. */
  protected timestepsOf(sigmas: readonly number[]): number[] {
    const logSigmas = logSigmasOf(this.trainingSigmas());
    return sigmas.map((sigma) => sigmaToT(sigma, logSigmas));
  }

  /** The clean sample that the model's output stands for at a noise level. */
  protected predictOriginal(modelOutput: tf.Tensor, sample: tf.Tensor, sigma: number): tf.Tensor {
    switch (this.config.prediction_type) {
      case 'epsilon': // x_0 = x - sigma eps
        return tf.sub(sample, tf.mul(sigma, modelOutput));
      case 'v_prediction':
        return this.velocityToOriginal(modelOutput, sample, sigma);
      default:
        return tf.clone(modelOutput);
    }
  }

  /** x_0 = x / (sigma^2 + 1) - sigma v / sqrt(sigma^2 + 1); float32 because at a sigma of 4096 its last bit shows. */
  protected velocityToOriginal(modelOutput: tf.Tensor, sample: tf.Tensor, sigma: number): tf.Tensor {
    const variance = f32(f32(sigma ** 2) + 1);
    return tf.add(tf.mul(modelOutput, -sigma / f32(Math.sqrt(variance))), tf.div(sample, variance));
  }
}

import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../errors.js';
import { alphasCumprod, type BetaOptions, makeBetas, sigmasOf } from './betas.js';
import { f32, log32, sqrt32 } from './numeric.js';
import type { Fields } from './scheduler_config.js';
import type { PredictionType } from './scheduler_fields.js';
import { asList, perItem, SchedulerMixin } from './scheduling_utils.js';
import { convertSigmas, type Precision, type SigmaConversion, sigmaToT } from './sigmas.js';
import type { TimestepSpacing } from './timestep_spacing.js';

interface SigmaConfig extends BetaOptions, SigmaConversion {
  prediction_type: PredictionType;
  timestep_spacing: TimestepSpacing;
}

/** Refuses a configuration that asks for more than one conversion of its noise levels. */
export function checkConversions(className: string, config: SigmaConversion): void {
  const asked = (['use_karras_sigmas', 'use_exponential_sigmas', 'use_beta_sigmas'] as const).filter((k) => config[k]);
  if (asked.length > 1) {
    throw new InvalidArgumentError(
      `[${className}] expects at most one conversion of its sigmas, got ${asked.join(' and ')}`,
    );
  }
}

/**
 * Schedulers that work on samples of growing variance, x = signal + sigma * noise, which the model sees divided by
 * sqrt(sigma^2 + 1) (Euler, LMS, Heun, KDPM2 and the ancestral ones).
 */
export abstract class SigmaScheduler<F extends Fields> extends SchedulerMixin<F> {
  /** Noise levels of the schedule, one more than steps of the method; float32. */
  sigmas = new Float32Array();
  readonly alphasCumprod: readonly number[];

  constructor(options: object) {
    super(options);
    checkConversions(this.className, this.sigmaConfig);
    const cumprod = alphasCumprod(makeBetas(this.sigmaConfig));
    if (this.sigmaConfig.rescale_betas_zero_snr) {
      // The last sigma would be infinite; diffusers takes the one of the smallest float16 instead.
      cumprod[cumprod.length - 1] = 2 ** -24;
    }
    this.alphasCumprod = cumprod;
  }

  private get sigmaConfig(): SigmaConfig {
    return this.config as unknown as SigmaConfig;
  }

  get initNoiseSigma(): number {
    const max = this.sigmas.reduce((a, b) => Math.max(a, b), -Infinity);
    return this.sigmaConfig.timestep_spacing === 'leading' ? sqrt32(f32(f32(max * max) + 1)) : max;
  }

  override scaleModelInput(sample: tf.Tensor, timestep?: number): tf.Tensor {
    const sigma = this.inputSigma(this.beginStep(timestep ?? Number.NaN));
    return tf.div(sample, sqrt32(f32(f32(sigma * sigma) + 1)));
  }

  addNoise(original: tf.Tensor, noise: tf.Tensor, timesteps: number | ArrayLike<number>): tf.Tensor {
    const sigmas = asList(timesteps).map((t) => this.sigmas[this.noiseIndex(t)]!);
    return tf.tidy(() => tf.add(original, tf.mul(noise, perItem(sigmas, original))));
  }

  /** Noise level that the model's input has at a step. */
  protected inputSigma(index: number): number {
    return this.sigmas[index]!;
  }

  /** Index of the noise level to add: within a loop that of the next step, so that masked parts stay in line. */
  protected noiseIndex(timestep: number): number {
    return this.beginIndex === null ? this.indexForTimestep(timestep) : (this.stepIndex ?? this.beginIndex);
  }

  /** Noise levels of all training steps, ascending. */
  protected trainingSigmas(): number[] {
    return sigmasOf(this.alphasCumprod);
  }

  /** How the configuration, in which another class's entries may be, converts noise levels. */
  protected get conversion(): SigmaConversion {
    return this.sigmaConfig;
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
  protected timestepsOf(sigmas: readonly number[], precision?: Precision): number[] {
    const logSigmas = this.trainingSigmas().map(log32);
    return sigmas.map((sigma) => sigmaToT(sigma, logSigmas, precision));
  }

  /** The clean sample that the model's output stands for at a noise level. */
  protected predictOriginal(modelOutput: tf.Tensor, sample: tf.Tensor, sigma: number): tf.Tensor {
    switch (this.sigmaConfig.prediction_type) {
      case 'epsilon':
        return tf.sub(sample, tf.mul(sigma, modelOutput));
      case 'v_prediction':
        return this.velocityToOriginal(modelOutput, sample, sigma);
      default:
        return tf.clone(modelOutput);
    }
  }

  protected velocityToOriginal(modelOutput: tf.Tensor, sample: tf.Tensor, sigma: number): tf.Tensor {
    const variance = f32(f32(sigma * sigma) + 1);
    return tf.add(tf.mul(modelOutput, f32(-sigma / sqrt32(variance))), tf.div(sample, variance));
  }
}

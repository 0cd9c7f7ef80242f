import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../errors.js';
import { alphasCumprod, type BetaOptions, makeBetas, sigmasOf } from './betas.js';
import { f32, interpolate, linspace, log32, sqrt32 } from './numeric.js';
import type { Fields } from './scheduler_config.js';
import type { PredictionType } from './scheduler_fields.js';
import { asList, perItem, SchedulerMixin, type SetTimestepsOptions } from './scheduling_utils.js';
import { checkConversions } from './sigma_scheduler.js';
import { type SigmaConversion, sigmaToT } from './sigmas.js';
import { thresholdSample } from './thresholding.js';

interface SolverConfig extends BetaOptions, SigmaConversion {
  solver_order: number;
  prediction_type: PredictionType;
  thresholding: boolean;
  dynamic_thresholding_ratio: number;
  sample_max_value: number;
  use_flow_sigmas: boolean;
  flow_shift: number;
  use_dynamic_shifting: boolean;
  variance_type?: string | null;
}

/** A point of the schedule: shares of signal and noise, and half the log of their squared ratio; float32 values. */
export interface SchedulePoint {
  alpha: number;
  sigma: number;
  lambda: number;
}

/**
 * Solvers over half log signal-to-noise ratios on samples of constant variance (DPMSolver, DEIS, UniPC). They keep the
 * last `solver_order` model outputs.
 */
export abstract class SolverScheduler<F extends Fields> extends SchedulerMixin<F> {
  /** Ratios of noise to signal of the schedule (shares of noise for flows), one more than steps; float32. */
  sigmas: Float32Array;
  readonly alphasCumprod: readonly number[];
  /** Converted model outputs, the newest last. */
  protected outputs: tf.Tensor[] = [];

  constructor(options: object) {
    super(options);
    const config = this.solverConfig;
    checkConversions(this.className, config);
    if (config.solver_order > 3) {
      throw new InvalidArgumentError(`[${this.className}] solver_order expects 1, 2 or 3, got ${config.solver_order}`);
    }
    const cumprod = alphasCumprod(makeBetas(config));
    if (config.rescale_betas_zero_snr) {
      // The last sigma would be infinite; diffusers takes the one of the smallest float16 instead.
      cumprod[cumprod.length - 1] = 2 ** -24;
    }
    this.alphasCumprod = cumprod;
    this.sigmas = Float32Array.from(this.trainingSigmas());
    this.timesteps = linspace(0, this.length - 1, this.length).reverse();
  }

  protected get solverConfig(): SolverConfig {
    return this.config as unknown as SolverConfig;
  }

  get initNoiseSigma(): number {
    return 1;
  }

  addNoise(original: tf.Tensor, noise: tf.Tensor, timesteps: number | ArrayLike<number>): tf.Tensor {
    const points = asList(timesteps).map((t) => this.pointOf(this.sigmas[this.noiseIndex(t)]!));
    const shares = (key: 'alpha' | 'sigma'): number[] => points.map((point) => point[key]);
    return tf.tidy(() =>
      tf.add(tf.mul(perItem(shares('alpha'), original), original), tf.mul(perItem(shares('sigma'), original), noise)),
    );
  }

  override dispose(): void {
    super.dispose();
    this.outputs = [];
  }

  /** Index of the noise level to add; a timestep outside the schedule gets the last one, as in diffusers. */
  private noiseIndex(timestep: number): number {
    if (this.beginIndex !== null) {
      return this.stepIndex ?? this.beginIndex;
    }
    return this.timesteps.includes(timestep) ? this.indexForTimestep(timestep) : this.timesteps.length - 1;
  }

  /** Takes over a new schedule and starts a loop; timesteps are cut to integers, which is what these solvers give. */
  protected begin(sigmas: readonly number[], timesteps: readonly number[]): void {
    this.resetLoop();
    this.sigmas = Float32Array.from(sigmas);
    this.timesteps = timesteps.map(Math.trunc);
    this.numInferenceSteps = timesteps.length;
  }

  protected checkConflicts(options: SetTimestepsOptions, conflicts: readonly string[]): void {
    const set = options.timesteps && conflicts.find((key) => (this.config as Record<string, unknown>)[key]);
    if (set) {
      throw new InvalidArgumentError(
        `[${this.className}.setTimesteps] takes no timesteps with ${set}; pass the number of inference steps`,
      );
    }
  }

  /** Shift of flow schedules for the picture's size: `mu` replaces flow_shift by its exponential. */
  protected applyShift(options: SetTimestepsOptions): void {
    if (options.mu == null) {
      return;
    }
    if (!this.solverConfig.use_dynamic_shifting) {
      throw new InvalidArgumentError(`[${this.className}.setTimesteps] takes mu only with use_dynamic_shifting`);
    }
    this.updateConfig({ flow_shift: Math.exp(options.mu) });
  }

  /** Noise levels of all training steps, ascending. */
  protected trainingSigmas(): number[] {
    return sigmasOf(this.alphasCumprod);
  }

  /** Training steps, fractions, at which the trained schedule has these noise levels. */
  protected timestepsOf(sigmas: readonly number[]): number[] {
    const logSigmas = this.trainingSigmas().map(log32);
    return sigmas.map((sigma) => sigmaToT(sigma, logSigmas));
  }

  protected sigmasAt(timesteps: readonly number[]): number[] {
    const trained = this.trainingSigmas();
    return timesteps.map((t) => interpolate(t, trained));
  }

  /** Noise levels of a rectified flow, evenly spaced and shifted. */
  protected flowSigmas(steps: number): number[] {
    const { num_train_timesteps, flow_shift: shift } = this.solverConfig;
    return linspace(1, 1 / num_train_timesteps, steps + 1)
      .map((alpha) => 1 - alpha)
      .map((sigma) => (shift * sigma) / (1 + (shift - 1) * sigma))
      .reverse()
      .slice(0, -1);
  }

  /** The schedule's point at an index of `sigmas`. */
  protected point(index: number): SchedulePoint {
    return this.pointOf(this.sigmas.at(index)!);
  }

  private pointOf(ratio: number): SchedulePoint {
    const flow = this.solverConfig.use_flow_sigmas;
    const alpha = flow ? f32(1 - ratio) : f32(1 / sqrt32(f32(f32(ratio * ratio) + 1)));
    const sigma = flow ? ratio : f32(ratio * alpha);
    return { alpha, sigma, lambda: f32(log32(alpha) - log32(sigma)) };
  }

  /** The clean sample that the model's output stands for at a step, thresholded if configured. */
  protected predictOriginal(modelOutput: tf.Tensor, sample: tf.Tensor, index: number): tf.Tensor {
    const { alpha, sigma } = this.point(index);
    const config = this.solverConfig;
    let original: tf.Tensor;
    switch (config.prediction_type) {
      case 'epsilon':
        original = tf.div(tf.sub(sample, tf.mul(sigma, modelOutput)), alpha);
        break;
      case 'sample':
        original = modelOutput;
        break;
      case 'v_prediction':
        original = tf.sub(tf.mul(alpha, sample), tf.mul(sigma, modelOutput));
        break;
      default:
        original = tf.sub(sample, tf.mul(this.sigmas[index]!, modelOutput));
    }
    return config.thresholding ? this.threshold(original) : original;
  }

  /** The noise that the model's output stands for at a step. */
  protected predictEpsilon(modelOutput: tf.Tensor, sample: tf.Tensor, index: number): tf.Tensor {
    const { alpha, sigma } = this.point(index);
    switch (this.solverConfig.prediction_type) {
      case 'epsilon':
        return modelOutput;
      case 'sample':
        return tf.div(tf.sub(sample, tf.mul(alpha, modelOutput)), sigma);
      default:
        return tf.add(tf.mul(alpha, modelOutput), tf.mul(sigma, sample));
    }
  }

  protected threshold(original: tf.Tensor): tf.Tensor {
    const { dynamic_thresholding_ratio, sample_max_value } = this.solverConfig;
    return thresholdSample(original, dynamic_thresholding_ratio, sample_max_value);
  }

  /** 2 when the model's output has channels of the variance after those of the sample, else 1. */
  protected varianceFactor(modelOutput: tf.Tensor, sample: tf.Tensor): number {
    return this.learnsVariance && modelOutput.shape.at(-1) === 2 * sample.shape.at(-1)! ? 2 : 1;
  }

  /** The model's output without the channels of the variance. */
  protected withoutVariance(modelOutput: tf.Tensor, sample: tf.Tensor): tf.Tensor {
    const channels = sample.shape.at(-1)!;
    if (!this.learnsVariance || modelOutput.shape.at(-1) === channels) {
      return modelOutput;
    }
    const begin = modelOutput.shape.map(() => 0);
    return tf.slice(modelOutput, begin, [...modelOutput.shape.slice(0, -1), channels]);
  }

  private get learnsVariance(): boolean {
    const type = this.solverConfig.variance_type;
    return this.solverConfig.prediction_type === 'epsilon' && (type === 'learned' || type === 'learned_range');
  }

  /** Adds a converted output to the history and drops those beyond the order. */
  protected remember(output: tf.Tensor): void {
    this.outputs.push(this.retain(output));
    while (this.outputs.length > this.solverConfig.solver_order) {
      this.release(this.outputs.shift());
    }
  }
}

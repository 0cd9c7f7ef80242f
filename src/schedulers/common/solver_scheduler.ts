import * as tf from '@tensorflow/tfjs-core';
import type { OptionsOf } from '../../config/fields.js';
import { InvalidArgumentError } from '../../errors.js';
import type { PredictionType } from './config.js';
import { f32, interpolate, linspace } from './numeric.js';
import {
  type BetaOptions,
  checkConversions,
  finiteAlphasCumprod,
  logSigmasOf,
  type SigmaConversion,
  shiftFlow,
  sigmasOf,
  sigmaToT,
} from './schedule.js';
import { asList, combine, mixPerItem, SchedulerMixin, type SetTimestepsOptions } from './scheduling_utils.js';
import { thresholdSample } from './thresholding.js';

/** What the configurations of these schedulers have, or may have. */
export interface SolverConfig extends BetaOptions, SigmaConversion {
  readonly solver_order?: number;
  readonly prediction_type: PredictionType;
  readonly thresholding: boolean;
  readonly dynamic_thresholding_ratio: number;
  readonly sample_max_value: number;
  readonly use_flow_sigmas: boolean;
  readonly flow_shift: number;
  readonly use_dynamic_shifting?: boolean;
  readonly variance_type?: string | null;
}

/** A point of the schedule: shares of signal and noise, and half the log of their squared ratio. */
export interface SchedulePoint {
  alpha: number;
  sigma: number;
  lambda: number;
}

// Float32 decides in these two and in `pointOf`. Solvers that predict noise find it as (x - alpha x_0) / sigma and move by
// sigma (e^h - 1) eps; with karras sigmas down to 0.01 both enlarge torch's rounding of alpha, sigma, lambda, h and e^h - 1
// to 1.5e-4 of the latents. Rounded where torch rounds, all solvers stay within 1e-5 of diffusers; the rest is float64.

/** h = lambda_t - lambda_s */
export function stepLength(s: SchedulePoint, t: SchedulePoint): number {
  return f32(t.lambda - s.lambda);
}

/** e^h - 1, as a difference, which is how DPM-Solver and DEIS have it. */
export function expm1(h: number): number {
  return f32(f32(Math.exp(h)) - 1);
}

/**
 * Solvers over half log signal-to-noise ratios on samples of constant variance (DPMSolver, DEIS, UniPC). They keep the
 * last `solver_order` model outputs.
 */
export abstract class SolverScheduler<C extends SolverConfig> extends SchedulerMixin<C> {
  /** Ratios of noise to signal of the schedule (shares of noise for flows), one more than steps; float32. */
  sigmas: Float32Array;
  readonly alphasCumprod: readonly number[];
  /** Converted model outputs, the newest last. */
  protected outputs: tf.Tensor[] = [];

  constructor(options?: OptionsOf<C>) {
    super(options);
    checkConversions(this.className, this.config);
    this.alphasCumprod = finiteAlphasCumprod(this.config);
    this.sigmas = Float32Array.from(this.trainingSigmas());
    this.timesteps = linspace(0, this.length - 1, this.length).reverse();
  }

  get initNoiseSigma(): number {
    return 1;
  }

  addNoise(original: tf.Tensor, noise: tf.Tensor, timesteps: number | ArrayLike<number>): tf.Tensor {
    const points = asList(timesteps).map((t) => this.pointOf(this.sigmas[this.noiseIndex(t)]!));
    const [alphas, sigmas] = [points.map(({ alpha }) => alpha), points.map(({ sigma }) => sigma)];
    return mixPerItem(alphas, original, sigmas, noise);
  }

  override dispose(): void {
    super.dispose();
    this.outputs = [];
  }

  /** Index of the noise level to add; a timestep outside the schedule gets the last one, as in diffusers. */
  protected override noiseIndex(timestep: number): number {
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
    const set = options.timesteps && conflicts.find((key) => this.config[key]);
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
    if (!this.config.use_dynamic_shifting) {
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
    const logSigmas = logSigmasOf(this.trainingSigmas());
    return sigmas.map((sigma) => sigmaToT(sigma, logSigmas));
  }

  protected sigmasAt(timesteps: readonly number[]): number[] {
    const trained = this.trainingSigmas();
    return timesteps.map((t) => interpolate(t, trained));
  }

  /** Noise levels of a rectified flow, evenly spaced and shifted. */
  protected flowSigmas(steps: number): number[] {
    const { num_train_timesteps, flow_shift: shift } = this.config;
    return linspace(1, 1 / num_train_timesteps, steps + 1)
      .map((alpha) => 1 - alpha)
      .map((sigma) => shiftFlow(shift, sigma))
      .reverse()
      .slice(0, -1);
  }

  /** The schedule's point at an index of `sigmas`. */
  protected point(index: number): SchedulePoint {
    return this.pointOf(this.sigmas.at(index)!);
  }

  private pointOf(ratio: number): SchedulePoint {
    const flow = this.config.use_flow_sigmas;
    const alpha = flow ? 1 - ratio : f32(1 / f32(Math.sqrt(f32(f32(ratio ** 2) + 1))));
    const sigma = flow ? ratio : f32(ratio * alpha);
    return { alpha, sigma, lambda: f32(f32(Math.log(alpha)) - f32(Math.log(sigma))) };
  }

  /** The clean sample that the model's output stands for at a step, thresholded if configured. */
  protected predictOriginal(modelOutput: tf.Tensor, sample: tf.Tensor, index: number): tf.Tensor {
    const original = this.unthresholded(modelOutput, sample, index);
    return this.config.thresholding ? this.threshold(original) : original;
  }

  private unthresholded(modelOutput: tf.Tensor, sample: tf.Tensor, index: number): tf.Tensor {
    const { alpha, sigma } = this.point(index);
    switch (this.config.prediction_type) {
      case 'epsilon': // x_0 = (x - sigma eps) / alpha
        return tf.div(tf.sub(sample, tf.mul(sigma, modelOutput)), alpha);
      case 'sample':
        return modelOutput;
      case 'v_prediction': // x_0 = alpha x - sigma v
        return combine([alpha, sample], [-sigma, modelOutput]);
      default: // a flow is noise - x_0: x_0 = x - sigma v
        return tf.sub(sample, tf.mul(this.sigmas[index]!, modelOutput));
    }
  }

  /** The noise that the model's output stands for at a step. */
  protected predictEpsilon(modelOutput: tf.Tensor, sample: tf.Tensor, index: number): tf.Tensor {
    const { alpha, sigma } = this.point(index);
    switch (this.config.prediction_type) {
      case 'epsilon':
        return modelOutput;
      case 'sample': // eps = (x - alpha x_0) / sigma
        return tf.div(tf.sub(sample, tf.mul(alpha, modelOutput)), sigma);
      default: // eps = alpha v + sigma x
        return combine([alpha, modelOutput], [sigma, sample]);
    }
  }

  protected threshold(original: tf.Tensor): tf.Tensor {
    const { dynamic_thresholding_ratio, sample_max_value } = this.config;
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
    const type = this.config.variance_type;
    return this.config.prediction_type === 'epsilon' && (type === 'learned' || type === 'learned_range');
  }

  /** Outputs that are kept. */
  protected get historyLength(): number {
    return this.config.solver_order!;
  }

  /** Adds a converted output to the history and drops those beyond its length. */
  protected pushOutput(output: tf.Tensor): void {
    this.outputs.push(this.retain(output));
    while (this.outputs.length > this.historyLength) {
      this.release(this.outputs.shift());
    }
  }
}

import * as tf from '@tensorflow/tfjs-core';
import { type ConfigOf, number, type OptionsOf } from '../config/fields.js';
import { NOISE_SCHEDULE_FIELDS, SIGMA_CONVERSION_FIELDS, spacingFields } from './common/config.js';
import { f32, roundHalfEven } from './common/numeric.js';
import { midpoint, twice } from './common/schedule.js';
import type { SchedulerOutput, SetTimestepsOptions, StepOptions } from './common/scheduling_utils.js';
import { SigmaScheduler } from './common/sigma_scheduler.js';

const KDPM2_FIELDS = {
  ...NOISE_SCHEDULE_FIELDS,
  ...SIGMA_CONVERSION_FIELDS,
  ...spacingFields('linspace'),
  beta_start: number(0.00085),
  beta_end: number(0.012),
};

/** The two schedulers inspired by DPM-Solver-2: a step looks at the middle of the interval and then goes all the way. */
export abstract class KDPM2Scheduler extends SigmaScheduler<ConfigOf<typeof KDPM2_FIELDS>> {
  static override readonly fields = KDPM2_FIELDS;
  override readonly order = 2;

  /** Sample at the start of the step under way, between its two model calls. */
  private startSample: tf.Tensor | null = null;
  /** Noise level of the second model call of each step. */
  private midpoints: number[] = [];
  /** Noise levels at the steps' starts, and the final one. */
  protected levels: number[] = [];

  constructor(options?: OptionsOf<ConfigOf<typeof KDPM2_FIELDS>>) {
    super(options);
    this.buildSchedule(this.length);
  }

  /** Noise level that a step from `sigma` looks at on its way to `next`. */
  protected abstract midpointOf(sigma: number, next: number): number;

  /** The whole step, with the derivative at its middle. */
  protected abstract finish(
    step: { sigma: number; next: number },
    start: tf.Tensor,
    derivative: tf.Tensor,
    options: StepOptions,
  ): tf.Tensor;

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    this.checkPredictionType(['epsilon', 'v_prediction']);
    const steps = this.checkSteps(numInferenceSteps, options);
    this.resetLoop();
    this.numInferenceSteps = steps;
    this.buildSchedule(steps);
  }

  private buildSchedule(steps: number): void {
    const { sigmas, timesteps } = this.spacedSigmas(steps);
    const starts = timesteps.map((t) => f32(this.config.use_karras_sigmas ? roundHalfEven(t) : t));
    this.levels = [...Float32Array.from([...sigmas, 0])];
    this.midpoints = this.levels.slice(0, -2).map((sigma, i) => this.midpointOf(sigma, this.levels[i + 1]!));
    const middle = this.timestepsOf(this.midpoints).map(f32);
    this.sigmas = Float32Array.from([...twice(this.levels), 0]);
    this.timesteps = starts.flatMap((t, i) => (i === 0 ? [t] : [middle[i - 1]!, t]));
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    const index = this.beginStep(timestep);
    const output = tf.tidy(() => {
      const sigmaNow = this.inputSigma(index);
      const predOriginalSample = this.predictOriginal(modelOutput, sample, sigmaNow);
      const derivative = tf.div(tf.sub(sample, predOriginalSample), sigmaNow);
      const step = Math.floor(index / 2);
      const [sigma, next] = [this.levels[step]!, this.levels[step + 1]!];
      const start = this.startSample;
      const prevSample = start
        ? this.finish({ sigma, next }, start, derivative, options)
        : tf.add(sample, tf.mul(derivative, (this.midpoints[step] ?? 0) - sigma));
      this.startSample = start ? null : this.retain(sample);
      this.release(start);
      return { prevSample, predOriginalSample };
    });
    this.endStep();
    return output;
  }

  protected override inputSigma(index: number): number {
    return this.startSample ? this.midpoints[Math.floor(index / 2)]! : this.sigmas[index]!;
  }

  override dispose(): void {
    super.dispose();
    this.startSample = null;
  }
}

/**
 * DPM2 (k-diffusion's `sample_dpm_2`; diffusers/schedulers/scheduling_k_dpm_2_discrete.py): two model calls per step.
 */
export class KDPM2DiscreteScheduler extends KDPM2Scheduler {
  static override readonly className = 'KDPM2DiscreteScheduler';
  static override readonly shortNames = { dpm2: {}, kdpm2: {}, dpm2_karras: { use_karras_sigmas: true } };

  protected midpointOf(sigma: number, next: number): number {
    return midpoint(next, sigma);
  }

  protected finish(step: { sigma: number; next: number }, start: tf.Tensor, derivative: tf.Tensor): tf.Tensor {
    return tf.add(start, tf.mul(derivative, step.next - step.sigma));
  }
}

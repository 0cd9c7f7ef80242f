import * as tf from '@tensorflow/tfjs-core';
import { f32, interpolate, log32, roundHalfEven } from './numeric.js';
import { number } from './scheduler_config.js';
import { NOISE_SCHEDULE_FIELDS, SIGMA_CONVERSION_FIELDS, spacingFields } from './scheduler_fields.js';
import type { SchedulerOutput, SetTimestepsOptions, StepOptions } from './scheduling_utils.js';
import { SigmaScheduler } from './sigma_scheduler.js';
import { fractionalTimesteps } from './timestep_spacing.js';

export const KDPM2_FIELDS = {
  ...NOISE_SCHEDULE_FIELDS,
  ...SIGMA_CONVERSION_FIELDS,
  ...spacingFields('linspace'),
  beta_start: number(0.00085),
  beta_end: number(0.012),
};

/** The two schedulers inspired by DPM-Solver-2: a step looks at the middle of the interval and then goes all the way. */
export abstract class KDPM2Base extends SigmaScheduler<typeof KDPM2_FIELDS> {
  override readonly order = 2;

  /** Sample at the start of the step under way, between its two model calls. */
  protected startSample: tf.Tensor | null = null;
  /** Noise level of the second model call of each step. */
  protected middleSigmas: number[] = [];
  /** Noise levels at the steps' starts, and the final one. */
  protected levels: number[] = [];

  constructor(options: object) {
    super(options);
    this.layOut(this.length);
  }

  /** Noise levels of the second model calls, one per step that has one. */
  protected abstract middlesOf(levels: readonly number[]): number[];

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    this.checkPredictionType(['epsilon', 'v_prediction']);
    const steps = this.checkSteps(numInferenceSteps, options);
    this.resetLoop();
    this.numInferenceSteps = steps;
    this.layOut(steps);
  }

  private layOut(steps: number): void {
    const spaced = fractionalTimesteps(this.config, steps);
    const trained = this.trainingSigmas();
    const { sigmas, timesteps } = this.convert(
      spaced.map((t) => interpolate(t, trained)),
      spaced,
      steps,
    );
    const starts = timesteps.map((t) => f32(this.config.use_karras_sigmas ? roundHalfEven(t) : t));
    this.levels = [...sigmas, 0].map(f32);
    this.middleSigmas = this.middlesOf(this.levels);
    const middles = this.timestepsOf(this.middleSigmas, { weight: f32, result: f32 });
    this.sigmas = Float32Array.from(this.levels.flatMap((s, i) => (i === 0 ? [s] : [s, s])).concat(0));
    this.timesteps = starts.flatMap((t, i) => (i === 0 ? [t] : [middles[i - 1]!, t]));
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    const index = this.beginStep(timestep);
    const output = tf.tidy(() => {
      const sigma = this.inputSigma(index);
      const predOriginalSample = this.predictOriginal(modelOutput, sample, sigma);
      const derivative = tf.div(tf.sub(sample, predOriginalSample), sigma);
      const step = Math.floor(index / 2);
      const prevSample = this.startSample
        ? this.finish(step, this.startSample, derivative, options)
        : tf.add(sample, tf.mul(derivative, f32((this.middleSigmas[step] ?? 0) - sigma)));
      const start = this.startSample;
      this.startSample = start ? null : this.retain(sample);
      this.release(start);
      return { prevSample, predOriginalSample };
    });
    this.endStep();
    return output;
  }

  /** The whole step, with the derivative at its middle. */
  protected abstract finish(step: number, start: tf.Tensor, derivative: tf.Tensor, options: StepOptions): tf.Tensor;

  protected override inputSigma(index: number): number {
    return this.startSample ? this.middleSigmas[Math.floor(index / 2)]! : this.sigmas[index]!;
  }

  override dispose(): void {
    super.dispose();
    this.startSample = null;
  }
}

/** Geometric mean of two noise levels as torch's `a.log().lerp(b.log(), 0.5).exp()` gives it. */
export function middleOf(a: number, b: number): number {
  const [x, y] = [log32(a), log32(b)];
  return f32(Math.exp(f32(y - f32(f32(y - x) * 0.5))));
}

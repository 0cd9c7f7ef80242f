import * as tf from '@tensorflow/tfjs-core';
import { type ConfigOf, choice, flag, number, type OptionsOf } from '../config/fields.js';
import { InvalidArgumentError } from '../errors.js';
import { BETA_SCHEDULES, NOISE_SCHEDULE_FIELDS, SIGMA_CONVERSION_FIELDS, spacingFields } from './common/config.js';
import { f32 } from './common/numeric.js';
import { twice } from './common/schedule.js';
import type { SchedulerOutput, SetTimestepsOptions, StepOptions } from './common/scheduling_utils.js';
import { SigmaScheduler } from './common/sigma_scheduler.js';

const FIELDS = {
  ...NOISE_SCHEDULE_FIELDS,
  ...SIGMA_CONVERSION_FIELDS,
  ...spacingFields('linspace'),
  beta_start: number(0.00085),
  beta_end: number(0.012),
  beta_schedule: choice<string>('linear', [...BETA_SCHEDULES, 'exp']),
  clip_sample: flag(false),
  clip_sample_range: number(1),
};

/**
 * Heun's method, two model calls per step (https://arxiv.org/abs/2206.00364, Algorithm 1;
 * diffusers/schedulers/scheduling_heun_discrete.py). `setTimesteps` takes `timesteps`.
 */
export class HeunDiscreteScheduler extends SigmaScheduler<ConfigOf<typeof FIELDS>> {
  static override readonly className = 'HeunDiscreteScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { heun: {}, heun_karras: { use_karras_sigmas: true } };
  override readonly order = 2;

  /** First half of a step under way: its derivative, length and starting sample. */
  private half: { derivative: tf.Tensor; dt: number; sample: tf.Tensor } | null = null;

  constructor(options?: OptionsOf<ConfigOf<typeof FIELDS>>) {
    super(options);
    this.buildSchedule(this.length);
  }

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    this.checkPredictionType(['epsilon', 'sample', 'v_prediction']);
    const steps = this.checkSteps(numInferenceSteps, options, ['timesteps']);
    const { use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas } = this.config;
    if (options.timesteps && (use_karras_sigmas || use_exponential_sigmas || use_beta_sigmas)) {
      throw new InvalidArgumentError(
        '[HeunDiscreteScheduler.setTimesteps] takes no timesteps with karras, exponential or beta sigmas',
      );
    }
    this.resetLoop();
    this.numInferenceSteps = steps;
    this.buildSchedule(steps, options.timesteps);
  }

  private buildSchedule(steps: number, custom?: readonly number[]): void {
    const { sigmas, timesteps } = this.spacedSigmas(steps, custom?.map(f32));
    this.sigmas = Float32Array.from([...twice(sigmas), 0]);
    this.timesteps = twice(timesteps.map(f32));
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, _options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    const index = this.beginStep(timestep);
    const output = tf.tidy(() => {
      const sigma = this.sigmas[index]!;
      const predicted = this.predictOriginal(modelOutput, sample, sigma);
      const range = this.config.clip_sample_range;
      const predOriginalSample = this.config.clip_sample ? tf.clipByValue(predicted, -range, range) : predicted;
      const derivative = tf.div(tf.sub(sample, predOriginalSample), sigma);
      return { prevSample: this.advance(index, derivative, sample), predOriginalSample };
    });
    this.endStep();
    return output;
  }

  private advance(index: number, derivative: tf.Tensor, sample: tf.Tensor): tf.Tensor {
    if (!this.half) {
      const dt = this.sigmas[index + 1]! - this.sigmas[index]!;
      this.half = { derivative: this.retain(derivative), dt, sample: this.retain(sample) };
      return tf.add(sample, tf.mul(derivative, dt));
    }
    const first = this.half;
    const mean = tf.div(tf.add(first.derivative, derivative), 2);
    const moved = tf.add(first.sample, tf.mul(mean, first.dt));
    this.release(first.derivative);
    this.release(first.sample);
    this.half = null;
    return moved;
  }

  override dispose(): void {
    super.dispose();
    this.half = null;
  }
}

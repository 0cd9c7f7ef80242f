import * as tf from '@tensorflow/tfjs-core';
import { type ConfigOf, flag, type OptionsOf } from '../config/fields.js';
import { NOISE_SCHEDULE_FIELDS, spacingFields } from './common/config.js';
import { interpolate, linspace } from './common/numeric.js';
import { ancestralStep, fractionalTimesteps } from './common/schedule.js';
import type { SchedulerOutput, SetTimestepsOptions, StepOptions } from './common/scheduling_utils.js';
import { SigmaScheduler } from './common/sigma_scheduler.js';

const FIELDS = { ...NOISE_SCHEDULE_FIELDS, ...spacingFields('linspace'), rescale_betas_zero_snr: flag(false) };

/**
 * Euler's method with noise added back after each step (k-diffusion's `sample_euler_ancestral`;
 * diffusers/schedulers/scheduling_euler_ancestral_discrete.py). `step` takes `generator`.
 */
export class EulerAncestralDiscreteScheduler extends SigmaScheduler<ConfigOf<typeof FIELDS>> {
  static override readonly className = 'EulerAncestralDiscreteScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { euler_a: {}, euler_ancestral: {} };

  constructor(options?: OptionsOf<ConfigOf<typeof FIELDS>>) {
    super(options);
    this.sigmas = Float32Array.from([...this.trainingSigmas().reverse(), 0]);
    this.timesteps = linspace(0, this.length - 1, this.length).reverse();
  }

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    this.checkPredictionType(['epsilon', 'v_prediction']);
    const steps = this.checkSteps(numInferenceSteps, options);
    this.resetLoop();
    this.numInferenceSteps = steps;
    this.timesteps = fractionalTimesteps(this.config, steps);
    const trained = this.trainingSigmas();
    this.sigmas = Float32Array.from([...this.timesteps.map((t) => interpolate(t, trained)), 0]);
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    const index = this.beginStep(timestep);
    const sigma = this.sigmas[index]!;
    const next = this.sigmas[index + 1]!;
    const { up, down } = ancestralStep(sigma, next);
    const output = tf.tidy(() => {
      const predOriginalSample = this.predictOriginal(modelOutput, sample, sigma);
      const derivative = tf.div(tf.sub(sample, predOriginalSample), sigma);
      const moved = tf.add(sample, tf.mul(derivative, down - sigma));
      const prevSample = tf.add(moved, tf.mul(this.noiseLike(modelOutput, options), up));
      return { prevSample, predOriginalSample };
    });
    this.endStep();
    return output;
  }
}

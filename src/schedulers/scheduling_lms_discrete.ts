import * as tf from '@tensorflow/tfjs-core';
import type { ConfigOf, OptionsOf } from '../config/fields.js';
import { expectThat, is } from '../utils/check.js';
import { NOISE_SCHEDULE_FIELDS, SIGMA_CONVERSION_FIELDS, spacingFields } from './common/config.js';
import { f32, gaussKronrod21 } from './common/numeric.js';
import type { SigmaConversion } from './common/schedule.js';
import {
  combine,
  type SchedulerOutput,
  type SetTimestepsOptions,
  type StepOptions,
} from './common/scheduling_utils.js';
import { SigmaScheduler } from './common/sigma_scheduler.js';

const FIELDS = { ...NOISE_SCHEDULE_FIELDS, ...SIGMA_CONVERSION_FIELDS, ...spacingFields('linspace') };

/**
 * Linear multistep method over noise levels (k-diffusion's `sample_lms`;
 * diffusers/schedulers/scheduling_lms_discrete.py). `step` takes `order`, the number of derivatives used (4).
 */
export class LMSDiscreteScheduler extends SigmaScheduler<ConfigOf<typeof FIELDS>> {
  static override readonly className = 'LMSDiscreteScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { lms: {}, lms_karras: { use_karras_sigmas: true } };

  private derivatives: tf.Tensor[] = [];

  constructor(options?: OptionsOf<ConfigOf<typeof FIELDS>>) {
    super(options);
    this.buildSchedule(this.length);
  }

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    this.checkPredictionType(['epsilon', 'sample', 'v_prediction']);
    const steps = this.checkSteps(numInferenceSteps, options);
    this.resetLoop();
    this.numInferenceSteps = steps;
    this.buildSchedule(steps);
  }

  private buildSchedule(steps: number): void {
    const { sigmas, timesteps } = this.spacedSigmas(steps);
    this.sigmas = Float32Array.from([...sigmas, 0]);
    this.timesteps = timesteps.map(f32);
  }

  /** The karras sigmas of this class take their ends from the schedule alone. */
  protected override get conversion(): SigmaConversion {
    const { use_karras_sigmas } = this.config;
    return use_karras_sigmas ? { use_karras_sigmas } : super.conversion;
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    const { order: wanted = 4 } = options;
    expectThat(is.count(wanted), 'LMSDiscreteScheduler.step', 'order', 'a positive integer', wanted);
    const index = this.beginStep(timestep);
    const sigma = this.sigmas[index]!;
    const output = tf.tidy(() => {
      const predOriginalSample = this.predictOriginal(modelOutput, sample, sigma);
      this.derivatives.push(this.retain(tf.div(tf.sub(sample, predOriginalSample), sigma)));
      if (this.derivatives.length > wanted) {
        this.release(this.derivatives.shift());
      }
      const order = Math.min(index + 1, wanted);
      const newest = [...this.derivatives].reverse().slice(0, order);
      const change = combine(...newest.map((d, k) => [this.coefficient(order, index, k), d] as const));
      const prevSample = tf.add(sample, change);
      return { prevSample, predOriginalSample };
    });
    this.endStep();
    return output;
  }

  override dispose(): void {
    super.dispose();
    this.derivatives = [];
  }

  /** Integral of the k-th Lagrange polynomial over a step (`get_lms_coefficient`). */
  private coefficient(order: number, index: number, k: number): number {
    const at = (i: number): number => this.sigmas[index - i]!;
    const polynomial = (tau: number): number => {
      let product = 1;
      for (let i = 0; i < order; i++) {
        if (i !== k) {
          product *= (tau - at(i)) / (at(k) - at(i));
        }
      }
      return product;
    };
    return gaussKronrod21(polynomial, this.sigmas[index]!, this.sigmas[index + 1]!);
  }
}

import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../errors.js';
import { f32, interpolate } from './common/numeric.js';
import { gaussKronrod21 } from './common/quadrature.js';
import type { OptionsOf } from './common/scheduler_config.js';
import { NOISE_SCHEDULE_FIELDS, SIGMA_CONVERSION_FIELDS, spacingFields } from './common/scheduler_fields.js';
import type { SchedulerOutput, SetTimestepsOptions, StepOptions } from './common/scheduling_utils.js';
import { SigmaScheduler } from './common/sigma_scheduler.js';
import type { SigmaConversion } from './common/sigmas.js';
import { fractionalTimesteps } from './common/timestep_spacing.js';

const FIELDS = { ...NOISE_SCHEDULE_FIELDS, ...SIGMA_CONVERSION_FIELDS, ...spacingFields('linspace') };

/**
 * Linear multistep method over noise levels (k-diffusion's `sample_lms`;
 * diffusers/schedulers/scheduling_lms_discrete.py). `step` takes `order`, the number of derivatives used (4).
 */
export class LMSDiscreteScheduler extends SigmaScheduler<typeof FIELDS> {
  static override readonly className: string = 'LMSDiscreteScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { lms: {}, lms_karras: { use_karras_sigmas: true } };

  private derivatives: tf.Tensor[] = [];

  constructor(options: OptionsOf<typeof FIELDS> = {}) {
    super(options);
    this.layOut(this.length);
  }

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    this.checkPredictionType(['epsilon', 'sample', 'v_prediction']);
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
    if (!Number.isInteger(wanted) || wanted < 1) {
      throw new InvalidArgumentError(`[LMSDiscreteScheduler.step] order expects a positive integer, got ${wanted}`);
    }
    const index = this.beginStep(timestep);
    const sigma = this.sigmas[index]!;
    const output = tf.tidy(() => {
      const predOriginalSample = this.predictOriginal(modelOutput, sample, sigma);
      this.derivatives.push(this.retain(tf.div(tf.sub(sample, predOriginalSample), sigma)));
      if (this.derivatives.length > wanted) {
        this.release(this.derivatives.shift());
      }
      const order = Math.min(index + 1, wanted);
      const terms = [...this.derivatives]
        .reverse()
        .slice(0, order)
        .map((derivative, k) => tf.mul(this.coefficient(order, index, k), derivative));
      const prevSample = tf.add(
        sample,
        terms.reduce((sum, term) => tf.add(sum, term)),
      );
      return { prevSample, predOriginalSample };
    });
    this.endStep();
    return output;
  }

  override dispose(): void {
    super.dispose();
    this.derivatives = [];
  }

  /** Integral of the k-th Lagrange polynomial over a step (`get_lms_coefficient`, whose integrand is float32). */
  private coefficient(order: number, index: number, k: number): number {
    const at = (i: number): number => this.sigmas[index - i]!;
    const polynomial = (tau: number): number => {
      let product = 1;
      for (let i = 0; i < order; i++) {
        if (i !== k) {
          product = f32(product * f32(f32(f32(tau) - at(i)) / f32(at(k) - at(i))));
        }
      }
      return product;
    };
    return gaussKronrod21(polynomial, this.sigmas[index]!, this.sigmas[index + 1]!);
  }
}

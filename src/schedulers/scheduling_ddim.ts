import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../errors.js';
import { AlphaScheduler } from './common/alpha_scheduler.js';
import { f32, sqrt32 } from './common/numeric.js';
import { flag, number, type OptionsOf } from './common/scheduler_config.js';
import { NOISE_SCHEDULE_FIELDS, spacingFields, THRESHOLDING_FIELDS } from './common/scheduler_fields.js';
import type { SchedulerOutput, SetTimestepsOptions, StepOptions } from './common/scheduling_utils.js';
import { integerTimesteps } from './common/timestep_spacing.js';

const FIELDS = {
  ...NOISE_SCHEDULE_FIELDS,
  ...THRESHOLDING_FIELDS,
  ...spacingFields('leading'),
  clip_sample: flag(true),
  clip_sample_range: number(1),
  set_alpha_to_one: flag(true),
  rescale_betas_zero_snr: flag(false),
};

/**
 * Denoising diffusion implicit models (https://arxiv.org/abs/2010.02502; diffusers/schedulers/scheduling_ddim.py).
 * `step` takes `eta`, `generator`, `varianceNoise` and `useClippedModelOutput`.
 */
export class DDIMScheduler extends AlphaScheduler<typeof FIELDS> {
  static override readonly className: string = 'DDIMScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { ddim: {} };

  constructor(options: OptionsOf<typeof FIELDS> = {}) {
    super(options);
  }

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    this.checkPredictionType(['epsilon', 'sample', 'v_prediction']);
    const steps = this.checkSteps(numInferenceSteps, options);
    this.checkNotAbove(steps, this.config.num_train_timesteps);
    this.resetLoop();
    this.numInferenceSteps = steps;
    this.timesteps = integerTimesteps(this.config, steps);
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    const { eta = 0, varianceNoise, generator } = options;
    if (varianceNoise && generator) {
      throw new InvalidArgumentError('[DDIMScheduler.step] takes a generator or varianceNoise, not both');
    }
    const previous = timestep - Math.floor(this.config.num_train_timesteps / this.numInferenceSteps!);
    const alpha = this.alphaAt(timestep);
    const alphaPrevious = this.previousAlphaAt(previous);
    const deviation = f32(f32(eta) * sqrt32(this.variance(alpha, alphaPrevious)));
    return tf.tidy(() => {
      const predOriginalSample = this.restrain(this.predictOriginal(modelOutput, sample, alpha));
      const epsilon = options.useClippedModelOutput
        ? this.epsilonOf(predOriginalSample, sample, alpha)
        : this.predictEpsilon(modelOutput, sample, alpha);
      const direction = sqrt32(f32(f32(1 - alphaPrevious) - f32(deviation * deviation)));
      let prevSample: tf.Tensor = tf.add(tf.mul(sqrt32(alphaPrevious), predOriginalSample), tf.mul(direction, epsilon));
      if (eta > 0) {
        prevSample = tf.add(prevSample, tf.mul(deviation, varianceNoise ?? this.noiseLike(modelOutput, options)));
      }
      return { prevSample, predOriginalSample };
    });
  }

  /** Variance of the noise at eta = 1 (equation 16). */
  private variance(alpha: number, alphaPrevious: number): number {
    const ratio = f32(f32(1 - alphaPrevious) / f32(1 - alpha));
    return f32(ratio * f32(1 - f32(alpha / alphaPrevious)));
  }
}

import * as tf from '@tensorflow/tfjs-core';
import { type ConfigOf, flag, number } from '../config/fields.js';
import { InvalidArgumentError } from '../errors.js';
import { AlphaScheduler } from './common/alpha_scheduler.js';
import { NOISE_SCHEDULE_FIELDS, spacingFields, THRESHOLDING_FIELDS } from './common/config.js';
import { f32 } from './common/numeric.js';
import { integerTimesteps } from './common/schedule.js';
import {
  combine,
  type SchedulerOutput,
  type SetTimestepsOptions,
  type StepOptions,
} from './common/scheduling_utils.js';

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
export class DDIMScheduler extends AlphaScheduler<ConfigOf<typeof FIELDS>> {
  static override readonly className = 'DDIMScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { ddim: {} };

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
    // equation 16; with squaredcos_cap_v2 and eta = 1 the last bit decides what is left of the direction
    const variance = f32(f32(f32(1 - alphaPrevious) / f32(1 - alpha)) * f32(1 - f32(alpha / alphaPrevious)));
    const deviation = f32(eta * f32(Math.sqrt(variance)));
    return tf.tidy(() => {
      const predOriginalSample = this.thresholdOrClip(this.predictOriginal(modelOutput, sample, alpha));
      const epsilon = options.useClippedModelOutput
        ? this.epsilonOf(predOriginalSample, sample, alpha)
        : this.predictEpsilon(modelOutput, sample, alpha);
      const noise = eta > 0 ? (varianceNoise ?? this.noiseLike(modelOutput, options)) : undefined;
      const prevSample = combine(
        [Math.sqrt(alphaPrevious), predOriginalSample],
        [Math.sqrt(f32(f32(1 - alphaPrevious) - f32(deviation ** 2))), epsilon],
        [deviation, noise],
      );
      return { prevSample, predOriginalSample };
    });
  }
}

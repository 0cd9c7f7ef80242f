import * as tf from '@tensorflow/tfjs-core';
import { type ConfigOf, choice, flag, integer, number, type OptionsOf } from '../config/fields.js';
import { invalid, oneOf } from '../utils/check.js';
import { AlphaScheduler, noiseShare } from './common/alpha_scheduler.js';
import { MAX_STEPS, NOISE_SCHEDULE_FIELDS } from './common/config.js';
import { integerTimesteps } from './common/schedule.js';
import {
  combine,
  type SchedulerOutput,
  type SetTimestepsOptions,
  type StepOptions,
} from './common/scheduling_utils.js';

const FIELDS = {
  ...NOISE_SCHEDULE_FIELDS,
  timestep_spacing: choice('leading', ['leading', 'trailing', 'linspace']),
  steps_offset: integer(0, { min: -MAX_STEPS, max: MAX_STEPS }),
  clip_sample: flag(true),
  clip_sample_range: number(1),
  set_alpha_to_one: flag(true),
  rescale_betas_zero_snr: flag(false),
};

/**
 * DDIM backwards, from a picture to the noise that DDIM draws it from (https://arxiv.org/abs/2010.02502, section 4.3;
 * diffusers/schedulers/scheduling_ddim_inverse.py). Timesteps ascend; `step` goes to `timestep` from the one before.
 */
export class DDIMInverseScheduler extends AlphaScheduler<ConfigOf<typeof FIELDS>> {
  static override readonly className = 'DDIMInverseScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { ddim_inverse: {} };

  constructor(options?: OptionsOf<ConfigOf<typeof FIELDS>>) {
    super(options);
    this.timesteps.reverse();
  }

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    this.checkPredictionType(['epsilon', 'sample', 'v_prediction']);
    if (this.config.timestep_spacing === 'linspace') {
      throw invalid(this.className, 'timestep_spacing', oneOf(['leading', 'trailing']), 'linspace');
    }
    const steps = this.checkSteps(numInferenceSteps, options);
    this.checkNotAbove(steps, this.length);
    this.resetLoop();
    this.numInferenceSteps = steps;
    this.timesteps = integerTimesteps(this.config, steps).reverse();
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, _options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    const nextAlpha = this.alphaAt(timestep);
    const ratio = Math.floor(this.length / this.numInferenceSteps!);
    // the step before the first is the clean picture, or that of the first training step
    const alpha = this.previousAlphaAt(Math.min(timestep - ratio, this.length - 1));
    return tf.tidy(() => {
      const predOriginalSample = this.thresholdOrClip(this.predictOriginal(modelOutput, sample, alpha));
      const epsilon = this.predictEpsilon(modelOutput, sample, alpha);
      const prevSample = combine([Math.sqrt(nextAlpha), predOriginalSample], [noiseShare(nextAlpha), epsilon]);
      return { prevSample, predOriginalSample };
    });
  }
}

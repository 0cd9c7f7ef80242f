import * as tf from '@tensorflow/tfjs-core';
import { type ConfigOf, choice, flag, number } from '../config/fields.js';
import { AlphaScheduler } from './common/alpha_scheduler.js';
import {
  BETA_SCHEDULES,
  NOISE_SCHEDULE_FIELDS,
  spacingFields,
  THRESHOLDING_FIELDS,
  VARIANCE_TYPES,
} from './common/config.js';
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
  beta_schedule: choice<string>('linear', [...BETA_SCHEDULES, 'laplace', 'sigmoid']),
  variance_type: choice('fixed_small', VARIANCE_TYPES),
  clip_sample: flag(true),
  clip_sample_range: number(1),
  rescale_betas_zero_snr: flag(false),
};

/**
 * Denoising diffusion probabilistic models (https://arxiv.org/abs/2006.11239; diffusers/schedulers/scheduling_ddpm.py).
 * `setTimesteps` takes `timesteps`; `step` takes `generator`. Without `setTimesteps` it takes all the training steps.
 */
export class DDPMScheduler extends AlphaScheduler<ConfigOf<typeof FIELDS>> {
  static override readonly className = 'DDPMScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { ddpm: {} };

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    this.checkPredictionType(['epsilon', 'sample', 'v_prediction']);
    const steps = this.checkSteps(numInferenceSteps, options, ['timesteps']);
    if (options.timesteps) {
      this.checkDescending(options.timesteps);
    } else {
      this.checkNotAbove(steps, this.length);
    }
    this.resetLoop();
    this.numInferenceSteps = steps;
    this.timesteps = options.timesteps?.map(Math.trunc) ?? integerTimesteps(this.config, steps);
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, options: StepOptions = {}): SchedulerOutput {
    const channels = sample.shape.at(-1)!;
    const learned = this.config.variance_type.startsWith('learned');
    const splits = learned && modelOutput.shape.at(-1) === 2 * channels;
    this.checkStep(modelOutput, timestep, sample, learned ? 2 : 1);
    const alpha = this.alphaAt(timestep);
    const alphaPrevious = this.alphaBefore(timestep);
    const beta = 1 - alpha;
    const currentAlpha = alpha / alphaPrevious;
    const currentBeta = 1 - currentAlpha;
    return tf.tidy(() => {
      const [output, predicted] = splits
        ? (tf.split(modelOutput, 2, -1) as [tf.Tensor, tf.Tensor])
        : [modelOutput, undefined];
      const predOriginalSample = this.thresholdOrClip(this.predictOriginal(output, sample, alpha));
      // equation 7
      const originalShare = (Math.sqrt(alphaPrevious) * currentBeta) / beta;
      const sampleShare = (Math.sqrt(currentAlpha) * (1 - alphaPrevious)) / beta;
      let prevSample = combine([originalShare, predOriginalSample], [sampleShare, sample]);
      if (timestep > 0) {
        const variance = Math.max(((1 - alphaPrevious) / beta) * currentBeta, 1e-20);
        const deviation = this.deviation(variance, currentBeta, predicted);
        prevSample = tf.add(prevSample, tf.mul(deviation, this.noiseLike(output, options)));
      }
      return { prevSample, predOriginalSample };
    });
  }

  protected override get needsTimesteps(): boolean {
    return false;
  }

  private alphaBefore(timestep: number): number {
    const index = this.timesteps.indexOf(timestep);
    if (index === -1) {
      return this.previousAlphaAt(this.timesteps[this.indexForTimestep(timestep)]!);
    }
    return this.previousAlphaAt(this.timesteps[index + 1] ?? -1);
  }

  /** Standard deviation of a step's noise, a number or, when the model predicts it, a tensor (`_get_variance`). */
  private deviation(variance: number, currentBeta: number, predicted: tf.Tensor | undefined): number | tf.Tensor {
    switch (this.config.variance_type) {
      case 'fixed_small':
      case 'fixed_small_log':
        return Math.sqrt(variance);
      case 'fixed_large':
        return Math.sqrt(currentBeta);
      case 'fixed_large_log':
        return Math.sqrt(Math.log(currentBeta));
      case 'learned':
        return tf.sqrt(predicted!);
      default: {
        const share = tf.div(tf.add(predicted!, 1), 2);
        const logVariance = tf.add(tf.mul(share, Math.log(currentBeta)), tf.mul(tf.sub(1, share), Math.log(variance)));
        return tf.exp(tf.mul(0.5, logVariance));
      }
    }
  }
}

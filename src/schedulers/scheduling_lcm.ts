import * as tf from '@tensorflow/tfjs-core';
import { noiseShare } from './common/alpha_scheduler.js';
import { CONSISTENCY_FIELDS, ConsistencyScheduler } from './common/consistency_scheduler.js';
import { combine, type SchedulerOutput, type StepOptions } from './common/scheduling_utils.js';

/** Half the standard deviation of the data, squared (section 4.1 of the paper). */
const SIGMA_DATA_SQUARED = 0.25;

/**
 * Multistep sampling of latent consistency models (https://arxiv.org/abs/2310.04378;
 * diffusers/schedulers/scheduling_lcm.py). `setTimesteps` takes `timesteps`, `originalInferenceSteps` and `strength`;
 * `step` takes `generator`.
 */
export class LCMScheduler extends ConsistencyScheduler {
  static override readonly className = 'LCMScheduler';
  static override readonly fields = CONSISTENCY_FIELDS;
  static override readonly shortNames = { lcm: {} };

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    const index = this.beginStep(timestep);
    const alpha = this.alphaAt(timestep);
    const alphaPrevious = this.previousAlphaAt(this.timesteps[index + 1] ?? timestep);
    const output = tf.tidy(() => {
      const { skip, out } = this.boundaryScalings(timestep);
      const original = this.thresholdOrClip(this.predictOriginal(modelOutput, sample, alpha));
      const denoised = combine([out, original], [skip, sample]);
      if (index === this.numInferenceSteps! - 1) {
        return { prevSample: tf.clone(denoised), denoised };
      }
      const noise = this.noiseLike(modelOutput, options);
      return {
        prevSample: combine([Math.sqrt(alphaPrevious), denoised], [noiseShare(alphaPrevious), noise]),
        denoised,
      };
    });
    this.endStep();
    return output;
  }

  /** Shares of the sample and of the prediction, which make the function the identity at timestep 0. */
  private boundaryScalings(timestep: number): { skip: number; out: number } {
    const scaled = timestep * this.config.timestep_scaling;
    const sum = scaled ** 2 + SIGMA_DATA_SQUARED;
    return { skip: SIGMA_DATA_SQUARED / sum, out: scaled / Math.sqrt(sum) };
  }
}

import * as tf from '@tensorflow/tfjs-core';
import { CONSISTENCY_FIELDS, ConsistencyScheduler } from './common/consistency_scheduler.js';
import { f32, sqrt32 } from './common/numeric.js';
import type { OptionsOf } from './common/scheduler_config.js';
import type { SchedulerOutput, StepOptions } from './common/scheduling_utils.js';

/** Half the standard deviation of the data, squared (section 4.1 of the paper). */
const SIGMA_DATA_SQUARED = 0.25;

/**
 * Multistep sampling of latent consistency models (https://arxiv.org/abs/2310.04378;
 * diffusers/schedulers/scheduling_lcm.py). `setTimesteps` takes `timesteps`, `originalInferenceSteps` and `strength`;
 * `step` takes `generator`.
 */
export class LCMScheduler extends ConsistencyScheduler {
  static override readonly className: string = 'LCMScheduler';
  static override readonly fields = CONSISTENCY_FIELDS;
  static override readonly shortNames = { lcm: {} };

  constructor(options: OptionsOf<typeof CONSISTENCY_FIELDS> = {}) {
    super(options);
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    const index = this.beginStep(timestep);
    const alpha = this.alphaAt(timestep);
    const alphaPrevious = this.previousAlphaAt(this.timesteps[index + 1] ?? timestep);
    const output = tf.tidy(() => {
      const { skip, out } = this.boundaryScalings(timestep);
      const original = this.restrain(this.predictOriginal(modelOutput, sample, alpha));
      const denoised = tf.add(tf.mul(out, original), tf.mul(skip, sample)) as tf.Tensor;
      if (index === this.numInferenceSteps! - 1) {
        return { prevSample: tf.clone(denoised), denoised };
      }
      const noise = tf.mul(sqrt32(f32(1 - alphaPrevious)), this.noiseLike(modelOutput, options));
      return { prevSample: tf.add(tf.mul(sqrt32(alphaPrevious), denoised), noise) as tf.Tensor, denoised };
    });
    this.endStep();
    return output;
  }

  /** Shares of the sample and of the prediction, which make the function the identity at timestep 0. */
  private boundaryScalings(timestep: number): { skip: number; out: number } {
    const scaled = f32(timestep * this.config.timestep_scaling);
    const sum = f32(f32(scaled * scaled) + SIGMA_DATA_SQUARED);
    return { skip: f32(SIGMA_DATA_SQUARED / sum), out: f32(scaled / sqrt32(sum)) };
  }
}

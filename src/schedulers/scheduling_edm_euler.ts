import * as tf from '@tensorflow/tfjs-core';
import type { ConfigOf } from '../config/fields.js';
import { EDM_FIELDS, EDMScheduler } from './common/edm_scheduler.js';
import type { SchedulerOutput, StepOptions } from './common/scheduling_utils.js';

/**
 * Euler's method in the formulation of Karras et al. (https://arxiv.org/abs/2206.00364, Algorithm 2 without its
 * correction; diffusers/schedulers/scheduling_edm_euler.py). `step` takes `sChurn`, `sTmin`, `sTmax`, `sNoise` and
 * `generator`.
 */
export class EDMEulerScheduler extends EDMScheduler<ConfigOf<typeof EDM_FIELDS>> {
  static override readonly className = 'EDMEulerScheduler';
  static override readonly fields = EDM_FIELDS;
  static override readonly shortNames = { edm_euler: {} };

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    const index = this.beginStep(timestep);
    const sigma = this.sigmas[index]!;
    const sigmaHat = this.churnedSigma(sigma, this.sigmas.length - 1, options);
    const output = tf.tidy(() => {
      const noisy = this.addChurn(sample, sigma, sigmaHat, options);
      const predOriginalSample = this.predictOriginal(modelOutput, noisy, sigmaHat);
      const derivative = tf.div(tf.sub(noisy, predOriginalSample), sigmaHat);
      const prevSample = tf.add(noisy, tf.mul(derivative, this.sigmas[index + 1]! - sigmaHat));
      return { prevSample, predOriginalSample };
    });
    this.endStep();
    return output;
  }
}

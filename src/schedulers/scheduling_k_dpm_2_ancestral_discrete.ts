import * as tf from '@tensorflow/tfjs-core';
import { ancestralStep, midpoint } from './common/schedule.js';
import type { StepOptions } from './common/scheduling_utils.js';
import { KDPM2Scheduler } from './scheduling_k_dpm_2_discrete.js';

/**
 * DPM2 with noise added back after each step (k-diffusion's `sample_dpm_2_ancestral`;
 * diffusers/schedulers/scheduling_k_dpm_2_ancestral_discrete.py). `step` takes `generator`.
 */
export class KDPM2AncestralDiscreteScheduler extends KDPM2Scheduler {
  static override readonly className = 'KDPM2AncestralDiscreteScheduler';
  static override readonly shortNames = {
    dpm2_a: {},
    dpm2_ancestral: {},
    kdpm2_ancestral: {},
    dpm2_a_karras: { use_karras_sigmas: true },
  };

  protected midpointOf(sigma: number, next: number): number {
    return midpoint(sigma, ancestralStep(sigma, next).down);
  }

  protected finish(
    { sigma, next }: { sigma: number; next: number },
    start: tf.Tensor,
    derivative: tf.Tensor,
    options: StepOptions,
  ): tf.Tensor {
    const { up, down } = ancestralStep(sigma, next);
    const moved = tf.add(start, tf.mul(derivative, down - sigma));
    return tf.add(moved, tf.mul(this.noiseLike(start, options), up));
  }
}

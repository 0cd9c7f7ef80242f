import * as tf from '@tensorflow/tfjs-core';
import { KDPM2_FIELDS, KDPM2Base, middleOf } from './common/kdpm2_scheduler.js';
import { f32 } from './common/numeric.js';
import type { OptionsOf } from './common/scheduler_config.js';

/**
 * DPM2 (k-diffusion's `sample_dpm_2`; diffusers/schedulers/scheduling_k_dpm_2_discrete.py): two model calls per step.
 */
export class KDPM2DiscreteScheduler extends KDPM2Base {
  static override readonly className: string = 'KDPM2DiscreteScheduler';
  static override readonly fields = KDPM2_FIELDS;
  static override readonly shortNames = { dpm2: {}, kdpm2: {}, dpm2_karras: { use_karras_sigmas: true } };

  constructor(options: OptionsOf<typeof KDPM2_FIELDS> = {}) {
    super(options);
  }

  protected middlesOf(levels: readonly number[]): number[] {
    return levels.slice(0, -2).map((level, i) => middleOf(levels[i + 1]!, level));
  }

  protected finish(step: number, start: tf.Tensor, derivative: tf.Tensor): tf.Tensor {
    return tf.add(start, tf.mul(derivative, f32(this.levels[step + 1]! - this.levels[step]!)));
  }
}

import * as tf from '@tensorflow/tfjs-core';
import { ancestralSplit } from './common/ancestral.js';
import { KDPM2_FIELDS, KDPM2Base, middleOf } from './common/kdpm2_scheduler.js';
import { f32 } from './common/numeric.js';
import type { OptionsOf } from './common/scheduler_config.js';
import type { StepOptions } from './common/scheduling_utils.js';

/**
 * DPM2 with noise added back after each step (k-diffusion's `sample_dpm_2_ancestral`;
 * diffusers/schedulers/scheduling_k_dpm_2_ancestral_discrete.py). `step` takes `generator`.
 */
export class KDPM2AncestralDiscreteScheduler extends KDPM2Base {
  static override readonly className: string = 'KDPM2AncestralDiscreteScheduler';
  static override readonly fields = KDPM2_FIELDS;
  static override readonly shortNames = {
    dpm2_a: {},
    dpm2_ancestral: {},
    kdpm2_ancestral: {},
    dpm2_a_karras: { use_karras_sigmas: true },
  };

  constructor(options: OptionsOf<typeof KDPM2_FIELDS> = {}) {
    super(options);
  }

  protected middlesOf(levels: readonly number[]): number[] {
    return levels.slice(0, -2).map((level, i) => middleOf(level, ancestralSplit(level, levels[i + 1]!).down));
  }

  protected finish(step: number, start: tf.Tensor, derivative: tf.Tensor, options: StepOptions): tf.Tensor {
    const { up, down } = ancestralSplit(this.levels[step]!, this.levels[step + 1]!);
    const moved = tf.add(start, tf.mul(derivative, f32(down - this.levels[step]!)));
    return tf.add(moved, tf.mul(this.noiseLike(start, options), up));
  }
}

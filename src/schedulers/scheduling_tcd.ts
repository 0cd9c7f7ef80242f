import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../errors.js';
import { CONSISTENCY_FIELDS, ConsistencyScheduler } from './common/consistency_scheduler.js';
import { f32, sqrt32 } from './common/numeric.js';
import type { OptionsOf } from './common/scheduler_config.js';
import type { SchedulerOutput, SetTimestepsOptions, StepOptions } from './common/scheduling_utils.js';

/**
 * Strategic stochastic sampling of trajectory consistency models (https://arxiv.org/abs/2402.19159;
 * diffusers/schedulers/scheduling_tcd.py). `setTimesteps` takes `timesteps`, `originalInferenceSteps` and `strength`;
 * `step` takes `eta` (0.3) and `generator`.
 */
export class TCDScheduler extends ConsistencyScheduler {
  static override readonly className: string = 'TCDScheduler';
  static override readonly fields = CONSISTENCY_FIELDS;
  static override readonly shortNames = { tcd: {} };

  constructor(options: OptionsOf<typeof CONSISTENCY_FIELDS> = {}) {
    super(options);
  }

  /** All training steps when the caller names the distillation's number itself, as in diffusers. */
  protected override distilled(original: number, strength: number, options: SetTimestepsOptions): number[] {
    if (options.originalInferenceSteps == null) {
      return super.distilled(original, strength, options);
    }
    return Array.from({ length: Math.trunc(this.length * strength) }, (_, i) => i);
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    const { eta = 0.3 } = options;
    if (!(eta >= 0 && eta <= 1)) {
      throw new InvalidArgumentError(`[TCDScheduler.step] eta expects a number from 0 to 1, got ${eta}`);
    }
    const index = this.beginStep(timestep);
    const previous = this.timesteps[index + 1] ?? 0;
    const alpha = this.alphaAt(timestep);
    const alphaPrevious = this.previousAlphaAt(previous);
    const alphaNoised = this.alphaAt(Math.floor(f32(f32(1 - eta) * previous)));
    const output = tf.tidy(() => {
      const original = this.predictOriginal(modelOutput, sample, alpha);
      const epsilon = this.predictEpsilon(modelOutput, sample, alpha);
      const predNoisedSample = tf.add(
        tf.mul(sqrt32(alphaNoised), original),
        tf.mul(sqrt32(f32(1 - alphaNoised)), epsilon),
      ) as tf.Tensor;
      if (eta === 0 || index === this.numInferenceSteps! - 1) {
        return { prevSample: tf.clone(predNoisedSample), predNoisedSample };
      }
      const kept = f32(alphaPrevious / alphaNoised);
      const noise = tf.mul(sqrt32(f32(1 - kept)), this.noiseLike(modelOutput, options));
      return { prevSample: tf.add(tf.mul(sqrt32(kept), predNoisedSample), noise) as tf.Tensor, predNoisedSample };
    });
    this.endStep();
    return output;
  }
}

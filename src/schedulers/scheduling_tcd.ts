import * as tf from '@tensorflow/tfjs-core';
import { expectThat, is } from '../utils/check.js';
import { noiseShare } from './common/alpha_scheduler.js';
import { CONSISTENCY_FIELDS, ConsistencyScheduler } from './common/consistency_scheduler.js';
import { f32 } from './common/numeric.js';
import {
  combine,
  type SchedulerOutput,
  type SetTimestepsOptions,
  type StepOptions,
} from './common/scheduling_utils.js';

/**
 * Strategic stochastic sampling of trajectory consistency models (https://arxiv.org/abs/2402.19159;
 * diffusers/schedulers/scheduling_tcd.py). `setTimesteps` takes `timesteps`, `originalInferenceSteps` and `strength`;
 * `step` takes `eta` (0.3) and `generator`.
 */
export class TCDScheduler extends ConsistencyScheduler {
  static override readonly className = 'TCDScheduler';
  static override readonly fields = CONSISTENCY_FIELDS;
  static override readonly shortNames = { tcd: {} };

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
    expectThat(is.share(eta), 'TCDScheduler.step', 'eta', 'a number from 0 to 1', eta);
    const index = this.beginStep(timestep);
    const previous = this.timesteps[index + 1] ?? 0;
    const alpha = this.alphaAt(timestep);
    const alphaPrevious = this.previousAlphaAt(previous);
    // s = floor((1 - gamma) t) in float32: 0.1 * 10 is a little less than 1 in float64, and the step below would be taken
    const alphaNoised = this.alphaAt(Math.floor(f32((1 - eta) * previous)));
    const output = tf.tidy(() => {
      const original = this.predictOriginal(modelOutput, sample, alpha);
      const epsilon = this.predictEpsilon(modelOutput, sample, alpha);
      const predNoisedSample = combine([Math.sqrt(alphaNoised), original], [noiseShare(alphaNoised), epsilon]);
      if (eta === 0 || index === this.numInferenceSteps! - 1) {
        return { prevSample: tf.clone(predNoisedSample), predNoisedSample };
      }
      const kept = alphaPrevious / alphaNoised;
      const noise = this.noiseLike(modelOutput, options);
      return { prevSample: combine([Math.sqrt(kept), predNoisedSample], [noiseShare(kept), noise]), predNoisedSample };
    });
    this.endStep();
    return output;
  }
}

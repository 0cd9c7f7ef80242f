import * as tf from '@tensorflow/tfjs-core';
import { type ConfigOf, list, number, type OptionsOf, optional } from '../config/fields.js';
import { MAX_STEPS, trainingSteps } from './common/config.js';
import { f32, linspace } from './common/numeric.js';
import {
  asList,
  combine,
  mixPerItem,
  SchedulerMixin,
  type SchedulerOutput,
  type SetTimestepsOptions,
  type StepOptions,
} from './common/scheduling_utils.js';
import { adamsBashforth } from './scheduling_pndm.js';

const FIELDS = {
  num_train_timesteps: trainingSteps,
  trained_betas: optional(list(number(0), [], MAX_STEPS, 2)),
};

/**
 * Fourth-order improved pseudo linear multistep (https://arxiv.org/abs/2202.09778;
 * diffusers/schedulers/scheduling_ipndm.py), for models that are told the angle of signal and noise, 1 to 0, and give the
 * velocity. With `trained_betas` the schedule is theirs, whatever the number of steps.
 */
export class IPNDMScheduler extends SchedulerMixin<ConfigOf<typeof FIELDS>> {
  static override readonly className = 'IPNDMScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { ipndm: {} };
  static override readonly compatibles: readonly string[] = [];

  /** Shares of noise and of signal, one more than steps. */
  private betas: number[] = [];
  private alphas: number[] = [];
  private outputs: tf.Tensor[] = [];

  constructor(options?: OptionsOf<ConfigOf<typeof FIELDS>>) {
    super(options);
    this.buildSchedule(this.length);
  }

  get initNoiseSigma(): number {
    return 1;
  }

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    const steps = this.checkSteps(numInferenceSteps, options);
    this.resetLoop();
    this.numInferenceSteps = steps;
    this.buildSchedule(steps);
  }

  private buildSchedule(steps: number): void {
    const ramp = linspace(1, 0, steps + 1);
    this.betas = [...(this.config.trained_betas ?? ramp.map((t) => Math.sin((t * Math.PI) / 2) ** 2))];
    this.alphas = this.betas.map((beta) => Math.sqrt(1 - beta ** 2));
    const angles = this.betas.map((beta, i) => f32((Math.atan2(beta, this.alphas[i]!) / Math.PI) * 2));
    this.timesteps = angles.slice(0, -1);
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, _options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    const index = this.beginStep(timestep);
    const [alpha, beta] = [this.alphas[index]!, this.betas[index]!];
    const [nextAlpha, nextBeta] = [this.alphas[index + 1]!, this.betas[index + 1]!];
    const prevSample = tf.tidy(() => {
      this.outputs.push(this.retain(combine([beta, sample], [alpha, modelOutput])));
      if (this.outputs.length > 4) {
        this.release(this.outputs.shift());
      }
      const noise = adamsBashforth(this.outputs);
      const original = tf.div(tf.sub(sample, tf.mul(beta, noise)), Math.max(alpha, 1e-8));
      return combine([nextAlpha, original], [nextBeta, noise]);
    });
    this.endStep();
    return { prevSample };
  }

  override dispose(): void {
    super.dispose();
    this.outputs = [];
  }

  /** alpha original + beta noise */
  addNoise(original: tf.Tensor, noise: tf.Tensor, timesteps: number | ArrayLike<number>): tf.Tensor {
    const indices = asList(timesteps).map((t) => this.noiseIndex(t));
    const [alphas, betas] = [indices.map((i) => this.alphas[i]!), indices.map((i) => this.betas[i]!)];
    return mixPerItem(alphas, original, betas, noise);
  }
}

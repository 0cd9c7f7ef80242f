import * as tf from '@tensorflow/tfjs-core';
import { type ConfigOf, flag } from '../config/fields.js';
import { InvalidArgumentError } from '../errors.js';
import { AlphaScheduler } from './common/alpha_scheduler.js';
import { NOISE_SCHEDULE_FIELDS, spacingFields } from './common/config.js';
import { f32 } from './common/numeric.js';
import { integerTimesteps } from './common/schedule.js';
import {
  combine,
  type SchedulerOutput,
  type SetTimestepsOptions,
  type StepOptions,
} from './common/scheduling_utils.js';

const FIELDS = {
  ...NOISE_SCHEDULE_FIELDS,
  ...spacingFields('leading'),
  skip_prk_steps: flag(false),
  set_alpha_to_one: flag(false),
};

/**
 * Pseudo numerical methods for diffusion models (https://arxiv.org/abs/2202.09778;
 * diffusers/schedulers/scheduling_pndm.py): linear multistep, started by Runge-Kutta steps unless `skip_prk_steps`.
 * A timestep occurs twice in the schedule, so steps are counted and not looked up.
 */
export class PNDMScheduler extends AlphaScheduler<ConfigOf<typeof FIELDS>> {
  static override readonly className = 'PNDMScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { pndm: {}, plms: { skip_prk_steps: true } };

  private prkTimesteps: number[] = [];
  private counter = 0;
  private outputs: tf.Tensor[] = [];
  private mixedOutput: tf.Tensor | null = null;
  private startSample: tf.Tensor | null = null;

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    this.checkPredictionType(['epsilon', 'v_prediction']);
    const steps = this.checkSteps(numInferenceSteps, options);
    const { skip_prk_steps, num_train_timesteps } = this.config;
    const ascending = integerTimesteps(this.config, steps).reverse();
    if (!skip_prk_steps && ascending.length < 4) {
      throw new InvalidArgumentError(
        `[PNDMScheduler.setTimesteps] its Runge-Kutta start expects at least 4 inference steps, got ${steps}; ` +
          'set skip_prk_steps for fewer',
      );
    }
    this.resetLoop();
    this.numInferenceSteps = steps;
    if (skip_prk_steps) {
      this.prkTimesteps = [];
      this.timesteps = [...ascending.slice(0, -1), ...ascending.slice(-2, -1), ...ascending.slice(-1)].reverse();
      return;
    }
    const half = Math.floor(Math.floor(num_train_timesteps / steps) / 2);
    const pairs = ascending.slice(-4).flatMap((t) => [t, t + half]);
    this.prkTimesteps = pairs
      .slice(0, -1)
      .flatMap((t) => [t, t])
      .slice(1, -1)
      .reverse();
    this.timesteps = [...this.prkTimesteps, ...ascending.slice(0, -3).reverse()];
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, _options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    this.checkScheduled(timestep);
    const prevSample = tf.tidy(() =>
      this.counter < this.prkTimesteps.length
        ? this.stepPrk(modelOutput, timestep, sample)
        : this.stepPlms(modelOutput, timestep, sample),
    );
    this.counter += 1;
    if (this.counter >= this.timesteps.length) {
      this.dispose();
    }
    return { prevSample };
  }

  override dispose(): void {
    super.dispose();
    this.outputs = [];
    this.mixedOutput = null;
    this.startSample = null;
  }

  protected override resetLoop(): void {
    super.resetLoop();
    this.counter = 0;
  }

  /** One of the four model calls of a Runge-Kutta step (`step_prk`). */
  private stepPrk(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor): tf.Tensor {
    const half = Math.floor(Math.floor(this.config.num_train_timesteps / this.numInferenceSteps!) / 2);
    const previous = timestep - (this.counter % 2 ? 0 : half);
    const start = this.prkTimesteps[Math.floor(this.counter / 4) * 4]!;
    const phase = this.counter % 4;
    const weighted = tf.mul(phase === 0 || phase === 3 ? 1 / 6 : 1 / 3, modelOutput);
    const mixed = this.mixedOutput ? tf.add(this.mixedOutput, weighted) : weighted;
    this.release(this.mixedOutput);
    this.mixedOutput = phase === 3 ? null : this.retain(mixed);
    if (phase === 0) {
      this.outputs.push(this.retain(modelOutput));
      this.setStartSample(sample);
    }
    return this.previousSample(this.startSample!, start, previous, phase === 3 ? mixed : modelOutput);
  }

  /** A step of the linear multistep method (`step_plms`). */
  private stepPlms(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor): tf.Tensor {
    const ratio = Math.floor(this.config.num_train_timesteps / this.numInferenceSteps!);
    if (this.counter === 1) {
      const averaged = tf.div(tf.add(modelOutput, this.outputs.at(-1)!), 2);
      const moved = this.previousSample(this.startSample!, timestep + ratio, timestep, averaged);
      this.setStartSample(null);
      return moved;
    }
    while (this.outputs.length > 3) {
      this.release(this.outputs.shift());
    }
    this.outputs.push(this.retain(modelOutput));
    if (this.counter === 0) {
      this.setStartSample(sample);
    }
    return this.previousSample(sample, timestep, timestep - ratio, adamsBashforth(this.outputs));
  }

  /**
   * Equation (9) (`_get_prev_sample`), with a for alpha at t and b at the step before:
   * x_b = sqrt(b / a) x - (b - a) eps / (a sqrt(1 - b) + sqrt(a (1 - a) b))
   * Rounded as torch rounds: with squaredcos_cap_v2 the first a is 2e-9, and both terms are large and nearly cancel.
   */
  private previousSample(sample: tf.Tensor, timestep: number, previous: number, output: tf.Tensor): tf.Tensor {
    const a = this.alphaAt(timestep);
    const b = this.previousAlphaAt(previous);
    const denominator = f32(f32(a * f32(Math.sqrt(f32(1 - b)))) + f32(Math.sqrt(f32(f32(a * f32(1 - a)) * b))));
    const epsilon = tf.mul(f32(b - a), this.predictEpsilon(output, sample, a));
    return tf.sub(tf.mul(f32(Math.sqrt(f32(b / a))), sample), tf.div(epsilon, denominator));
  }

  private setStartSample(sample: tf.Tensor | null): void {
    this.release(this.startSample);
    this.startSample = sample && this.retain(sample);
  }
}

/** Linear multistep of Adams and Bashforth over the newest of 1 to 4 outputs (equation 12 and its lower orders). */
export function adamsBashforth(outputs: readonly tf.Tensor[]): tf.Tensor {
  const weights = ADAMS_BASHFORTH[Math.min(outputs.length, 4) - 1]!;
  return combine(...weights.map((weight, i) => [weight, outputs.at(-1 - i)] as const));
}

const ADAMS_BASHFORTH = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]];

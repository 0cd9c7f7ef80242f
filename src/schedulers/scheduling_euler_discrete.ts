import * as tf from '@tensorflow/tfjs-core';
import { type ConfigOf, choice, flag, number, type OptionsOf, optional } from '../config/fields.js';
import { InvalidArgumentError } from '../errors.js';
import { velocity } from './common/alpha_scheduler.js';
import { finalSigmas, NOISE_SCHEDULE_FIELDS, SIGMA_CONVERSION_FIELDS, spacingFields } from './common/config.js';
import { f32, interpolate, linspace, torchLinspace32 } from './common/numeric.js';
import { fractionalTimesteps } from './common/schedule.js';
import { asList, type SchedulerOutput, type SetTimestepsOptions, type StepOptions } from './common/scheduling_utils.js';
import { SigmaScheduler } from './common/sigma_scheduler.js';

const FIELDS = {
  ...NOISE_SCHEDULE_FIELDS,
  ...SIGMA_CONVERSION_FIELDS,
  ...spacingFields('linspace'),
  interpolation_type: choice('linear', ['linear', 'log_linear']),
  sigma_min: optional(number(0)),
  sigma_max: optional(number(0)),
  timestep_type: choice('discrete', ['discrete', 'continuous']),
  rescale_betas_zero_snr: flag(false),
  final_sigmas_type: finalSigmas,
};

/**
 * Euler's method on the probability flow (https://arxiv.org/abs/2206.00364, Algorithm 2;
 * diffusers/schedulers/scheduling_euler_discrete.py).
 * `setTimesteps` takes `timesteps` or `sigmas` (with the final one); `step` takes `sChurn`, `sTmin`, `sTmax`, `sNoise`
 * and `generator`.
 */
export class EulerDiscreteScheduler extends SigmaScheduler<ConfigOf<typeof FIELDS>> {
  static override readonly className = 'EulerDiscreteScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { euler: {}, euler_karras: { use_karras_sigmas: true } };

  constructor(options?: OptionsOf<ConfigOf<typeof FIELDS>>) {
    super(options);
    const sigmas = this.trainingSigmas().reverse();
    this.sigmas = Float32Array.from([...sigmas, 0]);
    const trained = this.config.num_train_timesteps;
    this.timesteps = this.isContinuous
      ? sigmas.map(quarterLog)
      : linspace(0, trained - 1, trained)
          .map(f32)
          .reverse();
  }

  /** Whether the model is told the noise level itself instead of a training step. */
  private get isContinuous(): boolean {
    return this.config.timestep_type === 'continuous' && this.config.prediction_type === 'v_prediction';
  }

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    this.checkPredictionType(['epsilon', 'sample', 'v_prediction', 'original_sample']);
    const count = this.checkSteps(numInferenceSteps, options, ['timesteps', 'sigmas']);
    const steps = options.sigmas ? count - 1 : count;
    this.checkCustom(options, steps);
    const { sigmas, timesteps } = options.sigmas
      ? this.customSchedule(options.sigmas)
      : this.schedule(steps, options.timesteps);
    this.resetLoop();
    this.numInferenceSteps = steps;
    this.sigmas = Float32Array.from(sigmas);
    this.timesteps = this.isContinuous ? [...this.sigmas.slice(0, -1)].map(quarterLog) : timesteps.map(f32);
  }

  private checkCustom(options: SetTimestepsOptions, steps: number): void {
    const { use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas } = this.config;
    if (options.timesteps && (use_karras_sigmas || use_exponential_sigmas || use_beta_sigmas || this.isContinuous)) {
      throw new InvalidArgumentError(
        '[EulerDiscreteScheduler.setTimesteps] takes no timesteps with karras, exponential or beta sigmas or ' +
          'continuous timesteps; pass the number of inference steps',
      );
    }
    if (steps < 1) {
      throw new InvalidArgumentError(
        '[EulerDiscreteScheduler.setTimesteps] sigmas expects at least two noise levels, the last one final, got 1',
      );
    }
  }

  private customSchedule(given: readonly number[]): { sigmas: number[]; timesteps: number[] } {
    const sigmas = Array.from(given, f32);
    return { sigmas, timesteps: this.timestepsOf(sigmas.slice(0, -1)) };
  }

  private schedule(steps: number, custom?: readonly number[]): { sigmas: number[]; timesteps: readonly number[] } {
    const spaced = custom ? Array.from(custom, f32) : fractionalTimesteps(this.config, steps);
    const trained = this.trainingSigmas();
    const levels =
      this.config.interpolation_type === 'linear'
        ? spaced.map((t) => interpolate(t, trained))
        : torchLinspace32(Math.log(trained.at(-1)!), Math.log(trained[0]!), steps + 1).map(Math.exp);
    const { sigmas, timesteps } = this.convert(levels, spaced, steps);
    const last = this.config.final_sigmas_type === 'sigma_min' ? trained[0]! : 0;
    return { sigmas: [...sigmas, last], timesteps };
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    const index = this.beginStep(timestep);
    const sigma = this.sigmas[index]!;
    const sigmaHat = this.churnedSigma(sigma, this.sigmas.length - 1, options);
    const output = tf.tidy(() => {
      const noisy = this.addChurn(sample, sigma, sigmaHat, options);
      const predOriginalSample =
        this.config.prediction_type === 'v_prediction'
          ? this.velocityToOriginal(modelOutput, noisy, sigma)
          : this.predictOriginal(modelOutput, noisy, sigmaHat);
      const derivative = tf.div(tf.sub(noisy, predOriginalSample), sigmaHat);
      const prevSample = tf.add(noisy, tf.mul(derivative, this.sigmas[index + 1]! - sigmaHat));
      return { prevSample, predOriginalSample };
    });
    this.endStep();
    return output;
  }

  /** The velocity that a v_prediction model is trained to give; timesteps are entries of the schedule. */
  getVelocity(sample: tf.Tensor, noise: tf.Tensor, timesteps: number | ArrayLike<number>): tf.Tensor {
    const alphas = asList(timesteps).map((t) => this.alphasCumprod[this.indexForTimestep(t)]!);
    return velocity(alphas, sample, noise);
  }
}

function quarterLog(sigma: number): number {
  return f32(0.25 * Math.log(sigma));
}

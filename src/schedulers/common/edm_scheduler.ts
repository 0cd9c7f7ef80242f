import * as tf from '@tensorflow/tfjs-core';
import { choice, number, type OptionsOf } from '../../config/fields.js';
import { finalSigmas, PREDICTION_TYPES, type PredictionType, trainingSteps } from './config.js';
import { f32 } from './numeric.js';
import { exponentialSigmas, karrasSigmas } from './schedule.js';
import { asList, combine, perItem, SchedulerMixin, type SetTimestepsOptions } from './scheduling_utils.js';

const positive = { min: 1e-9, max: 1e9 };

/** Configuration entries of the schedulers in the formulation of Karras et al. */
export const EDM_FIELDS = {
  sigma_min: number(0.002, positive),
  sigma_max: number(80, positive),
  sigma_data: number(0.5, positive),
  sigma_schedule: choice('karras', ['karras', 'exponential']),
  num_train_timesteps: trainingSteps,
  prediction_type: choice('epsilon', PREDICTION_TYPES),
  rho: number(7, positive),
  final_sigmas_type: finalSigmas,
};

export interface EDMConfig {
  readonly sigma_min: number;
  readonly sigma_max: number;
  readonly sigma_data: number;
  readonly sigma_schedule: 'karras' | 'exponential';
  readonly num_train_timesteps: number;
  readonly prediction_type: PredictionType;
  readonly rho: number;
  readonly final_sigmas_type: 'zero' | 'sigma_min';
}

/**
 * Schedulers whose model is preconditioned as in Karras et al. (https://arxiv.org/abs/2206.00364, table 1, "EDM"):
 * it sees c_in x and the timestep c_noise, and its output F means the clean sample c_skip x + c_out F.
 */
export abstract class EDMScheduler<C extends EDMConfig> extends SchedulerMixin<C> {
  static override readonly compatibles: readonly string[] = [];

  /** Noise levels of the schedule, one more than steps; float32. */
  sigmas = new Float32Array();

  constructor(options?: OptionsOf<C>) {
    super(options);
    this.buildSchedule(this.length);
  }

  get initNoiseSigma(): number {
    return Math.sqrt(this.config.sigma_max ** 2 + 1);
  }

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    this.checkPredictionType(['epsilon', 'v_prediction']);
    const steps = this.checkSteps(numInferenceSteps, options);
    this.resetLoop();
    this.numInferenceSteps = steps;
    this.buildSchedule(steps);
  }

  /** c_in x with c_in = 1 / sqrt(sigma^2 + sigma_data^2) */
  override scaleModelInput(sample: tf.Tensor, timestep?: number): tf.Tensor {
    const sigma = this.sigmas[this.beginStep(timestep ?? Number.NaN)]!;
    return tf.div(sample, Math.hypot(sigma, this.config.sigma_data));
  }

  addNoise(original: tf.Tensor, noise: tf.Tensor, timesteps: number | ArrayLike<number>): tf.Tensor {
    const sigmas = asList(timesteps).map((t) => this.sigmas[this.noiseIndex(t)]!);
    return tf.tidy(() => tf.add(original, tf.mul(noise, perItem(sigmas, original))));
  }

  private buildSchedule(steps: number): void {
    const { sigma_min, sigma_max, sigma_schedule, rho } = this.config;
    const sigmas =
      sigma_schedule === 'karras'
        ? karrasSigmas([sigma_max, sigma_min], steps, {}, rho)
        : // upwards, as diffusers has it: a single step is at the lower end
          exponentialSigmas([sigma_min, sigma_max], steps).reverse();
    this.sigmas = Float32Array.from([...sigmas, this.finalSigma(sigmas.at(-1)!)]);
    // c_noise = log(sigma) / 4
    this.timesteps = [...this.sigmas.subarray(0, -1)].map((sigma) => f32(0.25 * Math.log(sigma)));
  }

  /** The noise level after the last step, which starts at `last`. */
  protected finalSigma(last: number): number {
    return this.config.final_sigmas_type === 'zero' ? 0 : last;
  }

  /**
   * The clean sample c_skip x + c_out F with c_skip = sigma_data^2 / (sigma^2 + sigma_data^2) and
   * c_out = sigma sigma_data / sqrt(sigma^2 + sigma_data^2), negative for velocities.
   */
  protected predictOriginal(modelOutput: tf.Tensor, sample: tf.Tensor, sigma: number): tf.Tensor {
    const data = this.config.sigma_data;
    const sign = this.config.prediction_type === 'epsilon' ? 1 : -1;
    const norm = Math.hypot(sigma, data);
    return combine([(data / norm) ** 2, sample], [(sign * sigma * data) / norm, modelOutput]);
  }
}

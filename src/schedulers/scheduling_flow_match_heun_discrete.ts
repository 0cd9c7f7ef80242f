import * as tf from '@tensorflow/tfjs-core';
import { type ConfigOf, number, type OptionsOf } from '../config/fields.js';
import { trainingSteps } from './common/config.js';
import { f32, linspace } from './common/numeric.js';
import { shiftFlow, twice } from './common/schedule.js';
import {
  asList,
  mixPerItem,
  SchedulerMixin,
  type SchedulerOutput,
  type SetTimestepsOptions,
  type StepOptions,
} from './common/scheduling_utils.js';

const FIELDS = { num_train_timesteps: trainingSteps, shift: number(1) };

/**
 * Heun's method on a rectified flow, two model calls per step (https://arxiv.org/abs/2403.03206;
 * diffusers/schedulers/scheduling_flow_match_heun_discrete.py). `step` takes `sChurn`, `sTmin`, `sTmax`, `sNoise` and
 * `generator`.
 */
export class FlowMatchHeunDiscreteScheduler extends SchedulerMixin<ConfigOf<typeof FIELDS>> {
  static override readonly className = 'FlowMatchHeunDiscreteScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { flow_match_heun: {} };
  static override readonly compatibles: readonly string[] = [];
  override readonly order = 2;

  /** Shares of noise of the schedule; float32. */
  sigmas: Float32Array;
  /** Ends of the whole schedule. */
  readonly sigmaMin: number;
  readonly sigmaMax: number;
  /** First half of a step under way: its derivative, length and starting sample. */
  private half: { derivative: tf.Tensor; dt: number; sample: tf.Tensor } | null = null;

  constructor(options?: OptionsOf<ConfigOf<typeof FIELDS>>) {
    super(options);
    const { num_train_timesteps: trained, shift } = this.config;
    this.sigmas = Float32Array.from(linspace(trained, 1, trained), (t) => shiftFlow(shift, t / trained));
    this.timesteps = this.timestepsOf(this.sigmas);
    this.sigmaMin = this.sigmas.at(-1)!;
    this.sigmaMax = this.sigmas[0]!;
  }

  get initNoiseSigma(): number {
    return 1;
  }

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    const steps = this.checkSteps(numInferenceSteps, options);
    const even = linspace(this.sigmaMax, this.sigmaMin, steps);
    const sigmas = Float32Array.from(even, (sigma) => shiftFlow(this.config.shift, sigma));
    this.resetLoop();
    this.numInferenceSteps = steps;
    this.sigmas = Float32Array.from([...twice([...sigmas]), 0]);
    this.timesteps = twice(this.timestepsOf(sigmas));
  }

  private timestepsOf(sigmas: Float32Array): number[] {
    return Array.from(sigmas, (sigma) => f32(sigma * this.config.num_train_timesteps));
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    const index = this.beginStep(timestep);
    const sigma = this.sigmas[this.half ? index - 1 : index]!;
    const sigmaHat = this.churnedSigma(sigma, this.sigmas.length - 1, options);
    const prevSample = tf.tidy(() => {
      const noisy = this.addChurn(sample, sigma, sigmaHat, options);
      return this.half ? this.secondHalf(modelOutput) : this.firstHalf(modelOutput, noisy, index, sigmaHat);
    });
    this.endStep();
    return { prevSample };
  }

  /** Euler's step with the model's output, which is the flow at sigma; kept for the second half. */
  private firstHalf(flow: tf.Tensor, sample: tf.Tensor, index: number, sigmaHat: number): tf.Tensor {
    const derivative = tf.mul(flow, this.sigmas[index]! / sigmaHat);
    const dt = this.sigmas[index + 1]! - sigmaHat;
    this.half = { derivative: this.retain(derivative), dt, sample: this.retain(sample) };
    return tf.add(sample, tf.mul(derivative, dt));
  }

  /** The step again, with the mean of the flows at both ends. */
  private secondHalf(flow: tf.Tensor): tf.Tensor {
    const { derivative, dt, sample } = this.half!;
    const moved = tf.add(sample, tf.mul(tf.add(derivative, flow), 0.5 * dt)) as tf.Tensor;
    this.release(derivative);
    this.release(sample);
    this.half = null;
    return moved;
  }

  override dispose(): void {
    super.dispose();
    this.half = null;
  }

  /** (1 - sigma) original + sigma noise */
  addNoise(original: tf.Tensor, noise: tf.Tensor, timesteps: number | ArrayLike<number>): tf.Tensor {
    const sigmas = asList(timesteps).map((t) => this.sigmas[this.noiseIndex(t)]!);
    const shares = sigmas.map((sigma) => 1 - sigma);
    return mixPerItem(sigmas, noise, shares, original);
  }

  /** diffusers' name for `addNoise` of flows. */
  scaleNoise(sample: tf.Tensor, timesteps: number | ArrayLike<number>, noise: tf.Tensor): tf.Tensor {
    return this.addNoise(sample, noise, timesteps);
  }
}

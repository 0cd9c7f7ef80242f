import * as tf from '@tensorflow/tfjs-core';
import { type ConfigOf, choice, flag, integer, number, type OptionsOf, optional } from '../config/fields.js';
import { InvalidArgumentError } from '../errors.js';
import { SIGMA_CONVERSION_FIELDS, TIME_SHIFT_TYPES, trainingSteps } from './common/config.js';
import { f32, linspace } from './common/numeric.js';
import { checkConversions, convertSigmas, shiftFlow, stretchToTerminal, timeShift } from './common/schedule.js';
import {
  asList,
  combine,
  mixPerItem,
  SchedulerMixin,
  type SchedulerOutput,
  type SetTimestepsOptions,
  type StepOptions,
} from './common/scheduling_utils.js';

const FIELDS = {
  ...SIGMA_CONVERSION_FIELDS,
  num_train_timesteps: trainingSteps,
  shift: number(1),
  use_dynamic_shifting: flag(false),
  base_shift: optional(number(0), 0.5),
  max_shift: optional(number(0), 1.15),
  base_image_seq_len: integer(256, { min: 1 }),
  max_image_seq_len: integer(4096, { min: 1 }),
  invert_sigmas: flag(false),
  shift_terminal: optional(number(0)),
  time_shift_type: choice('exponential', TIME_SHIFT_TYPES),
  stochastic_sampling: flag(false),
};

/**
 * Euler's method on a rectified flow, x = (1 - sigma) signal + sigma noise (https://arxiv.org/abs/2403.03206;
 * diffusers/schedulers/scheduling_flow_match_euler_discrete.py). `setTimesteps` takes `timesteps`, `sigmas` (both
 * without the final one) and `mu`; `step` takes `generator` (with `stochastic_sampling`).
 */
export class FlowMatchEulerDiscreteScheduler extends SchedulerMixin<ConfigOf<typeof FIELDS>> {
  static override readonly className = 'FlowMatchEulerDiscreteScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { flow_match_euler: {} };
  static override readonly compatibles: readonly string[] = [];

  /** Shares of noise of the schedule, one more than steps; float32. */
  sigmas: Float32Array;
  /** Ends of the whole schedule. */
  readonly sigmaMin: number;
  readonly sigmaMax: number;
  private currentShift: number;

  constructor(options?: OptionsOf<ConfigOf<typeof FIELDS>>) {
    super(options);
    checkConversions(this.className, this.config);
    const { num_train_timesteps: trained, shift, use_dynamic_shifting } = this.config;
    this.currentShift = shift;
    const even = linspace(trained, 1, trained).map((t) => t / trained);
    const sigmas = use_dynamic_shifting ? even : even.map((sigma) => shiftFlow(shift, sigma));
    this.sigmas = Float32Array.from(sigmas);
    this.timesteps = sigmas.map((sigma) => f32(sigma * trained));
    this.sigmaMin = this.sigmas.at(-1)!;
    this.sigmaMax = this.sigmas[0]!;
  }

  get initNoiseSigma(): number {
    return 1;
  }

  get shift(): number {
    return this.currentShift;
  }

  /** Changes the shift of the schedules laid out from now on. */
  setShift(shift: number): void {
    this.currentShift = shift;
  }

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    const steps = this.countOf(numInferenceSteps, options);
    const { use_dynamic_shifting, shift_terminal, time_shift_type, invert_sigmas, num_train_timesteps } = this.config;
    if (use_dynamic_shifting && options.mu == null) {
      throw new InvalidArgumentError(
        '[FlowMatchEulerDiscreteScheduler.setTimesteps] needs mu for use_dynamic_shifting',
      );
    }
    const shift = (sigma: number): number =>
      use_dynamic_shifting ? timeShift(time_shift_type, options.mu!, sigma) : shiftFlow(this.shift, sigma);
    let sigmas: readonly number[] = this.evenSigmas(steps, options).map(shift);
    if (shift_terminal) {
      sigmas = stretchToTerminal(sigmas, shift_terminal);
    }
    sigmas = convertSigmas(this.config, sigmas, steps) ?? sigmas;
    if (invert_sigmas) {
      sigmas = sigmas.map((sigma) => 1 - sigma);
    }
    this.resetLoop();
    this.numInferenceSteps = steps;
    this.sigmas = Float32Array.from([...sigmas, invert_sigmas ? 1 : 0]);
    this.timesteps = [...this.sigmas.subarray(0, -1)].map((sigma) => f32(sigma * num_train_timesteps));
  }

  private countOf(numInferenceSteps: number | null | undefined, options: SetTimestepsOptions): number {
    const { sigmas, timesteps } = options;
    this.checkOptions(options, ['sigmas', 'timesteps', 'mu']);
    for (const [name, list] of Object.entries({ sigmas, timesteps })) {
      if (list) {
        this.checkList(name, list);
      }
    }
    const steps = this.checkCount(numInferenceSteps ?? sigmas?.length ?? timesteps?.length);
    const counts = [sigmas?.length ?? steps, timesteps?.length ?? steps];
    if (counts.some((count) => count !== steps)) {
      throw new InvalidArgumentError(
        '[FlowMatchEulerDiscreteScheduler.setTimesteps] expects as many sigmas and timesteps as inference steps ' +
          `(${steps}), got ${sigmas?.length ?? 'no'} sigmas and ${timesteps?.length ?? 'no'} timesteps`,
      );
    }
    return steps;
  }

  private evenSigmas(steps: number, { sigmas, timesteps }: SetTimestepsOptions): number[] {
    const trained = this.config.num_train_timesteps;
    if (sigmas) {
      return Array.from(sigmas);
    }
    if (timesteps) {
      return Array.from(timesteps, (t) => t / trained);
    }
    return linspace(this.sigmaMax * trained, this.sigmaMin * trained, steps).map((t) => t / trained);
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    const index = this.beginStep(timestep);
    const sigma = this.sigmas[index]!;
    const next = this.sigmas[index + 1]!;
    const prevSample = tf.tidy((): tf.Tensor => {
      if (!this.config.stochastic_sampling) {
        return tf.add(sample, tf.mul(next - sigma, modelOutput));
      }
      const original = tf.sub(sample, tf.mul(sigma, modelOutput));
      return combine([1 - next, original], [next, this.noiseLike(sample, options)]);
    });
    this.endStep();
    return { prevSample };
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

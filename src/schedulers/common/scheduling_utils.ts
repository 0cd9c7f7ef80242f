import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../errors.js';
import { invalid, is, oneOf } from '../../utils/check.js';
import { randnTensor } from '../../utils/randn_tensor.js';
import { TorchGenerator } from '../../utils/torch_generator.js';
import { ConfigMixin, type ConfigurableClass, MAX_STEPS, type PredictionType } from './config.js';
import { f32 } from './numeric.js';

/** What a step gives. The caller owns the tensors and disposes them. */
export interface SchedulerOutput {
  /** The sample at the next, less noisy timestep. */
  prevSample: tf.Tensor;
  /** The clean sample that the model's output stands for, where the scheduler computes one. */
  predOriginalSample?: tf.Tensor;
  /** LCM: the clean sample that its consistency function gives. */
  denoised?: tf.Tensor;
  /** TCD: the sample at the timestep that the noise is added from. */
  predNoisedSample?: tf.Tensor;
}

/** Options of `step`; each scheduler takes those that its own documentation names and ignores the others. */
export interface StepOptions {
  /** Where noise comes from: one generator, or one per batch item. Without it, from a randomly seeded one. */
  generator?: TorchGenerator | readonly TorchGenerator[];
  /** DDIM: 0 is deterministic, 1 is DDPM's noise. TCD: strength of the noise, gamma in its paper. */
  eta?: number;
  /** DDIM: derive the noise again from the clipped clean sample, as GLIDE does. */
  useClippedModelOutput?: boolean;
  /** DDIM and DPMSolverMultistep: the noise itself, of the sample's shape, instead of a generator. */
  varianceNoise?: tf.Tensor;
  /** Euler: noise added back before a step, for noise levels within [sTmin, sTmax] (Karras et al., Algorithm 2). */
  sChurn?: number;
  sTmin?: number;
  sTmax?: number;
  sNoise?: number;
  /** LMS: number of past derivatives used. */
  order?: number;
}

/** Options of `setTimesteps`; asking a scheduler for one that it does not take is an error. */
export interface SetTimestepsOptions {
  /** Descending training steps to use instead of a number of steps. */
  timesteps?: readonly number[];
  /** Descending noise levels to use instead of a number of steps. */
  sigmas?: readonly number[];
  /** Shift of the flow schedules for the picture's size, with `use_dynamic_shifting`. */
  mu?: number;
  /** LCM and TCD: steps of the schedule that the model was distilled with. */
  originalInferenceSteps?: number;
  /** LCM and TCD: share of the schedule that is used, for image to image. */
  strength?: number;
}

/** A scheduler class, as `schedulerFromConfig` and the registry handle it. */
export type SchedulerClass = ConfigurableClass<SchedulerMixin>;

/** What the configurations of all schedulers have. */
export interface SchedulerConfig {
  readonly num_train_timesteps: number;
  readonly prediction_type?: PredictionType;
}

let defaultGenerator: TorchGenerator | undefined;

/**
 * What all schedulers share (diffusers/schedulers/scheduling_utils.py): the configuration, the position in the
 * schedule, and the tensors that a multistep method keeps between steps.
 *
 * Samples are float32 tensors with the batch first and the channels last, of any rank, on any backend. `step`,
 * `scaleModelInput`, `addNoise` and `getVelocity` return new tensors, which the caller owns, and leave their arguments
 * alone. What a multistep method keeps survives an enclosing `tf.tidy`; it is freed by the last step of the schedule, by
 * `setTimesteps` and by `dispose`.
 */
export abstract class SchedulerMixin<C extends SchedulerConfig = SchedulerConfig> extends ConfigMixin<C> {
  /** Model calls per step of the method; `timesteps` counts model calls. */
  readonly order: number = 1;
  /** Training steps at which the model is called, first one first. */
  timesteps: number[] = [];
  /** Number that `setTimesteps` was given; null before. */
  numInferenceSteps: number | null = null;

  protected currentStep: number | null = null;
  private firstStep: number | null = null;
  private readonly kept = new Set<tf.Tensor>();

  /** Standard deviation that the first sample has: the starting noise is multiplied by it. */
  abstract get initNoiseSigma(): number;

  /**
   * Lays out the schedule; to be called before a denoising loop, each time.
   * @param numInferenceSteps positive integer; left out when `options` give timesteps or sigmas.
   * @throws InvalidArgumentError for a number or options that the scheduler cannot use.
   */
  abstract setTimesteps(numInferenceSteps?: number | null, options?: SetTimestepsOptions): void;

  /**
   * One step towards the clean sample.
   * @param modelOutput what the model gave for `scaleModelInput(sample, timestep)`; shape of `sample`.
   * @param timestep the entry of `timesteps` that the step is for; steps are taken in their order.
   * @throws InvalidArgumentError before `setTimesteps`, for a timestep that is not in the schedule, and for shapes
   *   that differ.
   */
  abstract step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, options?: StepOptions): SchedulerOutput;

  /**
   * Noisy samples at training steps, as in training and image to image.
   * @param timesteps one for all, or one per batch item.
   */
  abstract addNoise(original: tf.Tensor, noise: tf.Tensor, timesteps: number | ArrayLike<number>): tf.Tensor;

  /** The sample as the model expects it at `timestep`. Always a tensor of its own. */
  scaleModelInput(sample: tf.Tensor, _timestep?: number): tf.Tensor {
    return tf.clone(sample);
  }

  /** Index into `timesteps` of the next step; null before the first. */
  get stepIndex(): number | null {
    return this.currentStep;
  }

  /** Index of the first step that is taken, when `setBeginIndex` has been called. */
  get beginIndex(): number | null {
    return this.firstStep;
  }

  /** Starts at an index of `timesteps` other than that of the first timestep seen (image to image). */
  setBeginIndex(beginIndex = 0): void {
    if (!Number.isInteger(beginIndex) || beginIndex < 0 || beginIndex >= this.timesteps.length) {
      const expected = `an index into ${this.timesteps.length} timesteps`;
      throw invalid(`${this.className}.setBeginIndex`, 'beginIndex', expected, beginIndex);
    }
    this.firstStep = beginIndex;
  }

  /** Frees what a multistep method keeps between steps. The scheduler can be used again after `setTimesteps`. */
  dispose(): void {
    tf.dispose([...this.kept]);
    this.kept.clear();
  }

  /** Number of training steps. */
  get length(): number {
    return this.config.num_train_timesteps;
  }

  /** Whether steps can be taken only after `setTimesteps`. */
  protected get needsTimesteps(): boolean {
    return true;
  }

  /** A copy of `tensor` (sharing its data) that outlives tidies, until `release`, `dispose` or the next schedule. */
  protected retain(tensor: tf.Tensor): tf.Tensor {
    const copy = tf.keep(tf.clone(tensor));
    this.kept.add(copy);
    return copy;
  }

  protected release(tensor: tf.Tensor | null | undefined): void {
    if (tensor && this.kept.delete(tensor)) {
      tensor.dispose();
    }
  }

  /** Forgets the position and the history of the last loop. */
  protected resetLoop(): void {
    this.dispose();
    this.currentStep = null;
    this.firstStep = null;
  }

  /**
   * The number of steps, checked. `accepted` names the options of setTimesteps that this scheduler takes; of those that
   * replace the number exactly one may be given, or the number.
   */
  protected checkSteps(
    steps: number | null | undefined,
    options: SetTimestepsOptions,
    accepted: readonly (keyof SetTimestepsOptions)[] = [],
  ): number {
    const given = this.checkOptions(options, accepted);
    const lists = given.filter((key): key is 'timesteps' | 'sigmas' => key === 'timesteps' || key === 'sigmas');
    if (lists.length + (steps == null ? 0 : 1) !== 1) {
      const choices = ['numInferenceSteps', ...accepted.filter((key) => key === 'timesteps' || key === 'sigmas')];
      const got = [...(steps == null ? [] : ['numInferenceSteps']), ...lists];
      throw new InvalidArgumentError(
        `[${this.className}.setTimesteps] expects exactly one of ${choices.join(', ')}, got ${got.join(' and ') || 'none'}`,
      );
    }
    const list = lists[0] && options[lists[0]];
    if (list) {
      this.checkList(lists[0]!, list);
      return list.length;
    }
    return this.checkCount(steps);
  }

  /** Names of the options given, all of them accepted ones. */
  protected checkOptions(
    options: SetTimestepsOptions,
    accepted: readonly (keyof SetTimestepsOptions)[],
  ): (keyof SetTimestepsOptions)[] {
    const given = (Object.keys(options) as (keyof SetTimestepsOptions)[]).filter((key) => options[key] != null);
    const refused = given.find((key) => !accepted.includes(key));
    if (refused) {
      throw new InvalidArgumentError(
        `[${this.className}.setTimesteps] takes no ${refused}; pass the number of inference steps`,
      );
    }
    return given;
  }

  protected checkCount(steps: unknown): number {
    if (!is.count(steps) || steps > MAX_STEPS) {
      throw this.invalidStep('numInferenceSteps', `a positive integer of at most ${MAX_STEPS}`, steps);
    }
    return steps;
  }

  protected checkList(name: string, list: readonly number[]): void {
    if (!is.numbers(list) || list.length === 0 || list.length > MAX_STEPS) {
      throw this.invalidStep(name, `a list of 1 to ${MAX_STEPS} finite numbers`, list);
    }
  }

  /** Refuses timesteps that do not descend below the number of training steps. */
  protected checkDescending(timesteps: readonly number[]): void {
    const disordered = timesteps.some((t, i) => i > 0 && t >= timesteps[i - 1]!);
    if (disordered || timesteps[0]! >= this.length || timesteps.at(-1)! < 0) {
      throw this.invalidStep('timesteps', `descending integers from below ${this.length} to 0`, timesteps);
    }
  }

  protected checkNotAbove(steps: number, limit: number): void {
    if (steps > limit) {
      throw this.invalidStep('numInferenceSteps', `at most num_train_timesteps = ${limit}`, steps);
    }
  }

  /** An error about an argument of `setTimesteps`. */
  protected invalidStep(name: string, expected: string, got: unknown): Error {
    return invalid(`${this.className}.setTimesteps`, name, expected, got);
  }

  /** Refuses a prediction type that other schedulers know but this one cannot work with. */
  protected checkPredictionType(supported: readonly PredictionType[]): void {
    const { prediction_type } = this.config;
    if (!is.oneOf(supported, prediction_type)) {
      throw invalid(this.className, 'prediction_type', oneOf(supported), prediction_type);
    }
  }

  protected checkStep(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, channelFactor = 1): void {
    const where = `${this.className}.step`;
    if (this.needsTimesteps && this.numInferenceSteps === null) {
      throw new InvalidArgumentError(`[${where}] needs a schedule: call setTimesteps(numInferenceSteps) first`);
    }
    if (!is.number(timestep)) {
      throw invalid(where, 'timestep', 'an entry of scheduler.timesteps', timestep);
    }
    const expected = [...sample.shape];
    if (channelFactor !== 1 && expected.length > 0) {
      expected[expected.length - 1]! *= channelFactor;
    }
    if (expected.length !== modelOutput.shape.length || expected.some((size, i) => size !== modelOutput.shape[i])) {
      const wanted = `the shape [${expected}] for a sample [${sample.shape}]`;
      throw invalid(where, 'modelOutput', wanted, modelOutput);
    }
  }

  /**
   * Index of a timestep in the schedule. Of a timestep that occurs more than once the second is taken, so that a loop
   * that starts in the middle of the schedule skips no noise level (diffusers' `index_for_timestep`).
   */
  protected indexForTimestep(timestep: number): number {
    const wanted = f32(timestep);
    this.checkScheduled(wanted);
    const first = this.timesteps.indexOf(wanted);
    const second = this.timesteps.indexOf(wanted, first + 1);
    return second === -1 ? first : second;
  }

  /** Index of the noise level to add: within a loop that of the next step, so that masked parts stay in line. */
  protected noiseIndex(timestep: number): number {
    return this.beginIndex === null ? this.indexForTimestep(timestep) : (this.stepIndex ?? this.beginIndex);
  }

  protected checkScheduled(timestep: number): void {
    if (!this.timesteps.includes(timestep)) {
      const known = `${this.timesteps.slice(0, 12).join(', ')}${this.timesteps.length > 12 ? ', ...' : ''}`;
      throw invalid(this.className, 'timestep', `one of scheduler.timesteps (${known})`, timestep);
    }
  }

  /** The index of this step, found from the timestep when it is the first one of the loop. */
  protected beginStep(timestep: number): number {
    this.currentStep ??= this.firstStep ?? this.indexForTimestep(timestep);
    if (this.currentStep >= this.timesteps.length) {
      throw new InvalidArgumentError(
        `[${this.className}.step] all ${this.timesteps.length} timesteps are done; call setTimesteps for another loop`,
      );
    }
    return this.currentStep;
  }

  /** Moves on; the history is of no use after the last step. */
  protected endStep(): void {
    this.currentStep! += 1;
    if (this.currentStep! >= this.timesteps.length) {
      this.dispose();
    }
  }

  /** The noise level that `sChurn` raises a level to before a step (Karras et al., Algorithm 2). */
  protected churnedSigma(sigma: number, steps: number, options: StepOptions): number {
    const { sChurn = 0, sTmin = 0, sTmax = Infinity } = options;
    return sTmin <= sigma && sigma <= sTmax ? f32(sigma * f32(1 + Math.min(sChurn / steps, Math.SQRT2 - 1))) : sigma;
  }

  /** x + s_noise sqrt(sigma_hat^2 - sigma^2) noise */
  protected addChurn(sample: tf.Tensor, sigma: number, sigmaHat: number, options: StepOptions): tf.Tensor {
    if (sigmaHat <= sigma) {
      return sample;
    }
    const added = Math.sqrt(f32(f32(sigmaHat ** 2) - f32(sigma ** 2)));
    const noise = tf.mul(this.noiseLike(sample, options), options.sNoise ?? 1);
    return tf.add(sample, tf.mul(noise, added));
  }

  protected noiseLike(tensor: tf.Tensor, options: StepOptions): tf.Tensor {
    return randnTensor<tf.Rank>(tensor.shape, this.generators(options));
  }

  /** The generators of a step; without any, one with a random seed that all schedulers share. */
  protected generators({ generator }: StepOptions): readonly TorchGenerator[] {
    if (generator) {
      const list = [generator].flat();
      if (!list.every((item: unknown) => item instanceof TorchGenerator)) {
        throw invalid(this.className, 'generator', 'a TorchGenerator, or one for each item of the batch', generator);
      }
      return list;
    }
    if (!defaultGenerator) {
      defaultGenerator = new TorchGenerator();
      defaultGenerator.seed();
    }
    return [defaultGenerator];
  }
}

/** Numbers per batch item in the shape that multiplies `like`: [k] becomes [k, 1, 1, ...]. */
export function perItem(values: readonly number[], like: tf.Tensor): tf.Tensor {
  return tf.tensor(values as number[], [values.length, ...like.shape.slice(1).map(() => 1)], 'float32');
}

export function asList(timesteps: number | ArrayLike<number>): number[] {
  return typeof timesteps === 'number' ? [timesteps] : Array.from(timesteps);
}

/** Sum of coefficient x tensor over the terms that have a tensor, from left to right. */
export function combine(...terms: readonly (readonly [number, tf.Tensor | undefined])[]): tf.Tensor {
  return terms
    .filter((term): term is readonly [number, tf.Tensor] => term[1] !== undefined)
    .map(([coefficient, tensor]) => tf.mul(coefficient, tensor) as tf.Tensor)
    .reduce((sum, term) => tf.add(sum, term));
}

/** `a x + b y` with a and b per batch item. */
export function mixPerItem(a: readonly number[], x: tf.Tensor, b: readonly number[], y: tf.Tensor): tf.Tensor {
  return tf.tidy(() => tf.add(tf.mul(perItem(a, x), x), tf.mul(perItem(b, y), y)));
}

import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../errors.js';
import { randnTensor } from '../../utils/randn_tensor.js';
import { TorchGenerator } from '../../utils/torch_generator.js';
import { ConfigMixin, type ConfigurableClass } from './config_mixin.js';
import { f32 } from './numeric.js';
import type { Fields } from './scheduler_config.js';
import type { PredictionType } from './scheduler_fields.js';
import type { SchedulerOutput, SetTimestepsOptions, StepOptions } from './scheduler_types.js';

export type { SchedulerOutput, SetTimestepsOptions, StepOptions } from './scheduler_types.js';

/** A scheduler class, as `schedulerFromConfig` and the registry handle it. */
export type SchedulerClass = ConfigurableClass<SchedulerMixin>;

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
export abstract class SchedulerMixin<F extends Fields = Fields> extends ConfigMixin<F> {
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
      throw new InvalidArgumentError(
        `[${this.className}.setBeginIndex] expects an index into ${this.timesteps.length} timesteps, got ${beginIndex}`,
      );
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
    return this.config.num_train_timesteps as number;
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
    const where = `[${this.className}.setTimesteps]`;
    const given = this.checkOptions(options, accepted);
    const lists = given.filter((key) => key === 'timesteps' || key === 'sigmas');
    if (lists.length + (steps == null ? 0 : 1) !== 1) {
      const choices = ['numInferenceSteps', ...accepted.filter((key) => key === 'timesteps' || key === 'sigmas')];
      const got = [...(steps == null ? [] : ['numInferenceSteps']), ...lists];
      throw new InvalidArgumentError(
        `${where} expects exactly one of ${choices.join(', ')}, got ${got.join(' and ') || 'none'}`,
      );
    }
    const list = lists[0] ? (options[lists[0]] as readonly number[]) : undefined;
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
    if (!Number.isSafeInteger(steps) || (steps as number) < 1) {
      throw new InvalidArgumentError(
        `[${this.className}.setTimesteps] expects a positive integer number of inference steps, got ${steps}`,
      );
    }
    return steps as number;
  }

  protected checkList(name: string, list: readonly number[]): void {
    if (list.length === 0 || !Array.from(list).every(Number.isFinite)) {
      throw new InvalidArgumentError(
        `[${this.className}.setTimesteps] ${name} expects a list of at least one finite number, got [${Array.from(list).slice(0, 8)}]`,
      );
    }
  }

  protected checkNotAbove(steps: number, limit: number): void {
    if (steps > limit) {
      throw new InvalidArgumentError(
        `[${this.className}.setTimesteps] expects at most num_train_timesteps = ${limit} inference steps, got ${steps}`,
      );
    }
  }

  /** Refuses a prediction type that other schedulers know but this one cannot work with. */
  protected checkPredictionType(supported: readonly PredictionType[]): void {
    const type = this.config.prediction_type as PredictionType;
    if (!supported.includes(type)) {
      throw new InvalidArgumentError(
        `[${this.className}] prediction_type expects one of ${supported.map((t) => `"${t}"`).join(', ')}, got "${type}"`,
      );
    }
  }

  protected checkStep(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, channelFactor = 1): void {
    const where = `[${this.className}.step]`;
    if (this.needsTimesteps && this.numInferenceSteps === null) {
      throw new InvalidArgumentError(`${where} needs a schedule: call setTimesteps(numInferenceSteps) first`);
    }
    if (typeof timestep !== 'number' || Number.isNaN(timestep)) {
      throw new InvalidArgumentError(`${where} expects an entry of scheduler.timesteps as timestep, got ${timestep}`);
    }
    const expected = [...sample.shape];
    if (channelFactor !== 1 && expected.length > 0) {
      expected[expected.length - 1]! *= channelFactor;
    }
    if (expected.length !== modelOutput.shape.length || expected.some((size, i) => size !== modelOutput.shape[i])) {
      throw new InvalidArgumentError(
        `${where} expects a model output of shape [${expected}] for a sample [${sample.shape}], got [${modelOutput.shape}]`,
      );
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

  protected checkScheduled(timestep: number): void {
    if (!this.timesteps.includes(timestep)) {
      throw new InvalidArgumentError(
        `[${this.className}] timestep ${timestep} is not in the schedule; pass one of scheduler.timesteps: ` +
          `${this.timesteps.slice(0, 12).join(', ')}${this.timesteps.length > 12 ? ', ...' : ''}`,
      );
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

  protected noiseLike(tensor: tf.Tensor, options: StepOptions): tf.Tensor {
    if (!options.generator && !defaultGenerator) {
      defaultGenerator = new TorchGenerator();
      defaultGenerator.seed();
    }
    return randnTensor<tf.Rank>(tensor.shape, options.generator ?? defaultGenerator!);
  }
}

/** Numbers per batch item in the shape that multiplies `like`: [k] becomes [k, 1, 1, ...]. */
export function perItem(values: readonly number[], like: tf.Tensor): tf.Tensor {
  return tf.tensor(values as number[], [values.length, ...like.shape.slice(1).map(() => 1)], 'float32');
}

export function asList(timesteps: number | ArrayLike<number>): number[] {
  return typeof timesteps === 'number' ? [timesteps] : Array.from(timesteps);
}

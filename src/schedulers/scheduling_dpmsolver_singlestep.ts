import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../errors.js';
import { lambdasOf } from './betas.js';
import { type AlgorithmType, combine, stepCoefficients } from './dpm_solver_update.js';
import { f32, linspace, roundHalfEven } from './numeric.js';
import { choice, extendedNumber, flag, integer, number, type OptionsOf, optional } from './scheduler_config.js';
import {
  NOISE_SCHEDULE_FIELDS,
  SIGMA_CONVERSION_FIELDS,
  THRESHOLDING_FIELDS,
  VARIANCE_TYPES,
} from './scheduler_fields.js';
import type { SchedulerOutput, SetTimestepsOptions, StepOptions } from './scheduling_utils.js';
import { convertSigmas } from './sigmas.js';
import { SolverScheduler } from './solver_scheduler.js';

const FIELDS = {
  ...NOISE_SCHEDULE_FIELDS,
  ...THRESHOLDING_FIELDS,
  ...SIGMA_CONVERSION_FIELDS,
  solver_order: integer(2, 1),
  algorithm_type: choice<AlgorithmType | 'deis'>('dpmsolver++', [
    'dpmsolver',
    'dpmsolver++',
    'sde-dpmsolver++',
    'deis',
  ]),
  solver_type: choice<string>('midpoint', ['midpoint', 'heun', 'logrho', 'bh1', 'bh2']),
  lower_order_final: flag(false),
  use_flow_sigmas: flag(false),
  flow_shift: number(1),
  final_sigmas_type: choice<'zero' | 'sigma_min'>('zero', ['zero', 'sigma_min']),
  lambda_min_clipped: extendedNumber(-Infinity),
  variance_type: optional(choice('learned', VARIANCE_TYPES)),
  use_dynamic_shifting: flag(false),
  time_shift_type: choice<'exponential' | 'linear'>('exponential', ['exponential', 'linear']),
};

/**
 * DPM-Solver and DPM-Solver++, single step (https://arxiv.org/abs/2206.00927, https://arxiv.org/abs/2211.01095;
 * diffusers/schedulers/scheduling_dpmsolver_singlestep.py): steps go in groups of `solver_order`, each group from its
 * first sample. `setTimesteps` takes `timesteps` and `mu`; `step` takes `generator` ("sde-dpmsolver++").
 */
export class DPMSolverSinglestepScheduler extends SolverScheduler<typeof FIELDS> {
  static override readonly className: string = 'DPMSolverSinglestepScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { dpmpp_2s: {}, dpmpp_2s_karras: { use_karras_sigmas: true } };

  /** Order of each step of the schedule. */
  private orders: number[] = [];
  /** First sample of the group under way. */
  private groupSample: tf.Tensor | null = null;

  constructor(options: OptionsOf<typeof FIELDS> = {}) {
    super(options);
    const { algorithm_type, solver_type, final_sigmas_type } = this.config;
    if (algorithm_type === 'deis') {
      this.updateConfig({ algorithm_type: 'dpmsolver++' });
    }
    if (solver_type !== 'midpoint' && solver_type !== 'heun') {
      this.updateConfig({ solver_type: 'midpoint' });
    }
    if (!this.predictsOriginal && final_sigmas_type === 'zero') {
      throw new InvalidArgumentError(
        '[DPMSolverSinglestepScheduler] final_sigmas_type "zero" does not go with algorithm_type "dpmsolver"; ' +
          'set final_sigmas_type to "sigma_min"',
      );
    }
  }

  private get predictsOriginal(): boolean {
    return this.config.algorithm_type !== 'dpmsolver';
  }

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    this.checkPredictionType([
      'epsilon',
      'sample',
      'v_prediction',
      ...(this.predictsOriginal ? (['flow_prediction'] as const) : []),
    ]);
    const steps = this.checkSteps(numInferenceSteps, options, ['timesteps', 'mu']);
    this.checkConflicts(options, ['use_karras_sigmas', 'use_exponential_sigmas', 'use_beta_sigmas', 'use_flow_sigmas']);
    this.applyShift(options);
    const { sigmas, timesteps } = this.schedule(steps, options.timesteps);
    const { final_sigmas_type, solver_order } = this.config;
    this.begin([...sigmas, final_sigmas_type === 'sigma_min' ? this.trainingSigmas()[0]! : 0], timesteps);
    if (steps % solver_order !== 0 || final_sigmas_type === 'zero') {
      this.updateConfig({ lower_order_final: true });
    }
    this.orders = this.ordersOf(steps);
  }

  private schedule(
    steps: number,
    custom?: readonly number[],
  ): { sigmas: readonly number[]; timesteps: readonly number[] } {
    const { config } = this;
    const converted = convertSigmas(config, this.trainingSigmas().reverse(), steps);
    if (converted) {
      const timesteps = this.timestepsOf(converted);
      return { sigmas: converted, timesteps: config.use_karras_sigmas ? timesteps.map(roundHalfEven) : timesteps };
    }
    if (config.use_flow_sigmas) {
      const sigmas = this.flowSigmas(steps);
      return { sigmas, timesteps: sigmas.map((sigma) => sigma * config.num_train_timesteps) };
    }
    const least = f32(config.lambda_min_clipped);
    const usable = lambdasOf(this.alphasCumprod).filter((lambda) => lambda >= least).length;
    const timesteps =
      custom?.map(Math.trunc) ??
      linspace(0, usable - 1, steps + 1)
        .map(roundHalfEven)
        .reverse()
        .slice(0, -1);
    return { sigmas: this.sigmasAt(timesteps), timesteps };
  }

  /** Orders of the steps: groups that climb to `solver_order`, and lower ones for what is left (`get_order_list`). */
  private ordersOf(steps: number): number[] {
    const { solver_order: order, lower_order_final, final_sigmas_type } = this.config;
    const group = Array.from({ length: order }, (_, i) => i + 1);
    const groups = (count: number): number[] => Array.from({ length: Math.max(count, 0) }, () => group).flat();
    const whole = Math.floor(steps / order);
    let orders = groups(whole);
    if (lower_order_final && order > 1) {
      const rest = steps % order;
      orders = rest === 0 ? [...groups(whole - 1), ...group.slice(0, -1), 1] : [...orders, ...group.slice(0, rest)];
    }
    if (final_sigmas_type === 'zero') {
      orders[orders.length - 1] = 1;
    }
    return orders;
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample, this.varianceFactor(modelOutput, sample));
    const index = this.beginStep(timestep);
    const prevSample = tf.tidy(() => {
      const output = this.withoutVariance(modelOutput, sample);
      this.remember(
        this.predictsOriginal ? this.predictOriginal(output, sample, index) : this.predictNoise(output, sample, index),
      );
      const stochastic = this.config.algorithm_type === 'sde-dpmsolver++';
      const noise = stochastic ? this.noiseLike(output, options) : undefined;
      const order = Math.min(this.orders[index]!, this.outputs.length);
      if (order === 1) {
        this.release(this.groupSample);
        this.groupSample = this.retain(sample);
      }
      return this.update(order, index, noise);
    });
    this.endStep();
    return { prevSample };
  }

  override dispose(): void {
    super.dispose();
    this.groupSample = null;
  }

  private predictNoise(output: tf.Tensor, sample: tf.Tensor, index: number): tf.Tensor {
    const epsilon = this.predictEpsilon(output, sample, index);
    if (!this.config.thresholding) {
      return epsilon;
    }
    const { alpha, sigma } = this.point(index);
    const original = this.threshold(tf.div(tf.sub(sample, tf.mul(sigma, epsilon)), alpha));
    return tf.div(tf.sub(sample, tf.mul(alpha, original)), sigma);
  }

  private update(order: number, index: number, noise: tf.Tensor | undefined): tf.Tensor {
    const sample = this.groupSample!;
    const from = this.point(index + 1 - order);
    const to = this.point(index + 1);
    const c = stepCoefficients(this.config.algorithm_type as AlgorithmType, from, to);
    const [m0, m1, m2] = [...this.outputs].reverse() as [tf.Tensor, tf.Tensor, tf.Tensor];
    if (order === 1) {
      return combine([
        [c.sample, sample],
        [c.d0, m0],
        [c.noise, noise],
      ]);
    }
    const h = f32(to.lambda - from.lambda);
    const midpoint = this.config.solver_type === 'midpoint';
    const r0 = f32(f32(this.point(index).lambda - from.lambda) / h);
    if (order === 2) {
      const d1 = tf.mul(f32(1 / r0), tf.sub(m0, m1));
      return combine([
        [c.sample, sample],
        [c.d0, m1],
        [midpoint ? c.d1Midpoint : c.d1Heun, d1],
        [c.noise, noise],
      ]);
    }
    const r1 = f32(f32(this.point(index - 1).lambda - from.lambda) / h);
    const d10 = tf.mul(f32(1 / r1), tf.sub(m1, m2));
    const d11 = tf.mul(f32(1 / r0), tf.sub(m0, m2));
    if (midpoint) {
      return combine([
        [c.sample, sample],
        [c.d0, m2],
        [c.d1Heun, d11],
        [c.noise, noise],
      ]);
    }
    const d1 = tf.div(tf.sub(tf.mul(r0, d10), tf.mul(r1, d11)), f32(r0 - r1));
    const d2 = tf.div(tf.mul(2, tf.sub(d11, d10)), f32(r0 - r1));
    return combine([
      [c.sample, sample],
      [c.d0, m2],
      [c.d1Heun, d1],
      [c.d2, d2],
      [c.noise, noise],
    ]);
  }
}

import * as tf from '@tensorflow/tfjs-core';
import { type ConfigOf, choice, flag } from '../config/fields.js';
import { type AlgorithmType, DPM_SOLVER_FIELDS, DPMSolverScheduler, stepCoefficients } from './common/dpm_solver.js';
import { linspace, roundHalfEven } from './common/numeric.js';
import { convertSigmas } from './common/schedule.js';
import {
  combine,
  type SchedulerOutput,
  type SetTimestepsOptions,
  type StepOptions,
} from './common/scheduling_utils.js';
import { stepLength } from './common/solver_scheduler.js';

const FIELDS = {
  ...DPM_SOLVER_FIELDS,
  algorithm_type: choice<AlgorithmType | 'deis'>('dpmsolver++', [
    'dpmsolver',
    'dpmsolver++',
    'sde-dpmsolver++',
    'deis',
  ]),
  lower_order_final: flag(false),
};

/**
 * DPM-Solver and DPM-Solver++, single step (https://arxiv.org/abs/2206.00927, https://arxiv.org/abs/2211.01095;
 * diffusers/schedulers/scheduling_dpmsolver_singlestep.py): steps go in groups of `solver_order`, each group from its
 * first sample. `setTimesteps` takes `timesteps` and `mu`; `step` takes `generator` ("sde-dpmsolver++").
 */
export class DPMSolverSinglestepScheduler extends DPMSolverScheduler<ConfigOf<typeof FIELDS>> {
  static override readonly className = 'DPMSolverSinglestepScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { dpmpp_2s: {}, dpmpp_2s_karras: { use_karras_sigmas: true } };

  /** Order of each step of the schedule. */
  private orders: number[] = [];
  /** First sample of the group under way. */
  private groupSample: tf.Tensor | null = null;

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    this.checkPrediction();
    const steps = this.checkSteps(numInferenceSteps, options, ['timesteps', 'mu']);
    this.checkConflicts(options, ['use_karras_sigmas', 'use_exponential_sigmas', 'use_beta_sigmas', 'use_flow_sigmas']);
    this.applyShift(options);
    const { sigmas, timesteps } = this.schedule(steps, options.timesteps);
    const { final_sigmas_type, solver_order } = this.config;
    this.begin([...sigmas, this.finalSigma()], timesteps);
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
    const timesteps =
      custom?.map(Math.trunc) ??
      linspace(0, this.usableSteps() - 1, steps + 1)
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
      const converted = this.convertModelOutput(modelOutput, sample, index);
      this.pushOutput(converted);
      const noise = this.algorithm.startsWith('sde') ? this.noiseLike(converted, options) : undefined;
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

  private update(order: number, index: number, noise: tf.Tensor | undefined): tf.Tensor {
    const sample = this.groupSample!;
    const from = this.point(index + 1 - order);
    const to = this.point(index + 1);
    const c = stepCoefficients(this.algorithm, from, to);
    const [m0, m1, m2] = [...this.outputs].reverse() as [tf.Tensor, tf.Tensor, tf.Tensor];
    if (order === 1) {
      return combine([c.sample, sample], [c.d0, m0], [c.noise, noise]);
    }
    const h = stepLength(from, to);
    const midpoint = this.config.solver_type === 'midpoint';
    const r0 = (this.point(index).lambda - from.lambda) / h;
    if (order === 2) {
      const d1 = tf.mul(1 / r0, tf.sub(m0, m1));
      return combine([c.sample, sample], [c.d0, m1], [midpoint ? c.d1Midpoint : c.d1Heun, d1], [c.noise, noise]);
    }
    const r1 = (this.point(index - 1).lambda - from.lambda) / h;
    const d10 = tf.mul(1 / r1, tf.sub(m1, m2));
    const d11 = tf.mul(1 / r0, tf.sub(m0, m2));
    if (midpoint) {
      return combine([c.sample, sample], [c.d0, m2], [c.d1Heun, d11], [c.noise, noise]);
    }
    const d1 = tf.div(tf.sub(tf.mul(r0, d10), tf.mul(r1, d11)), r0 - r1);
    const d2 = tf.div(tf.mul(2, tf.sub(d11, d10)), r0 - r1);
    return combine([c.sample, sample], [c.d0, m2], [c.d1Heun, d1], [c.d2, d2], [c.noise, noise]);
  }
}

import * as tf from '@tensorflow/tfjs-core';
import { type ConfigOf, choice, flag } from '../config/fields.js';
import { spacingFields } from './common/config.js';
import {
  type AlgorithmType,
  checkThirdOrder,
  DPM_SOLVER_FIELDS,
  DPMSolverScheduler,
  stepCoefficients,
} from './common/dpm_solver.js';
import { roundHalfEven } from './common/numeric.js';
import { convertSigmas, karrasSigmas, solverTimesteps } from './common/schedule.js';
import {
  combine,
  type SchedulerOutput,
  type SetTimestepsOptions,
  type StepOptions,
} from './common/scheduling_utils.js';
import { stepLength } from './common/solver_scheduler.js';

const FIELDS = {
  ...DPM_SOLVER_FIELDS,
  ...spacingFields('linspace'),
  algorithm_type: choice<AlgorithmType | 'deis'>('dpmsolver++', [
    'dpmsolver',
    'dpmsolver++',
    'sde-dpmsolver',
    'sde-dpmsolver++',
    'deis',
  ]),
  lower_order_final: flag(true),
  euler_at_final: flag(false),
  use_lu_lambdas: flag(false),
  rescale_betas_zero_snr: flag(false),
};

/**
 * DPM-Solver and DPM-Solver++, multistep (https://arxiv.org/abs/2206.00927, https://arxiv.org/abs/2211.01095;
 * diffusers/schedulers/scheduling_dpmsolver_multistep.py).
 * `setTimesteps` takes `timesteps` and `mu`; `step` takes `generator` and `varianceNoise` (the "sde-" algorithms).
 */
export class DPMSolverMultistepScheduler extends DPMSolverScheduler<ConfigOf<typeof FIELDS>> {
  static override readonly className = 'DPMSolverMultistepScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = {
    dpmpp_2m: {},
    dpmpp_2m_karras: { use_karras_sigmas: true },
    dpmpp_2m_sde: { algorithm_type: 'sde-dpmsolver++' },
    dpmpp_2m_sde_karras: { algorithm_type: 'sde-dpmsolver++', use_karras_sigmas: true },
  };

  /** Multistep order that the history allows so far. */
  private lowerOrderNums = 0;

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    this.checkPrediction();
    const steps = this.checkSteps(numInferenceSteps, options, ['timesteps', 'mu']);
    this.checkConflicts(options, [
      'use_karras_sigmas',
      'use_lu_lambdas',
      'use_exponential_sigmas',
      'use_beta_sigmas',
      'use_flow_sigmas',
    ]);
    this.applyShift(options);
    const { sigmas, timesteps } = this.schedule(steps, options.timesteps);
    this.begin([...sigmas, this.finalSigma()], timesteps);
    this.lowerOrderNums = 0;
  }

  private schedule(
    steps: number,
    custom?: readonly number[],
  ): { sigmas: readonly number[]; timesteps: readonly number[] } {
    const { config } = this;
    const descending = this.trainingSigmas().reverse();
    const round = (sigmas: readonly number[]): number[] => {
      const timesteps = this.timestepsOf(sigmas);
      return config.beta_schedule === 'squaredcos_cap_v2' ? timesteps : timesteps.map(roundHalfEven);
    };
    if (config.use_lu_lambdas && !config.use_karras_sigmas) {
      const sigmas = karrasSigmas(descending.map(Math.log), steps, {}, 1).map(Math.exp);
      return { sigmas, timesteps: round(sigmas) };
    }
    const converted = convertSigmas(config, descending, steps);
    if (converted) {
      return {
        sigmas: converted,
        timesteps: config.use_karras_sigmas ? round(converted) : this.timestepsOf(converted),
      };
    }
    if (config.use_flow_sigmas) {
      const sigmas = this.flowSigmas(steps);
      return { sigmas, timesteps: sigmas.map((sigma) => sigma * config.num_train_timesteps) };
    }
    const timesteps = custom?.map(Math.trunc) ?? solverTimesteps(config, steps, this.usableSteps());
    return { sigmas: this.sigmasAt(timesteps), timesteps };
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample, this.varianceFactor(modelOutput, sample));
    const index = this.beginStep(timestep);
    const prevSample = tf.tidy(() => {
      const converted = this.convertModelOutput(modelOutput, sample, index);
      this.pushOutput(converted);
      const stochastic = this.algorithm.startsWith('sde');
      const noise = stochastic ? (options.varianceNoise ?? this.noiseLike(converted, options)) : undefined;
      return this.update(this.orderAt(index), index, sample, noise);
    });
    this.lowerOrderNums = Math.min(this.lowerOrderNums + 1, this.config.solver_order);
    this.endStep();
    return { prevSample };
  }

  /** Order of a step: less at the start, for want of history, and at the end, for stability of short schedules. */
  private orderAt(index: number): number {
    const { solver_order, lower_order_final, euler_at_final, final_sigmas_type } = this.config;
    const count = this.timesteps.length;
    const short = lower_order_final && count < 15;
    const final = index === count - 1 && (euler_at_final || short || final_sigmas_type === 'zero');
    if (solver_order === 1 || this.lowerOrderNums < 1 || final) {
      return 1;
    }
    return solver_order === 2 || this.lowerOrderNums < 2 || (index === count - 2 && short) ? 2 : 3;
  }

  private update(order: number, index: number, sample: tf.Tensor, noise: tf.Tensor | undefined): tf.Tensor {
    const [to, s0] = [this.point(index + 1), this.point(index)];
    const c = stepCoefficients(this.algorithm, s0, to);
    const [m0, m1, m2] = [...this.outputs].reverse() as [tf.Tensor, tf.Tensor, tf.Tensor];
    if (order === 1) {
      return combine([c.sample, sample], [c.d0, m0], [c.noise, noise]);
    }
    const h = stepLength(s0, to);
    const s1 = this.point(index - 1);
    const r0 = (s0.lambda - s1.lambda) / h;
    const d10 = tf.mul(1 / r0, tf.sub(m0, m1));
    if (order === 2) {
      const d1 = this.config.solver_type === 'midpoint' ? c.d1Midpoint : c.d1Heun;
      return combine([c.sample, sample], [c.d0, m0], [d1, d10], [c.noise, noise]);
    }
    checkThirdOrder(this.className, this.algorithm);
    const r1 = (s1.lambda - this.point(index - 2).lambda) / h;
    const d11 = tf.mul(1 / r1, tf.sub(m1, m2));
    const curve = tf.sub(d10, d11);
    const d1 = tf.add(d10, tf.mul(r0 / (r0 + r1), curve));
    const d2 = tf.mul(1 / (r0 + r1), curve);
    return combine([c.sample, sample], [c.d0, m0], [c.d1Heun, d1], [c.d2, d2], [c.noise, noise]);
  }
}

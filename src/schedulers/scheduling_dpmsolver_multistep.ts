import * as tf from '@tensorflow/tfjs-core';
import { type ConfigOf, choice, flag } from '../config/fields.js';
import { spacingFields } from './common/config.js';
import {
  type AlgorithmType,
  checkThirdOrder,
  DPM_SOLVER_FIELDS,
  DPMSolverScheduler,
  multistepOrder,
  multistepUpdate,
} from './common/dpm_solver.js';
import { roundHalfEven } from './common/numeric.js';
import { convertSigmas, karrasSigmas, logSigmasOf, solverTimesteps } from './common/schedule.js';
import type { SchedulerOutput, SetTimestepsOptions, StepOptions } from './common/scheduling_utils.js';

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
    checkThirdOrder(this.className, this.config.solver_order, this.algorithm, 'sde-dpmsolver');
    this.applyShift(options);
    const { sigmas, timesteps } = this.schedule(steps, options.timesteps);
    this.begin([...sigmas, this.finalSigma()], timesteps);
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
      const sigmas = karrasSigmas(logSigmasOf(descending), steps, {}, 1).map(Math.exp);
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
      const order = multistepOrder(this.config, index, this.timesteps.length, this.outputs.length);
      const points = Array.from({ length: order + 1 }, (_, i) => this.point(index + 1 - i));
      return multistepUpdate(this.config, this.algorithm, points, this.outputs, sample, noise);
    });
    this.endStep();
    return { prevSample };
  }
}

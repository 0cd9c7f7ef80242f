import * as tf from '@tensorflow/tfjs-core';
import { type ConfigOf, choice, count, flag, type OptionsOf } from '../config/fields.js';
import {
  FLOW_FIELDS,
  NOISE_SCHEDULE_FIELDS,
  SIGMA_CONVERSION_FIELDS,
  spacingFields,
  THRESHOLDING_FIELDS,
} from './common/config.js';
import { roundHalfEven } from './common/numeric.js';
import { convertSigmas, solverTimesteps } from './common/schedule.js';
import {
  combine,
  type SchedulerOutput,
  type SetTimestepsOptions,
  type StepOptions,
} from './common/scheduling_utils.js';
import { expm1, SolverScheduler, stepLength } from './common/solver_scheduler.js';

const FIELDS = {
  ...NOISE_SCHEDULE_FIELDS,
  ...THRESHOLDING_FIELDS,
  ...SIGMA_CONVERSION_FIELDS,
  ...spacingFields('linspace'),
  solver_order: count(2, 3),
  algorithm_type: choice('deis', ['deis', 'dpmsolver', 'dpmsolver++']),
  solver_type: choice('logrho', ['logrho', 'midpoint', 'heun', 'bh1', 'bh2']),
  lower_order_final: flag(true),
  ...FLOW_FIELDS,
};

/**
 * Diffusion exponential integrator sampler, multistep over log rho (https://arxiv.org/abs/2204.13902;
 * diffusers/schedulers/scheduling_deis_multistep.py). `setTimesteps` takes `mu`.
 */
export class DEISMultistepScheduler extends SolverScheduler<ConfigOf<typeof FIELDS>> {
  static override readonly className = 'DEISMultistepScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { deis: {}, deis_karras: { use_karras_sigmas: true } };

  private lowerOrderNums = 0;

  constructor(options?: OptionsOf<ConfigOf<typeof FIELDS>>) {
    super(options);
    this.updateConfig({ algorithm_type: 'deis', solver_type: 'logrho' });
  }

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    this.checkPredictionType(['epsilon', 'sample', 'v_prediction', 'flow_prediction']);
    const steps = this.checkSteps(numInferenceSteps, options, ['mu']);
    this.applyShift(options);
    this.lowerOrderNums = 0;
    const { config } = this;
    const converted = convertSigmas(config, this.trainingSigmas().reverse(), steps);
    if (converted) {
      const timesteps = this.timestepsOf(converted);
      this.begin(
        [...converted, converted.at(-1)!],
        config.use_karras_sigmas ? timesteps.map(roundHalfEven) : timesteps,
      );
    } else if (config.use_flow_sigmas) {
      const sigmas = this.flowSigmas(steps);
      this.begin(
        [...sigmas, sigmas.at(-1)!],
        sigmas.map((sigma) => sigma * config.num_train_timesteps),
      );
    } else {
      const timesteps = solverTimesteps(config, steps);
      this.begin([...this.sigmasAt(timesteps), this.trainingSigmas()[0]!], timesteps);
    }
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, _options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    const index = this.beginStep(timestep);
    const prevSample = tf.tidy(() => {
      const { alpha, sigma } = this.point(index);
      const original = this.predictOriginal(modelOutput, sample, index);
      this.pushOutput(tf.div(tf.sub(sample, tf.mul(alpha, original)), sigma));
      return this.update(this.orderAt(index), index, sample);
    });
    this.lowerOrderNums = Math.min(this.lowerOrderNums + 1, this.config.solver_order);
    this.endStep();
    return { prevSample };
  }

  private orderAt(index: number): number {
    const { solver_order, lower_order_final } = this.config;
    const left = this.timesteps.length - index;
    const short = lower_order_final && this.timesteps.length < 15;
    const order = Math.min(solver_order, this.lowerOrderNums + 1);
    return short ? Math.min(order, left) : order;
  }

  /** x_t = alpha_t (x / alpha_s + sum of C_i eps_i), C_i the integral over rho of a Lagrange polynomial in log rho. */
  private update(order: number, index: number, sample: tf.Tensor): tf.Tensor {
    const [s, t] = [this.point(index), this.point(index + 1)];
    const outputs = [...this.outputs].reverse().slice(0, order);
    if (order === 1) {
      // DDIM: x_t = alpha_t / alpha_s x - sigma_t (e^h - 1) eps
      return combine([t.alpha / s.alpha, sample], [-t.sigma * expm1(stepLength(s, t)), outputs[0]]);
    }
    const rho = (at: number): number => this.point(at).sigma / this.point(at).alpha;
    const logRhos = outputs.map((_, i) => Math.log(rho(index - i)));
    const antiderivative = order === 2 ? linearAntiderivative : quadraticAntiderivative;
    const terms = outputs.map((output, i) => {
      const nodes = [...logRhos.slice(i), ...logRhos.slice(0, i)];
      const c = antiderivative(rho(index + 1), nodes) - antiderivative(rho(index), nodes);
      return [t.alpha * c, output] as const;
    });
    return combine([t.alpha / s.alpha, sample], ...terms);
  }
}

/** Antiderivative at rho of the Lagrange polynomial (log rho - c) / (b - c). */
function linearAntiderivative(rho: number, [b, c]: readonly number[]): number {
  return (rho * (Math.log(rho) - c! - 1)) / (b! - c!);
}

/** Antiderivative at rho of the Lagrange polynomial (log rho - c) (log rho - d) / ((b - c) (b - d)). */
function quadraticAntiderivative(rho: number, [b, c, d]: readonly number[]): number {
  const [toC, toD] = [Math.log(rho) - c!, Math.log(rho) - d!];
  return (rho * (toC * toD - toC - toD + 2)) / ((b! - c!) * (b! - d!));
}

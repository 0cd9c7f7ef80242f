import * as tf from '@tensorflow/tfjs-core';
import { combine, stepCoefficients } from './common/dpm_solver_update.js';
import { f32, log32, roundHalfEven } from './common/numeric.js';
import { choice, flag, integer, number, type OptionsOf } from './common/scheduler_config.js';
import {
  NOISE_SCHEDULE_FIELDS,
  SIGMA_CONVERSION_FIELDS,
  spacingFields,
  THRESHOLDING_FIELDS,
} from './common/scheduler_fields.js';
import type { SchedulerOutput, SetTimestepsOptions, StepOptions } from './common/scheduling_utils.js';
import { convertSigmas } from './common/sigmas.js';
import { SolverScheduler } from './common/solver_scheduler.js';
import { solverTimesteps } from './common/timestep_spacing.js';

const FIELDS = {
  ...NOISE_SCHEDULE_FIELDS,
  ...THRESHOLDING_FIELDS,
  ...SIGMA_CONVERSION_FIELDS,
  ...spacingFields('linspace'),
  solver_order: integer(2, 1),
  algorithm_type: choice<string>('deis', ['deis', 'dpmsolver', 'dpmsolver++']),
  solver_type: choice<string>('logrho', ['logrho', 'midpoint', 'heun', 'bh1', 'bh2']),
  lower_order_final: flag(true),
  use_flow_sigmas: flag(false),
  flow_shift: number(1),
  use_dynamic_shifting: flag(false),
  time_shift_type: choice<'exponential' | 'linear'>('exponential', ['exponential', 'linear']),
};

/**
 * Diffusion exponential integrator sampler, multistep over log rho (https://arxiv.org/abs/2204.13902;
 * diffusers/schedulers/scheduling_deis_multistep.py). `setTimesteps` takes `mu`.
 */
export class DEISMultistepScheduler extends SolverScheduler<typeof FIELDS> {
  static override readonly className: string = 'DEISMultistepScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { deis: {}, deis_karras: { use_karras_sigmas: true } };

  private lowerOrderNums = 0;

  constructor(options: OptionsOf<typeof FIELDS> = {}) {
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
      this.remember(tf.div(tf.sub(sample, tf.mul(alpha, original)), sigma));
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

  private update(order: number, index: number, sample: tf.Tensor): tf.Tensor {
    const outputs = [...this.outputs].reverse();
    const to = this.point(index + 1);
    const s0 = this.point(index);
    if (order === 1) {
      const c = stepCoefficients('dpmsolver', s0, to);
      return combine([
        [c.sample, sample],
        [c.d0, outputs[0]!],
      ]);
    }
    const rhos = outputs.slice(0, order).map((_, i) => {
      const { alpha, sigma } = this.point(index - i);
      return f32(sigma / alpha);
    });
    const rhoTo = f32(to.sigma / to.alpha);
    const integral = order === 2 ? linearIntegral : quadraticIntegral;
    const terms = rhos.map((_, i) => {
      const rotated = [...rhos.slice(i), ...rhos.slice(0, i)];
      const coefficient = f32(integral(rhoTo, rotated) - integral(rhos[0]!, rotated));
      return tf.mul(coefficient, outputs[i]!) as tf.Tensor;
    });
    const sum = terms.reduce((a, b) => tf.add(a, b), tf.div(sample, s0.alpha) as tf.Tensor);
    return tf.mul(to.alpha, sum);
  }
}

/** Antiderivative at t of the Lagrange polynomial in log rho that is 1 at b and 0 at c, in float32. */
function linearIntegral(t: number, rhos: readonly number[]): number {
  const [b, c] = rhos.map(log32) as [number, number];
  return f32(f32(t * f32(f32(-c + log32(t)) - 1)) / f32(b - c));
}

/** Antiderivative at t of the Lagrange polynomial in log rho that is 1 at b and 0 at c and d, in float32. */
function quadraticIntegral(t: number, rhos: readonly number[]): number {
  const [b, c, d] = rhos.map(log32) as [number, number, number];
  const x = log32(t);
  const first = f32(f32(c * f32(f32(d - x) + 1)) - f32(d * x));
  const sum = f32(f32(f32(f32(first + d) + f32(x * x)) - f32(2 * x)) + 2);
  return f32(f32(t * sum) / f32(f32(b - c) * f32(b - d)));
}

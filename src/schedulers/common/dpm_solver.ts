import * as tf from '@tensorflow/tfjs-core';
import { choice, count, extendedNumber, type OptionsOf, optional } from '../../config/fields.js';
import { InvalidArgumentError } from '../../errors.js';
import {
  FLOW_FIELDS,
  finalSigmas,
  NOISE_SCHEDULE_FIELDS,
  SIGMA_CONVERSION_FIELDS,
  THRESHOLDING_FIELDS,
  VARIANCE_TYPES,
} from './config.js';
import { lambdasOf } from './schedule.js';
import { combine } from './scheduling_utils.js';
import { expm1, type SchedulePoint, type SolverConfig, SolverScheduler, stepLength } from './solver_scheduler.js';

export type AlgorithmType = 'dpmsolver' | 'dpmsolver++' | 'sde-dpmsolver' | 'sde-dpmsolver++';

/** Configuration entries that DPMSolverMultistep and DPMSolverSinglestep share. */
export const DPM_SOLVER_FIELDS = {
  ...NOISE_SCHEDULE_FIELDS,
  ...THRESHOLDING_FIELDS,
  ...SIGMA_CONVERSION_FIELDS,
  ...FLOW_FIELDS,
  solver_order: count(2, 3),
  solver_type: choice('midpoint', ['midpoint', 'heun', 'logrho', 'bh1', 'bh2']),
  final_sigmas_type: finalSigmas,
  lambda_min_clipped: extendedNumber(-Infinity),
  variance_type: optional(choice('learned', VARIANCE_TYPES)),
};

export interface DPMSolverConfig extends SolverConfig {
  readonly algorithm_type: AlgorithmType | 'deis';
  readonly solver_type: string;
  readonly final_sigmas_type: 'zero' | 'sigma_min';
  readonly lambda_min_clipped: number;
}

/** What DPMSolverMultistep and DPMSolverSinglestep share: their options and the conversion of the model's output. */
export abstract class DPMSolverScheduler<C extends DPMSolverConfig> extends SolverScheduler<C> {
  constructor(options?: OptionsOf<C>) {
    super(options);
    const { algorithm_type, solver_type, final_sigmas_type } = this.config;
    // Names that DEIS and UniPC have stand for the nearest of this solver's own, as in diffusers.
    if (algorithm_type === 'deis') {
      this.updateConfig({ algorithm_type: 'dpmsolver++' });
    }
    if (solver_type !== 'midpoint' && solver_type !== 'heun') {
      this.updateConfig({ solver_type: 'midpoint' });
    }
    if (!this.predictsOriginal && final_sigmas_type === 'zero') {
      throw new InvalidArgumentError(
        `[${this.className}] final_sigmas_type "zero" does not go with algorithm_type "${algorithm_type}"; ` +
          'set final_sigmas_type to "sigma_min"',
      );
    }
  }

  protected get algorithm(): AlgorithmType {
    return this.config.algorithm_type as AlgorithmType;
  }

  /** Whether the solver works on clean samples (the "++" algorithms) or on noise. */
  protected get predictsOriginal(): boolean {
    return this.algorithm.endsWith('++');
  }

  protected checkPrediction(): void {
    const flow = this.predictsOriginal ? (['flow_prediction'] as const) : [];
    this.checkPredictionType(['epsilon', 'sample', 'v_prediction', ...flow]);
  }

  /** The noise level after the last step. */
  protected finalSigma(): number {
    return this.config.final_sigmas_type === 'sigma_min' ? this.trainingSigmas()[0]! : 0;
  }

  /** Training steps whose lambda is not below `lambda_min_clipped`. */
  protected usableSteps(): number {
    const least = this.config.lambda_min_clipped;
    return lambdasOf(this.alphasCumprod).filter((lambda) => lambda >= least).length;
  }

  /** The model's output as the clean sample or the noise, whichever the algorithm works on. */
  protected convertModelOutput(modelOutput: tf.Tensor, sample: tf.Tensor, index: number): tf.Tensor {
    const output = this.withoutVariance(modelOutput, sample);
    if (this.predictsOriginal) {
      return this.predictOriginal(output, sample, index);
    }
    const epsilon = this.predictEpsilon(output, sample, index);
    if (!this.config.thresholding) {
      return epsilon;
    }
    const { alpha, sigma } = this.point(index);
    const original = this.threshold(tf.div(tf.sub(sample, tf.mul(sigma, epsilon)), alpha));
    return tf.div(tf.sub(sample, tf.mul(alpha, original)), sigma);
  }
}

/**
 * Coefficients of an exponential integrator's step between two points of the schedule, for the sample, the model's
 * output (`d0`), its first and second differences and the noise. Tables of https://arxiv.org/abs/2206.00927 and
 * https://arxiv.org/abs/2211.01095.
 */
export interface StepCoefficients {
  sample: number;
  d0: number;
  d1Midpoint: number;
  d1Heun: number;
  d2: number;
  noise: number;
}

export function stepCoefficients(algorithm: AlgorithmType, from: SchedulePoint, to: SchedulePoint): StepCoefficients {
  const h = stepLength(from, to);
  const { alpha, sigma } = to;
  switch (algorithm) {
    case 'dpmsolver++':
      return withMidpoint({
        sample: sigma / from.sigma,
        d0: -alpha * expm1(-h),
        d1Heun: alpha * (expm1(-h) / h + 1),
        d2: -alpha * ((expm1(-h) + h) / h ** 2 - 0.5),
        noise: 0,
      });
    case 'dpmsolver':
      return withMidpoint({
        sample: alpha / from.alpha,
        d0: -sigma * expm1(h),
        d1Heun: -sigma * (expm1(h) / h - 1),
        d2: -sigma * ((expm1(h) - h) / h ** 2 - 0.5),
        noise: 0,
      });
    case 'sde-dpmsolver++':
      return withMidpoint({
        sample: (sigma / from.sigma) * Math.exp(-h),
        d0: -alpha * expm1(-2 * h),
        d1Heun: alpha * (expm1(-2 * h) / (2 * h) + 1),
        d2: alpha * ((-expm1(-2 * h) - 2 * h) / (2 * h) ** 2 - 0.5),
        noise: sigma * Math.sqrt(Math.max(-expm1(-2 * h), 0)),
      });
    case 'sde-dpmsolver':
      return withMidpoint({
        sample: alpha / from.alpha,
        d0: -2 * sigma * expm1(h),
        d1Heun: -2 * sigma * (expm1(h) / h - 1),
        d2: Number.NaN,
        noise: sigma * Math.sqrt(Math.max(expm1(2 * h), 0)),
      });
  }
}

function withMidpoint(coefficients: Omit<StepCoefficients, 'd1Midpoint'>): StepCoefficients {
  return { ...coefficients, d1Midpoint: 0.5 * coefficients.d0 };
}

interface MultistepConfig {
  readonly solver_order: number;
  readonly solver_type: string;
  readonly lower_order_final: boolean;
  readonly euler_at_final: boolean;
  readonly final_sigmas_type: 'zero' | 'sigma_min';
}

/**
 * Order of a multistep method's step: less at the start, for want of outputs, and at the end, for stability of schedules
 * below 15 steps.
 * @param outputs model outputs kept, this step's among them.
 */
export function multistepOrder(config: MultistepConfig, index: number, steps: number, outputs: number): number {
  const short = config.lower_order_final && steps < 15;
  const left = steps - index;
  if (left === 1 && (config.euler_at_final || short || config.final_sigmas_type === 'zero')) {
    return 1;
  }
  return Math.min(config.solver_order, outputs, short ? left : 3);
}

/**
 * The sample at the next point, of the method with as many orders as there are points behind it (`*_update` of diffusers).
 * @param points the next point of the schedule, this one, and those before.
 * @param outputs model outputs at this point and before, the newest last.
 */
export function multistepUpdate(
  config: MultistepConfig,
  algorithm: AlgorithmType,
  [t, s0, s1, s2]: readonly SchedulePoint[],
  outputs: readonly tf.Tensor[],
  sample: tf.Tensor,
  noise: tf.Tensor | undefined,
): tf.Tensor {
  const c = stepCoefficients(algorithm, s0!, t!);
  const [m0, m1, m2] = [...outputs].reverse() as [tf.Tensor, tf.Tensor, tf.Tensor];
  if (!s1) {
    return combine([c.sample, sample], [c.d0, m0], [c.noise, noise]);
  }
  const h = stepLength(s0!, t!);
  const r0 = (s0!.lambda - s1.lambda) / h;
  const d10 = tf.mul(1 / r0, tf.sub(m0, m1));
  if (!s2) {
    const d1 = config.solver_type === 'midpoint' ? c.d1Midpoint : c.d1Heun;
    return combine([c.sample, sample], [c.d0, m0], [d1, d10], [c.noise, noise]);
  }
  const r1 = (s1.lambda - s2.lambda) / h;
  const d11 = tf.mul(1 / r1, tf.sub(m1, m2));
  const curve = tf.sub(d10, d11);
  const d1 = tf.add(d10, tf.mul(r0 / (r0 + r1), curve));
  const d2 = tf.mul(1 / (r0 + r1), curve);
  return combine([c.sample, sample], [c.d0, m0], [c.d1Heun, d1], [c.d2, d2], [c.noise, noise]);
}

/** Refuses the algorithms whose papers have no third order before a loop is begun. */
export function checkThirdOrder(className: string, order: number, algorithm: string, without: string): void {
  if (order === 3 && algorithm === without) {
    throw new InvalidArgumentError(
      `[${className}] has no third order for algorithm_type "${without}"; set solver_order to 1 or 2`,
    );
  }
}

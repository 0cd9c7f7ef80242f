import * as tf from '@tensorflow/tfjs-core';
import { type ConfigOf, choice, count, extendedNumber, flag, number, only, optional } from '../config/fields.js';
import { invalid, is } from '../utils/check.js';
import { noiseShare } from './common/alpha_scheduler.js';
import {
  NOISE_SCHEDULE_FIELDS,
  SIGMA_CONVERSION_FIELDS,
  spacingFields,
  THRESHOLDING_FIELDS,
  VARIANCE_TYPES,
} from './common/config.js';
import { roundHalfEven } from './common/numeric.js';
import { convertSigmas, lambdasOf, solverTimesteps } from './common/schedule.js';
import {
  asList,
  combine,
  mixPerItem,
  type SchedulerOutput,
  type SetTimestepsOptions,
  type StepOptions,
} from './common/scheduling_utils.js';
import { type SchedulePoint, SolverScheduler } from './common/solver_scheduler.js';

const FIELDS = {
  ...NOISE_SCHEDULE_FIELDS,
  ...THRESHOLDING_FIELDS,
  ...SIGMA_CONVERSION_FIELDS,
  ...spacingFields('linspace'),
  predictor_order: count(2, 4),
  corrector_order: count(2, 4),
  /** A function cannot stand in a file: `tauFunction` of the scheduler. */
  tau_func: only(null),
  algorithm_type: choice('data_prediction', ['data_prediction', 'noise_prediction']),
  lower_order_final: flag(true),
  use_flow_sigmas: flag(false),
  flow_shift: number(1),
  lambda_min_clipped: extendedNumber(-Infinity),
  variance_type: optional(choice('learned', VARIANCE_TYPES)),
};

/**
 * Stochastic Adams, a predictor-corrector whose noise is set by a function of the timestep
 * (https://arxiv.org/abs/2309.05019; diffusers/schedulers/scheduling_sasolver.py). `step` takes `generator`.
 */
export class SASolverScheduler extends SolverScheduler<ConfigOf<typeof FIELDS>> {
  static override readonly className = 'SASolverScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { sa_solver: {} };

  /** Stochasticity tau at a timestep: 0 follows the ODE, 1 the SDE of diffusion (`tau_func` of diffusers). */
  tauFunction: (timestep: number) => number = (timestep) => (timestep >= 200 && timestep <= 800 ? 1 : 0);

  /** Sample, noise and timestep of the last prediction, and the order of its correction. */
  private last: { sample: tf.Tensor; noise: tf.Tensor; timestep: number; correctorOrder: number } | null = null;

  protected override get historyLength(): number {
    return Math.max(this.config.predictor_order, this.config.corrector_order - 1);
  }

  private get predictsOriginal(): boolean {
    return this.config.algorithm_type === 'data_prediction';
  }

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    const flow = this.predictsOriginal ? (['flow_prediction'] as const) : [];
    this.checkPredictionType(['epsilon', 'sample', 'v_prediction', ...flow]);
    const steps = this.checkSteps(numInferenceSteps, options);
    const { config } = this;
    if (config.thresholding && !this.predictsOriginal) {
      throw invalid(this.className, 'thresholding', "false with algorithm_type 'noise_prediction'", true);
    }
    const converted = convertSigmas(config, this.trainingSigmas().reverse(), steps);
    if (converted) {
      const timesteps = this.timestepsOf(converted);
      const rounded = config.use_karras_sigmas ? timesteps.map(roundHalfEven) : timesteps;
      this.begin([...converted, converted.at(-1)!], rounded);
    } else if (config.use_flow_sigmas) {
      const sigmas = this.flowSigmas(steps);
      const timesteps = sigmas.map((sigma) => sigma * config.num_train_timesteps);
      this.begin([...sigmas, sigmas.at(-1)!], timesteps);
    } else {
      const usable = lambdasOf(this.alphasCumprod).filter((lambda) => lambda >= config.lambda_min_clipped).length;
      const timesteps = solverTimesteps(config, steps, usable);
      this.begin([...this.sigmasAt(timesteps), this.trainingSigmas()[0]!], timesteps);
    }
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample, this.varianceFactor(modelOutput, sample));
    const index = this.beginStep(timestep);
    const prevSample = tf.tidy(() => {
      const output = this.convertModelOutput(this.withoutVariance(modelOutput, sample), sample, index);
      const corrected = index > 0 && this.last ? this.correct(index, output, this.last) : sample;
      this.pushOutput(output);
      const noise = this.noiseLike(sample, options);
      const { predictor, corrector } = this.ordersAt(index);
      this.setLast({ sample: corrected, noise, timestep, correctorOrder: corrector });
      return this.predict(index, corrected, noise, predictor, this.tauFunction(timestep));
    });
    this.endStep();
    return { prevSample };
  }

  override dispose(): void {
    super.dispose();
    this.last = null;
  }

  /** As the training's noise, at training steps (diffusers' DDPM). */
  override addNoise(original: tf.Tensor, noise: tf.Tensor, timesteps: number | ArrayLike<number>): tf.Tensor {
    const alphas = asList(timesteps).map((t) => {
      if (!is.whole(t) || t >= this.length) {
        throw invalid(this.className, 'timestep', `a training step, an integer from 0 to ${this.length - 1}`, t);
      }
      return this.alphasCumprod[t]!;
    });
    return mixPerItem(alphas.map(Math.sqrt), original, alphas.map(noiseShare), noise);
  }

  private convertModelOutput(modelOutput: tf.Tensor, sample: tf.Tensor, index: number): tf.Tensor {
    if (this.predictsOriginal) {
      return this.predictOriginal(modelOutput, sample, index);
    }
    return this.predictEpsilon(modelOutput, sample, index);
  }

  private ordersAt(index: number): { predictor: number; corrector: number } {
    const { predictor_order, corrector_order, lower_order_final } = this.config;
    const left = lower_order_final ? this.timesteps.length - index : Number.POSITIVE_INFINITY;
    const known = this.outputs.length;
    return {
      predictor: Math.min(predictor_order, left, known),
      corrector: Math.min(corrector_order, left + 1, known + 1),
    };
  }

  private setLast(last: NonNullable<typeof this.last>): void {
    this.release(this.last?.sample);
    this.release(this.last?.noise);
    this.last = { ...last, sample: this.retain(last.sample), noise: this.retain(last.noise) };
  }

  /** The sample at the next point from the outputs up to this one (SA-Predictor, equation 14). */
  private predict(index: number, sample: tf.Tensor, noise: tf.Tensor, order: number, tau: number): tf.Tensor {
    const step = this.stepBetween(index, order, index, tau);
    if (order === 2 && this.predictsOriginal) {
      const { h, s0 } = step;
      // a change of O(h^3) that the authors found to draw slightly better pictures in few steps
      this.shiftWeight(step, (h ** 2 / 2 - step.remainder) / (s0.lambda - this.point(index - 1).lambda));
    }
    return this.advance(step, sample, noise, [...this.outputs].reverse());
  }

  /** The sample at this point again, now that the output here is known (SA-Corrector, equation 17). */
  private correct(index: number, output: tf.Tensor, last: NonNullable<typeof this.last>): tf.Tensor {
    const order = last.correctorOrder;
    const step = this.stepBetween(index - 1, order, index, this.tauFunction(last.timestep));
    if (order === 2 && this.predictsOriginal) {
      this.shiftWeight(step, step.h / 2 - step.remainder / step.h);
    }
    return this.advance(step, last.sample, last.noise, [output, ...[...this.outputs].reverse()]);
  }

  /**
   * The step from index `from` to the next one.
   * @param order number of outputs that are interpolated, from index `newest` backwards.
   */
  private stepBetween(from: number, order: number, newest: number, tau: number): AdamsStep {
    const [s0, t] = [this.point(from), this.point(from + 1)];
    const h = t.lambda - s0.lambda;
    const nodes = Array.from({ length: order }, (_, i) => this.point(newest - i).lambda);
    const rate = this.predictsOriginal ? 1 + tau ** 2 : -1;
    const weights = exponentialIntegrals(nodes, s0.lambda, t.lambda, rate);
    const remainder = (h * rate - 1 + Math.exp(-rate * h)) / rate ** 2;
    return { s0, t, h, tau, rate, weights, remainder };
  }

  /** Moves weight from the second newest output to the newest. */
  private shiftWeight({ t, rate, weights }: AdamsStep, share: number): void {
    weights[0]! += Math.exp(rate * t.lambda) * share;
    weights[1]! -= Math.exp(rate * t.lambda) * share;
  }

  /** Equation 11 (data prediction), or its counterpart for noise prediction. */
  private advance(step: AdamsStep, sample: tf.Tensor, noise: tf.Tensor, outputs: readonly tf.Tensor[]): tf.Tensor {
    const { s0, t, h, tau, weights } = step;
    const variance = 1 + tau ** 2;
    const [keep, scale, noisy] = this.predictsOriginal
      ? [
          Math.exp(-(tau ** 2) * h) * (t.sigma / s0.sigma),
          variance * t.sigma * Math.exp(-(tau ** 2) * t.lambda),
          t.sigma * Math.sqrt(-Math.expm1(-2 * tau ** 2 * h)),
        ]
      : [t.alpha / s0.alpha, -variance * t.alpha, tau * t.sigma * Math.sqrt(Math.expm1(2 * h))];
    const terms = weights.map((weight, i) => [scale * weight, outputs[i]] as const);
    return combine([keep, sample], ...terms, [noisy, noise]);
  }
}

interface AdamsStep {
  s0: SchedulePoint;
  t: SchedulePoint;
  h: number;
  tau: number;
  /** The outputs are integrated against e^(rate lambda). */
  rate: number;
  weights: number[];
  /** (rate h - 1 + e^(-rate h)) / rate^2 */
  remainder: number;
}

/** Integrals from a to b of e^(rate x) times each of the Lagrange polynomials over `nodes`. */
function exponentialIntegrals(nodes: readonly number[], a: number, b: number, rate: number): number[] {
  const moments = exponentialMoments(nodes.length, a, b, rate);
  return nodes.map((node, i) => {
    const others = nodes.filter((_, k) => k !== i);
    const scale = others.reduce((product, other) => product * (node - other), 1);
    return polynomialWithRoots(others).reduce((sum, c, k) => sum + c * moments[k]!, 0) / scale;
  });
}

/** Integrals from a to b of e^(rate x) x^k for k = 0, 1, ..., by parts. */
function exponentialMoments(count: number, a: number, b: number, rate: number): number[] {
  const moments: number[] = [];
  for (let k = 0; k < count; k++) {
    const ends = Math.exp(rate * b) * b ** k - Math.exp(rate * a) * a ** k;
    moments.push((ends - (k === 0 ? 0 : k * moments[k - 1]!)) / rate);
  }
  return moments;
}

/** Coefficients of the product of (x - root), the constant first. */
function polynomialWithRoots(roots: readonly number[]): number[] {
  let p = [1];
  for (const root of roots) {
    p = Array.from({ length: p.length + 1 }, (_, k) => (p[k - 1] ?? 0) - root * (p[k] ?? 0));
  }
  return p;
}

import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../errors.js';
import { lambdasOf } from './betas.js';
import type { AlgorithmType } from './dpm_solver_update.js';
import { f32 } from './numeric.js';
import { choice, extendedNumber, type Fields, flag, integer, number, optional } from './scheduler_config.js';
import {
  NOISE_SCHEDULE_FIELDS,
  SIGMA_CONVERSION_FIELDS,
  THRESHOLDING_FIELDS,
  VARIANCE_TYPES,
} from './scheduler_fields.js';
import { SolverScheduler } from './solver_scheduler.js';

/** Configuration entries that DPMSolverMultistep and DPMSolverSinglestep share. */
export const DPM_SOLVER_FIELDS = {
  ...NOISE_SCHEDULE_FIELDS,
  ...THRESHOLDING_FIELDS,
  ...SIGMA_CONVERSION_FIELDS,
  solver_order: integer(2, 1),
  solver_type: choice<string>('midpoint', ['midpoint', 'heun', 'logrho', 'bh1', 'bh2']),
  use_flow_sigmas: flag(false),
  flow_shift: number(1),
  final_sigmas_type: choice<'zero' | 'sigma_min'>('zero', ['zero', 'sigma_min']),
  lambda_min_clipped: extendedNumber(-Infinity),
  variance_type: optional(choice('learned', VARIANCE_TYPES)),
  use_dynamic_shifting: flag(false),
  time_shift_type: choice<'exponential' | 'linear'>('exponential', ['exponential', 'linear']),
};

interface DPMSolverConfig {
  algorithm_type: AlgorithmType | 'deis';
  solver_type: string;
  final_sigmas_type: 'zero' | 'sigma_min';
  lambda_min_clipped: number;
  thresholding: boolean;
}

/** What DPMSolverMultistep and DPMSolverSinglestep share: their options and the conversion of the model's output. */
export abstract class DPMSolverScheduler<F extends Fields> extends SolverScheduler<F> {
  constructor(options: object) {
    super(options);
    const { algorithm_type, solver_type, final_sigmas_type } = this.dpmConfig;
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

  private get dpmConfig(): DPMSolverConfig {
    return this.config as unknown as DPMSolverConfig;
  }

  protected get algorithm(): AlgorithmType {
    return this.dpmConfig.algorithm_type as AlgorithmType;
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
    return this.dpmConfig.final_sigmas_type === 'sigma_min' ? this.trainingSigmas()[0]! : 0;
  }

  /** Training steps whose lambda is not below `lambda_min_clipped`. */
  protected usableSteps(): number {
    const least = f32(this.dpmConfig.lambda_min_clipped);
    return lambdasOf(this.alphasCumprod).filter((lambda) => lambda >= least).length;
  }

  /** The model's output as the clean sample or the noise, whichever the algorithm works on. */
  protected convertModelOutput(modelOutput: tf.Tensor, sample: tf.Tensor, index: number): tf.Tensor {
    const output = this.withoutVariance(modelOutput, sample);
    if (this.predictsOriginal) {
      return this.predictOriginal(output, sample, index);
    }
    const epsilon = this.predictEpsilon(output, sample, index);
    if (!this.dpmConfig.thresholding) {
      return epsilon;
    }
    const { alpha, sigma } = this.point(index);
    const original = this.threshold(tf.div(tf.sub(sample, tf.mul(sigma, epsilon)), alpha));
    return tf.div(tf.sub(sample, tf.mul(alpha, original)), sigma);
  }
}

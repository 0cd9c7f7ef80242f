import * as tf from '@tensorflow/tfjs-core';
import { type ConfigOf, choice, count, flag, type OptionsOf } from '../config/fields.js';
import { THRESHOLDING_FIELDS } from './common/config.js';
import { type AlgorithmType, checkThirdOrder, multistepOrder, multistepUpdate } from './common/dpm_solver.js';
import { EDM_FIELDS, EDMScheduler } from './common/edm_scheduler.js';
import type { SchedulerOutput, StepOptions } from './common/scheduling_utils.js';
import type { SchedulePoint } from './common/solver_scheduler.js';
import { thresholdSample } from './common/thresholding.js';

const FIELDS = {
  ...EDM_FIELDS,
  ...THRESHOLDING_FIELDS,
  solver_order: count(2, 3),
  algorithm_type: choice('dpmsolver++', ['dpmsolver++', 'sde-dpmsolver++', 'deis']),
  solver_type: choice('midpoint', ['midpoint', 'heun', 'logrho', 'bh1', 'bh2']),
  lower_order_final: flag(true),
  euler_at_final: flag(false),
};

/**
 * DPM-Solver++, multistep, in the formulation of Karras et al. (https://arxiv.org/abs/2211.01095,
 * https://arxiv.org/abs/2206.00364; diffusers/schedulers/scheduling_edm_dpmsolver_multistep.py). `step` takes
 * `generator` (with "sde-dpmsolver++").
 */
export class EDMDPMSolverMultistepScheduler extends EDMScheduler<ConfigOf<typeof FIELDS>> {
  static override readonly className = 'EDMDPMSolverMultistepScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { edm_dpmpp_2m: {} };

  private outputs: tf.Tensor[] = [];

  constructor(options?: OptionsOf<ConfigOf<typeof FIELDS>>) {
    super(options);
    const { algorithm_type, solver_type, solver_order } = this.config;
    checkThirdOrder(this.className, solver_order, algorithm_type, 'sde-dpmsolver++');
    // Names that other solvers have stand for the nearest of this one's own, as in diffusers.
    if (algorithm_type === 'deis') {
      this.updateConfig({ algorithm_type: 'dpmsolver++' });
    }
    if (solver_type !== 'midpoint' && solver_type !== 'heun') {
      this.updateConfig({ solver_type: 'midpoint' });
    }
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    const index = this.beginStep(timestep);
    const algorithm = this.config.algorithm_type as AlgorithmType;
    const prevSample = tf.tidy(() => {
      this.pushOutput(this.thresholded(this.predictOriginal(modelOutput, sample, this.sigmas[index]!)));
      const noise = algorithm === 'sde-dpmsolver++' ? this.noiseLike(sample, options) : undefined;
      const order = multistepOrder(this.config, index, this.timesteps.length, this.outputs.length);
      const points = Array.from({ length: order + 1 }, (_, i) => this.point(index + 1 - i));
      return multistepUpdate(this.config, algorithm, points, this.outputs, sample, noise);
    });
    this.endStep();
    return { prevSample };
  }

  override dispose(): void {
    super.dispose();
    this.outputs = [];
  }

  protected override finalSigma(): number {
    return this.config.final_sigmas_type === 'zero' ? 0 : this.config.sigma_min;
  }

  /** The sample is the signal and sigma times noise: alpha = 1, lambda = -log sigma. */
  private point(index: number): SchedulePoint {
    const sigma = this.sigmas[index]!;
    return { alpha: 1, sigma, lambda: -Math.log(sigma) };
  }

  private thresholded(original: tf.Tensor): tf.Tensor {
    const { thresholding, dynamic_thresholding_ratio, sample_max_value } = this.config;
    return thresholding ? thresholdSample(original, dynamic_thresholding_ratio, sample_max_value) : original;
  }

  private pushOutput(output: tf.Tensor): void {
    this.outputs.push(this.retain(output));
    if (this.outputs.length > this.config.solver_order) {
      this.release(this.outputs.shift());
    }
  }
}

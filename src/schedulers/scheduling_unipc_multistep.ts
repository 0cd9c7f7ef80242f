import * as tf from '@tensorflow/tfjs-core';
import {
  type ConfigOf,
  choice,
  count,
  type Field,
  flag,
  integer,
  list,
  number,
  type OptionsOf,
  optional,
} from '../config/fields.js';
import { InvalidArgumentError } from '../errors.js';
import {
  finalSigmas,
  MAX_STEPS,
  NOISE_SCHEDULE_FIELDS,
  SIGMA_CONVERSION_FIELDS,
  spacingFields,
  THRESHOLDING_FIELDS,
  type TimeShiftType,
} from './common/config.js';
import { f32, linspace, roundHalfEven, solveLinear } from './common/numeric.js';
import {
  convertSigmas,
  logSigmasOf,
  sigmaToT,
  solverTimesteps,
  stretchToTerminal,
  timeShift,
} from './common/schedule.js';
import {
  combine,
  type SchedulerOutput,
  type SetTimestepsOptions,
  type StepOptions,
} from './common/scheduling_utils.js';
import { type SchedulePoint, SolverScheduler, stepLength } from './common/solver_scheduler.js';

/** diffusers' own default, without a further solver. */
const noSolver: Field<null> = {
  default: null,
  expected: 'null',
  parse: (value) => (value === null ? null : undefined),
};

const FIELDS = {
  ...NOISE_SCHEDULE_FIELDS,
  ...THRESHOLDING_FIELDS,
  ...SIGMA_CONVERSION_FIELDS,
  ...spacingFields('linspace'),
  solver_order: count(2, 3),
  predict_x0: flag(true),
  solver_type: choice<string>('bh2', ['bh1', 'bh2', 'midpoint', 'heun', 'logrho']),
  lower_order_final: flag(true),
  disable_corrector: list(integer(0), [], MAX_STEPS, 0),
  solver_p: noSolver,
  use_flow_sigmas: flag(false),
  flow_shift: number(1),
  final_sigmas_type: finalSigmas,
  rescale_betas_zero_snr: flag(false),
  use_dynamic_shifting: flag(false),
  time_shift_type: choice<TimeShiftType>('exponential', ['exponential', 'linear']),
  sigma_min: optional(number(0)),
  sigma_max: optional(number(0)),
  shift_terminal: optional(number(0)),
};

/**
 * Unified predictor-corrector (https://arxiv.org/abs/2302.04867; diffusers/schedulers/scheduling_unipc_multistep.py).
 * `setTimesteps` takes `sigmas` (with use_flow_sigmas) and `mu`.
 */
export class UniPCMultistepScheduler extends SolverScheduler<ConfigOf<typeof FIELDS>> {
  static override readonly className = 'UniPCMultistepScheduler';
  static override readonly fields = FIELDS;
  static override readonly shortNames = { unipc: {}, unipc_karras: { use_karras_sigmas: true } };

  private lowerOrderNums = 0;
  /** Order of the last prediction, which the next correction has too. */
  private lastOrder = 0;
  private lastSample: tf.Tensor | null = null;

  constructor(options?: OptionsOf<ConfigOf<typeof FIELDS>>) {
    super(options);
    const { solver_type, shift_terminal, use_flow_sigmas } = this.config;
    if (solver_type !== 'bh1' && solver_type !== 'bh2') {
      this.updateConfig({ solver_type: 'bh2' });
    }
    if (shift_terminal !== null && !use_flow_sigmas) {
      throw new InvalidArgumentError('[UniPCMultistepScheduler] shift_terminal goes only with use_flow_sigmas');
    }
  }

  setTimesteps(numInferenceSteps?: number | null, options: SetTimestepsOptions = {}): void {
    const { config } = this;
    this.checkPredictionType([
      'epsilon',
      'sample',
      'v_prediction',
      ...(config.predict_x0 ? (['flow_prediction'] as const) : []),
    ]);
    const steps = this.checkSteps(numInferenceSteps, options, ['sigmas', 'mu']);
    if (options.sigmas && !config.use_flow_sigmas) {
      throw new InvalidArgumentError('[UniPCMultistepScheduler.setTimesteps] takes sigmas only with use_flow_sigmas');
    }
    if (config.use_dynamic_shifting !== (options.mu != null)) {
      throw new InvalidArgumentError(
        '[UniPCMultistepScheduler.setTimesteps] takes mu with use_dynamic_shifting, and only then',
      );
    }
    this.lowerOrderNums = 0;
    const { sigmas, timesteps, least } = this.schedule(steps, options);
    this.begin([...sigmas, config.final_sigmas_type === 'zero' ? 0 : least], timesteps);
  }

  /** Noise levels, timesteps, and the final level of "sigma_min". */
  private schedule(
    steps: number,
    options: SetTimestepsOptions,
  ): { sigmas: readonly number[]; timesteps: readonly number[]; least: number } {
    const { config } = this;
    const trained = options.sigmas ?? this.trainingSigmas();
    const converted = convertSigmas(config, [...trained].reverse(), steps);
    if (converted) {
      const flow = config.use_karras_sigmas && config.use_flow_sigmas;
      const sigmas = flow ? converted.map((sigma) => sigma / (sigma + 1)) : converted;
      const logs = logSigmasOf(trained);
      const timesteps = flow
        ? sigmas.map((sigma) => sigma * config.num_train_timesteps)
        : sigmas.map((sigma) => sigmaToT(sigma, logs));
      const rounded = config.use_karras_sigmas && !flow ? timesteps.map(roundHalfEven) : timesteps;
      return { sigmas, timesteps: rounded, least: sigmas.at(-1)! };
    }
    if (config.use_flow_sigmas) {
      const sigmas = this.shiftedFlow(steps, options);
      return { sigmas, timesteps: sigmas.map((sigma) => sigma * config.num_train_timesteps), least: sigmas.at(-1)! };
    }
    const timesteps = solverTimesteps(config, steps);
    return { sigmas: this.sigmasAt(timesteps), timesteps, least: this.trainingSigmas()[0]! };
  }

  private shiftedFlow(steps: number, options: SetTimestepsOptions): number[] {
    const { num_train_timesteps, use_dynamic_shifting, time_shift_type, flow_shift, shift_terminal } = this.config;
    const even = options.sigmas ?? linspace(1, 1 / num_train_timesteps, steps + 1).slice(0, -1);
    const shifted = even.map((sigma) =>
      use_dynamic_shifting
        ? timeShift(time_shift_type, options.mu!, sigma)
        : (flow_shift * sigma) / (1 + (flow_shift - 1) * sigma),
    );
    const sigmas = shift_terminal ? stretchToTerminal(shifted, shift_terminal) : shifted;
    if (Math.abs(sigmas[0]! - 1) < 1e-6) {
      sigmas[0]! -= 1e-6;
    }
    return sigmas;
  }

  step(modelOutput: tf.Tensor, timestep: number, sample: tf.Tensor, _options: StepOptions = {}): SchedulerOutput {
    this.checkStep(modelOutput, timestep, sample);
    const index = this.beginStep(timestep);
    const { solver_order, lower_order_final, disable_corrector, predict_x0 } = this.config;
    const corrects = index > 0 && this.lastSample !== null && !disable_corrector.includes(index - 1);
    const prevSample = tf.tidy(() => {
      const output = predict_x0
        ? this.predictOriginal(modelOutput, sample, index)
        : this.predictEpsilon(modelOutput, sample, index);
      const corrected = corrects ? this.correct(index, output) : sample;
      this.pushOutput(output);
      const left = lower_order_final ? this.timesteps.length - index : solver_order;
      this.lastOrder = Math.min(solver_order, left, this.lowerOrderNums + 1);
      this.release(this.lastSample);
      this.lastSample = this.retain(corrected);
      return this.predict(index, corrected);
    });
    this.lowerOrderNums = Math.min(this.lowerOrderNums + 1, solver_order);
    this.endStep();
    return { prevSample };
  }

  override dispose(): void {
    super.dispose();
    this.lastSample = null;
  }

  /** The sample at the next index, extrapolated from the outputs kept (`multistep_uni_p_bh_update`). */
  private predict(index: number, sample: tf.Tensor): tf.Tensor {
    const order = this.lastOrder;
    const b = this.basis(this.point(index), this.point(index + 1), this.earlier(index, order));
    const weights = order === 2 ? [0.5] : solveLinear(submatrix(b.matrix), b.right.slice(0, -1)).map(f32);
    return this.advance(b, sample, this.differences(b, order), weights);
  }

  /** The sample at this index again, now that the model's output there is known (`multistep_uni_c_bh_update`). */
  private correct(index: number, output: tf.Tensor): tf.Tensor {
    const order = this.lastOrder;
    const b = this.basis(this.point(index - 1), this.point(index), this.earlier(index - 1, order));
    const weights = order === 1 ? [0.5] : solveLinear(b.matrix, b.right).map(f32);
    const differences = [...this.differences(b, order), tf.sub(output, this.outputs.at(-1)!)];
    return this.advance(b, this.lastSample!, differences, weights);
  }

  /** The points before an index that a method of this order looks back to. */
  private earlier(index: number, order: number): SchedulePoint[] {
    return Array.from({ length: order - 1 }, (_, i) => this.point(index - 1 - i));
  }

  /** Divided differences of the outputs kept to the newest one. */
  private differences(basis: Basis, order: number): tf.Tensor[] {
    const newest = this.outputs.at(-1)!;
    return Array.from({ length: order - 1 }, (_, i) =>
      tf.div(tf.sub(this.outputs.at(-2 - i)!, newest), basis.ratios[i]!),
    );
  }

  private advance(
    b: Basis,
    sample: tf.Tensor,
    differences: readonly tf.Tensor[],
    weights: readonly number[],
  ): tf.Tensor {
    const { from, to } = b;
    const x0 = this.config.predict_x0;
    const [scale, keep] = x0 ? [to.alpha, to.sigma / from.sigma] : [to.sigma, to.alpha / from.alpha];
    const linear = tf.sub(tf.mul(keep, sample), tf.mul(scale * b.phi1, this.outputs.at(-1)!));
    if (differences.length === 0) {
      return linear;
    }
    const correction = combine(...differences.map((d, i) => [weights[i]!, d] as const));
    return tf.sub(linear, tf.mul(scale * b.bh, correction));
  }

  /** Coefficients of the methods' B(h) (section 3 of the paper). */
  private basis(from: SchedulePoint, to: SchedulePoint, earlier: readonly SchedulePoint[]): Basis {
    const h = stepLength(from, to);
    const ratios = [...earlier.map((point) => (point.lambda - from.lambda) / h), 1];
    const hh = this.config.predict_x0 ? -h : h;
    const phi1 = f32(Math.expm1(hh));
    const bh = this.config.solver_type === 'bh1' ? hh : phi1;
    let phiK = phi1 / hh - 1;
    let factorial = 1;
    const right: number[] = [];
    const matrix: number[][] = [];
    for (let i = 1; i <= ratios.length; i++) {
      matrix.push(ratios.map((ratio) => ratio ** (i - 1)));
      right.push((phiK * factorial) / bh);
      factorial *= i + 1;
      phiK = phiK / hh - 1 / factorial;
    }
    return { from, to, ratios, phi1, bh, matrix, right };
  }
}

interface Basis {
  from: SchedulePoint;
  to: SchedulePoint;
  /** Positions of earlier points, and of the new one (1), in units of the step. */
  ratios: number[];
  phi1: number;
  bh: number;
  matrix: number[][];
  right: number[];
}

function submatrix(matrix: readonly (readonly number[])[]): number[][] {
  return matrix.slice(0, -1).map((row) => row.slice(0, -1));
}

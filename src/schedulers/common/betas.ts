import { InvalidArgumentError } from '../../errors.js';
import { cumulativeProduct32, f32, log32, sqrt32, torchLinspace32 } from './numeric.js';

/** What a noise schedule of training is made from; names and meaning are those of diffusers' configurations. */
export interface BetaOptions {
  num_train_timesteps: number;
  /** First and last beta, for the schedules that go from one to the other. */
  beta_start: number;
  beta_end: number;
  beta_schedule: string;
  /** The betas themselves, instead of all the other fields. */
  trained_betas: readonly number[] | null;
  /** Shift the schedule so that its last step holds no signal (https://arxiv.org/abs/2305.08891, Algorithm 1). */
  rescale_betas_zero_snr?: boolean;
}

const ALPHA_BARS: Record<string, (t: number) => number> = {
  squaredcos_cap_v2: (t) => Math.cos((((t + 0.008) / 1.008) * Math.PI) / 2) ** 2,
  exp: (t) => Math.exp(t * -12),
  laplace: (t) => {
    const sign = 0.5 - t < 0 ? -1 : 1;
    const snr = Math.exp(-0.5 * sign * Math.log(1 - 2 * Math.abs(0.5 - t) + 1e-6));
    return Math.sqrt(snr / (1 + snr));
  },
};

/** Betas of every training step, in float32 (the `__init__` of diffusers' schedulers). */
export function makeBetas(options: BetaOptions): number[] {
  const betas = trainingBetas(options);
  return options.rescale_betas_zero_snr ? rescaleZeroTerminalSnr(betas) : betas;
}

function trainingBetas(options: BetaOptions): number[] {
  const { num_train_timesteps: steps, beta_start: start, beta_end: end, beta_schedule: schedule } = options;
  if (options.trained_betas !== null) {
    return options.trained_betas.map(f32);
  }
  const alphaBar = ALPHA_BARS[schedule];
  if (alphaBar) {
    return betasForAlphaBar(steps, alphaBar);
  }
  switch (schedule) {
    case 'linear':
      return torchLinspace32(start, end, steps);
    case 'scaled_linear':
      return torchLinspace32(Math.sqrt(start), Math.sqrt(end), steps).map((root) => f32(root * root));
    case 'sigmoid':
      return torchLinspace32(-6, 6, steps).map((x) =>
        f32(f32(f32(1 / (1 + Math.exp(-x))) * f32(end - start)) + f32(start)),
      );
    default:
      throw new InvalidArgumentError(`beta_schedule "${schedule}" is unknown`);
  }
}

/** Betas whose cumulated product follows `alphaBar` over t in [0, 1] (`betas_for_alpha_bar`). */
function betasForAlphaBar(steps: number, alphaBar: (t: number) => number, maxBeta = 0.999): number[] {
  return Array.from({ length: steps }, (_, i) =>
    f32(Math.min(1 - alphaBar((i + 1) / steps) / alphaBar(i / steps), maxBeta)),
  );
}

/** `rescale_zero_terminal_snr`, in float32 throughout. */
function rescaleZeroTerminalSnr(betas: readonly number[]): number[] {
  const roots = cumulativeProduct32(betas.map((beta) => f32(1 - beta))).map(sqrt32);
  const first = roots[0]!;
  const last = roots[roots.length - 1]!;
  const scale = f32(first / f32(first - last));
  const alphasBar = roots.map((root) => f32(f32(root - last) * scale)).map((root) => f32(root * root));
  return alphasBar.map((bar, i) => f32(1 - (i === 0 ? bar : f32(bar / alphasBar[i - 1]!))));
}

/** Cumulated products of 1 - beta: the share of the signal's variance that each training step keeps. */
export function alphasCumprod(betas: readonly number[]): number[] {
  return cumulativeProduct32(betas.map((beta) => f32(1 - beta)));
}

/** Ratios of noise to signal, sqrt((1 - a) / a), ascending with the training step. */
export function sigmasOf(cumprod: readonly number[]): number[] {
  return cumprod.map((a) => sqrt32(f32(f32(1 - a) / a)));
}

/** Half log signal-to-noise ratios, log(sqrt(a)) - log(sqrt(1 - a)). */
export function lambdasOf(cumprod: readonly number[]): number[] {
  return cumprod.map((a) => f32(log32(sqrt32(a)) - log32(sqrt32(f32(1 - a)))));
}

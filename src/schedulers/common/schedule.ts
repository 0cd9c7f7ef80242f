import { InvalidArgumentError } from '../../errors.js';
import type { TimeShiftType, TimestepSpacing } from './config.js';
import { arange, betaQuantile, cumulativeProduct32, f32, linspace, roundHalfEven, torchLinspace32 } from './numeric.js';

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
    // 'sigmoid'
    default:
      return torchLinspace32(-6, 6, steps).map((x) => f32(f32(1 / (1 + Math.exp(-x))) * (end - start) + start));
  }
}

/** Betas whose cumulated product follows `alphaBar` over t in [0, 1] (`betas_for_alpha_bar`). */
function betasForAlphaBar(steps: number, alphaBar: (t: number) => number, maxBeta = 0.999): number[] {
  return Array.from({ length: steps }, (_, i) =>
    f32(Math.min(1 - alphaBar((i + 1) / steps) / alphaBar(i / steps), maxBeta)),
  );
}

/**
 * `rescale_zero_terminal_snr`: sqrt(alpha_bar) shifted to end at 0 and scaled to start where it did. Rounded as torch
 * rounds: the last steps are what is left when numbers near to each other are subtracted.
 */
function rescaleZeroTerminalSnr(betas: readonly number[]): number[] {
  const roots = alphasCumprod(betas).map((bar) => f32(Math.sqrt(bar)));
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

/**
 * Cumulated alphas for schedulers that work on sigmas: with rescaled betas the last sigma would be infinite. diffusers takes
 * the alpha of the smallest float16, 2^-24, from which torch makes a sigma of 4096; steps from there subtract numbers so
 * large that its last bit shows in the latents (2.6e-5), so that alpha is the one of exactly this sigma.
 */
export function finiteAlphasCumprod(options: BetaOptions): number[] {
  const cumprod = alphasCumprod(makeBetas(options));
  if (options.rescale_betas_zero_snr) {
    cumprod[cumprod.length - 1] = 1 / (4096 ** 2 + 1);
  }
  return cumprod;
}

/**
 * Ratios of noise to signal, sqrt((1 - a) / a), ascending with the training step; a float32 table, as torch's is. Its last bit
 * decides which integer a timestep is cut to, and with squaredcos_cap_v2, whose last sigma is 2e4, it shows in the latents.
 */
export function sigmasOf(cumprod: readonly number[]): number[] {
  return cumprod.map((a) => f32(Math.sqrt(f32(f32(1 - a) / a))));
}

/** Logarithms of noise levels, float32 for the same reason. */
export function logSigmasOf(sigmas: readonly number[]): number[] {
  return sigmas.map((sigma) => f32(Math.log(sigma)));
}

/** Half log signal-to-noise ratios, log(sqrt(a)) - log(sqrt(1 - a)). */
export function lambdasOf(cumprod: readonly number[]): number[] {
  return cumprod.map((a) => 0.5 * (Math.log(a) - Math.log1p(-a)));
}

/** Ends of a converted schedule; a number that is set wins over the schedule's own end. */
export interface SigmaRange {
  sigma_min?: number | null;
  sigma_max?: number | null;
}

function ends(sigmas: readonly number[], range: SigmaRange): [max: number, min: number] {
  return [range.sigma_max ?? sigmas[0]!, range.sigma_min ?? sigmas[sigmas.length - 1]!];
}

/** Noise levels of Karras et al. (https://arxiv.org/abs/2206.00364, equation 5) over the ends of descending `sigmas`. */
export function karrasSigmas(sigmas: readonly number[], steps: number, range: SigmaRange = {}, rho = 7): number[] {
  const [max, min] = ends(sigmas, range).map((sigma) => sigma ** (1 / rho)) as [number, number];
  return linspace(0, 1, steps).map((ramp) => (max + ramp * (min - max)) ** rho);
}

/** Noise levels evenly spaced in their logarithm over the ends of descending `sigmas`. */
export function exponentialSigmas(sigmas: readonly number[], steps: number, range: SigmaRange = {}): number[] {
  const [max, min] = ends(sigmas, range);
  return linspace(Math.log(max), Math.log(min), steps).map(Math.exp);
}

/** Noise levels at quantiles of Beta(0.6, 0.6) (https://arxiv.org/abs/2407.12173) over the ends of `sigmas`. */
export function betaSigmas(sigmas: readonly number[], steps: number, range: SigmaRange = {}): number[] {
  const [max, min] = ends(sigmas, range);
  return linspace(0, 1, steps).map((x) => min + betaQuantile(1 - x, 0.6, 0.6) * (max - min));
}

/** Which conversion of its noise levels a configuration asks for. */
export interface SigmaConversion extends SigmaRange {
  use_karras_sigmas?: boolean;
  use_exponential_sigmas?: boolean;
  use_beta_sigmas?: boolean;
}

/** The converted noise levels, or undefined when the configuration asks for none of the conversions. */
export function convertSigmas(
  config: SigmaConversion,
  descending: readonly number[],
  steps: number,
): number[] | undefined {
  if (config.use_karras_sigmas) {
    return karrasSigmas(descending, steps, config);
  }
  if (config.use_exponential_sigmas) {
    return exponentialSigmas(descending, steps, config);
  }
  return config.use_beta_sigmas ? betaSigmas(descending, steps, config) : undefined;
}

/** Refuses a configuration that asks for more than one conversion of its noise levels. */
export function checkConversions(className: string, config: SigmaConversion): void {
  const asked = (['use_karras_sigmas', 'use_exponential_sigmas', 'use_beta_sigmas'] as const).filter((k) => config[k]);
  if (asked.length > 1) {
    throw new InvalidArgumentError(
      `[${className}] expects at most one conversion of its sigmas, got ${asked.join(' and ')}`,
    );
  }
}

/** The training step, a fraction, whose ascending `logSigmas` entry would be log(sigma) (`_sigma_to_t`). */
export function sigmaToT(sigma: number, logSigmas: readonly number[]): number {
  const logSigma = Math.log(Math.max(sigma, 1e-10));
  const nearest = logSigmas.findLastIndex((level) => level <= logSigma);
  const low = Math.min(Math.max(nearest, 0), logSigmas.length - 2);
  const [below, above] = [logSigmas[low]!, logSigmas[low + 1]!];
  const w = Math.min(Math.max((below - logSigma) / f32(below - above), 0), 1);
  return (1 - w) * low + w * (low + 1);
}

/**
 * Noise levels of ancestral sampling: `down` is stepped down to, and noise of `up` arrives at `next` (k-diffusion's
 * `get_ancestral_step`): up = next sqrt(1 - next^2 / sigma^2), down = sqrt(next^2 - up^2) = next^2 / sigma. Rounded as torch
 * rounds, because that difference is mostly rounding after a long step; where nothing is left of it, down is exact.
 */
export function ancestralStep(sigma: number, next: number): { up: number; down: number } {
  const [from, to] = [f32(sigma ** 2), f32(next ** 2)];
  const up = f32(Math.sqrt(f32(f32(to * f32(from - to)) / from)));
  const variance = f32(to - f32(up ** 2));
  return { up, down: variance > 0 ? f32(Math.sqrt(variance)) : next ** 2 / sigma };
}

/**
 * Geometric mean of two noise levels, 0 when one of them is: exp of the logarithms' mean as torch's lerp gives it in float32,
 * because the logarithm's rounding shows in the latents when a level is 2e4.
 */
export function midpoint(a: number, b: number): number {
  const [x, y] = [f32(Math.log(a)), f32(Math.log(b))];
  return f32(Math.exp(f32(y - f32(f32(y - x) * 0.5))));
}

interface SpacingOptions {
  timestep_spacing: TimestepSpacing;
  num_train_timesteps: number;
  /** Added to the steps of "leading". */
  steps_offset: number;
}

/** Descending integer training steps (DDIM, DDPM, PNDM). */
export function integerTimesteps(config: SpacingOptions, steps: number): number[] {
  const { num_train_timesteps: trained } = config;
  if (config.timestep_spacing === 'linspace') {
    return linspace(0, trained - 1, steps)
      .map(roundHalfEven)
      .reverse();
  }
  return leadingOrTrailing(config, steps, trained, steps);
}

/** Descending training steps in float32, fractions for "linspace" (the schedulers that work on sigmas). */
export function fractionalTimesteps(config: SpacingOptions, steps: number): number[] {
  const { num_train_timesteps: trained } = config;
  if (config.timestep_spacing === 'linspace') {
    return linspace(0, trained - 1, steps)
      .map(f32)
      .reverse();
  }
  return leadingOrTrailing(config, steps, trained, steps);
}

/**
 * Descending integer training steps of the multistep solvers, which lay out one step more than asked for and leave out
 * the last; only the first `usable` training steps are used (`lambda_min_clipped`).
 */
export function solverTimesteps(config: SpacingOptions, steps: number, usable = config.num_train_timesteps): number[] {
  if (config.timestep_spacing === 'linspace') {
    return linspace(0, usable - 1, steps + 1)
      .map(roundHalfEven)
      .reverse()
      .slice(0, -1);
  }
  if (config.timestep_spacing === 'trailing') {
    return leadingOrTrailing(config, steps, usable, steps);
  }
  return leadingOrTrailing(config, steps + 1, usable, steps).slice(0, -1);
}

function leadingOrTrailing(config: SpacingOptions, count: number, usable: number, steps: number): number[] {
  if (config.timestep_spacing === 'leading') {
    const ratio = Math.floor(usable / count);
    return Array.from({ length: count }, (_, i) => i * ratio + config.steps_offset).reverse();
  }
  return arange(usable, 0, -config.num_train_timesteps / steps).map((t) => roundHalfEven(t) - 1);
}

/** Shifts noise levels of a flow by `mu` (`time_shift` of diffusers, with its sigma of 1). */
export function timeShift(type: TimeShiftType, mu: number, t: number): number {
  const factor = type === 'exponential' ? Math.exp(mu) : mu;
  return factor / (factor + (1 / t - 1));
}

/** Stretches descending noise levels of a flow so that the last one is `terminal` (`stretch_shift_to_terminal`). */
export function stretchToTerminal(sigmas: readonly number[], terminal: number): number[] {
  const scale = (1 - sigmas.at(-1)!) / (1 - terminal);
  return sigmas.map((sigma) => 1 - (1 - sigma) / scale);
}

/** Noise levels of a rectified flow shifted by a constant factor. */
export function shiftFlow(shift: number, sigma: number): number {
  return (shift * sigma) / (1 + (shift - 1) * sigma);
}

/** A schedule of two model calls per step: every value but the first occurs twice. */
export function twice(values: readonly number[]): number[] {
  return values.flatMap((value, i) => (i === 0 ? [value] : [value, value]));
}

import { betaQuantile } from './beta_distribution.js';
import { linspace } from './numeric.js';

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

/** Roundings of `sigmaToT`: of its logarithms and weights, and of its result. The default is float64 throughout. */
export interface Precision {
  weight: (x: number) => number;
  result: (x: number) => number;
}

const FLOAT64: Precision = { weight: (x) => x, result: (x) => x };

/** The training step, a fraction, whose ascending `logSigmas` entry would be log(sigma) (`_sigma_to_t`). */
export function sigmaToT(sigma: number, logSigmas: readonly number[], precision = FLOAT64): number {
  const { weight, result } = precision;
  const logSigma = weight(Math.log(Math.max(sigma, 1e-10)));
  let low = 0;
  for (let i = 0; i < logSigmas.length; i++) {
    if (logSigma - logSigmas[i]! >= 0) {
      low = i;
    }
  }
  low = Math.min(low, logSigmas.length - 2);
  const [below, above] = [logSigmas[low]!, logSigmas[low + 1]!];
  const w = Math.min(Math.max(weight(weight(below - logSigma) / weight(below - above)), 0), 1);
  return result(result(weight(1 - w) * low) + result(w * (low + 1)));
}

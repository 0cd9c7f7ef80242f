/**
 * The arithmetic of numpy, scipy and PyTorch that schedules are made with. Coefficients are computed in float64; float32 is
 * kept where references show that it decides: the tables of betas, sigmas and their logarithms, timesteps, and what huge or
 * tiny sigmas enlarge.
 */

/** Rounds to float32. */
export const f32 = Math.fround;

/** `np.linspace`. */
export function linspace(start: number, stop: number, count: number, endpoint = true): number[] {
  const intervals = endpoint ? count - 1 : count;
  const step = intervals > 0 ? (stop - start) / intervals : stop - start;
  const out = Array.from({ length: count }, (_, i) => i * step + start);
  if (endpoint && count > 1) {
    out[count - 1] = stop;
  }
  return out;
}

/** `np.arange` of floating point numbers, with its way of rounding the step. */
export function arange(start: number, stop: number, step: number): number[] {
  const length = Math.max(0, Math.ceil((stop - start) / step));
  const rounded = start + step - start;
  return Array.from({ length }, (_, i) => (i === 1 ? start + step : start + i * rounded));
}

/** `np.round`: halves go to the even neighbour. */
export function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) {
    return rest < 0.5 ? floor : floor + 1;
  }
  return floor % 2 === 0 ? floor : floor + 1;
}

/** `np.interp(x, np.arange(len(values)), values)`: linear between the values, constant beyond their ends. */
export function interpolate(x: number, values: ArrayLike<number>): number {
  const last = values.length - 1;
  if (x >= last) {
    return values[last]!;
  }
  if (x < 0) {
    return values[0]!;
  }
  const i = Math.floor(x);
  return x === i ? values[i]! : (values[i + 1]! - values[i]!) * (x - i) + values[i]!;
}

/** `torch.linspace(start, end, steps, dtype=torch.float32)`, which counts from both ends. */
export function torchLinspace32(start: number, end: number, steps: number): number[] {
  const [a, b] = [f32(start), f32(end)];
  if (steps === 1) {
    return [a];
  }
  const step = f32(f32(b - a) / (steps - 1));
  const half = Math.floor(steps / 2);
  return Array.from({ length: steps }, (_, i) => f32(i < half ? a + step * i : b - step * (steps - 1 - i)));
}

/** `torch.cumprod` of float32 numbers, which multiplies in float64 and rounds each result. */
export function cumulativeProduct32(values: readonly number[]): number[] {
  let product = 1;
  return values.map((value) => f32((product *= value)));
}

/** Solves a small square system by Gaussian elimination with row pivoting, in float64. */
export function solveLinear(matrix: readonly (readonly number[])[], right: readonly number[]): number[] {
  const rows = matrix.map((row, i) => [...row, right[i]!]);
  const n = rows.length;
  for (let k = 0; k < n; k++) {
    let pivot = k;
    for (let i = k + 1; i < n; i++) {
      if (Math.abs(rows[i]![k]!) > Math.abs(rows[pivot]![k]!)) {
        pivot = i;
      }
    }
    [rows[k], rows[pivot]] = [rows[pivot]!, rows[k]!];
    for (let i = k + 1; i < n; i++) {
      const factor = rows[i]![k]! / rows[k]![k]!;
      for (let j = k; j <= n; j++) {
        rows[i]![j]! -= factor * rows[k]![j]!;
      }
    }
  }
  const solution = new Array<number>(n).fill(0);
  for (let k = n - 1; k >= 0; k--) {
    const known = solution.reduce((sum, x, j) => (j > k ? sum + rows[k]![j]! * x : sum), 0);
    solution[k] = (rows[k]![n]! - known) / rows[k]![k]!;
  }
  return solution;
}

/** Positive abscissae of the 21-point Gauss-Kronrod rule, descending; every second one is a Gauss point. */
const ABSCISSAE = [
  0.9956571630258081, 0.9739065285171717, 0.9301574913557082, 0.8650633666889845, 0.7808177265864169,
  0.6794095682990244, 0.5627571346686047, 0.4333953941292472, 0.2943928627024602, 0.14887433898163122, 0,
];
const WEIGHTS = [
  0.011694638867371874, 0.032558162307964725, 0.054755896574351995, 0.07503967481091996, 0.0931254545836976,
  0.10938715880229764, 0.12349197626206584, 0.13470921731147334, 0.14277593857706009, 0.14773910490133849,
  0.1494455540029169,
];

/** Integral of a smooth function from a to b by the rule that QUADPACK (and `scipy.integrate.quad`) starts with. */
export function gaussKronrod21(fn: (x: number) => number, a: number, b: number): number {
  const center = (a + b) / 2;
  const half = (b - a) / 2;
  let sum = fn(center) * WEIGHTS[10]!;
  for (let i = 0; i < 10; i++) {
    const offset = half * ABSCISSAE[i]!;
    sum += WEIGHTS[i]! * (fn(center - offset) + fn(center + offset));
  }
  return sum * half;
}

/** Lanczos coefficients (g = 7, 9 terms) of log gamma; about 15 digits. */
const LANCZOS = [
  0.9999999999998099, 676.5203681218851, -1259.1392167224028, 771.3234287776531, -176.6150291621406, 12.507343278686905,
  -0.13857109526572012, 9.984369578019572e-6, 1.5056327351493116e-7,
];

function logGamma(x: number): number {
  if (x < 0.5) {
    return Math.log(Math.PI / Math.sin(Math.PI * x)) - logGamma(1 - x);
  }
  const z = x - 1;
  const t = z + 7.5;
  const series = LANCZOS.reduce((sum, c, i) => (i === 0 ? c : sum + c / (z + i)), 0);
  return 0.5 * Math.log(2 * Math.PI) + (z + 0.5) * Math.log(t) - t + Math.log(series);
}

/** Continued fraction of the incomplete beta function by Lentz's method (Numerical Recipes, section 6.4). */
function betaFraction(x: number, a: number, b: number): number {
  const guard = (v: number): number => (Math.abs(v) < 1e-300 ? 1e-300 : v);
  let c = 1;
  let d = 1 / guard(1 - ((a + b) * x) / (a + 1));
  let h = d;
  for (let m = 1; m < 500; m++) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / guard(1 + even * d);
    c = guard(1 + even / c);
    h *= d * c;
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / guard(1 + odd * d);
    c = guard(1 + odd / c);
    h *= d * c;
    if (Math.abs(d * c - 1) < 1e-16) {
      break;
    }
  }
  return h;
}

/** Regularised incomplete beta function I_x(a, b), the cumulated distribution of Beta(a, b). */
function betaCdf(x: number, a: number, b: number): number {
  if (x <= 0 || x >= 1) {
    return x <= 0 ? 0 : 1;
  }
  const front = Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x));
  return x < (a + 1) / (a + b + 2) ? (front * betaFraction(x, a, b)) / a : 1 - (front * betaFraction(1 - x, b, a)) / b;
}

/** Quantile of Beta(a, b): the x with I_x(a, b) = q, as `scipy.stats.beta.ppf`. */
export function betaQuantile(q: number, a: number, b: number): number {
  if (q <= 0 || q >= 1) {
    return q <= 0 ? 0 : 1;
  }
  if (q > 0.5) {
    return 1 - lowerQuantile(1 - q, b, a);
  }
  return lowerQuantile(q, a, b);
}

/** Newton's method kept inside a shrinking bracket; q is at most 1/2, where I_x keeps its relative precision. */
function lowerQuantile(q: number, a: number, b: number): number {
  const logBeta = logGamma(a) + logGamma(b) - logGamma(a + b);
  let low = 0;
  let high = 1;
  let x = 0.5;
  for (let i = 0; i < 200; i++) {
    const excess = betaCdf(x, a, b) - q;
    if (excess > 0) {
      high = x;
    } else {
      low = x;
    }
    const density = Math.exp((a - 1) * Math.log(x) + (b - 1) * Math.log1p(-x) - logBeta);
    let next = x - excess / density;
    if (!(next > low && next < high)) {
      next = (low + high) / 2;
    }
    if (Math.abs(next - x) <= 1e-16 * x) {
      return next;
    }
    x = next;
  }
  return x;
}

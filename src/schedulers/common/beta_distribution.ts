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
export function betaCdf(x: number, a: number, b: number): number {
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

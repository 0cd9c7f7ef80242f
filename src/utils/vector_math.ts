/**
 * Logarithm, sine and cosine in float32 as PyTorch's vectorised CPU code computes them: the Cephes polynomials of
 * ATen/native/cpu/avx_mathfun.h, with the multiply-adds that its compiler fuses. Every rounding is followed, so that
 * results are PyTorch's to the last bit. A float32 product is exact in a JavaScript number, therefore
 * `fround(a * b + c)` is the fused operation and `fround(fround(a * b) + c)` the separate ones.
 */
const f = Math.fround;

const SQRT_HALF = f(Math.SQRT1_2);
const LOG_POLYNOMIAL = [
  7.0376836292e-2, -1.151461031e-1, 1.167699874e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
  2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
].map(f);
/** ln 2 in two parts, the larger one exact in a few bits. */
const LN2_LOW = f(-2.1219444e-4);
const LN2_HIGH = 0.693359375;

const FOUR_OVER_PI = f(4 / Math.PI);
/** pi / 4 in three parts, negative. */
const MINUS_PI_4 = [-0.78515625, -2.4187564849853516e-4, -3.774894977445941e-8].map(f) as [number, number, number];
const SIN_POLYNOMIAL = [-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1].map(f) as [number, number, number];
const COS_POLYNOMIAL = [2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2].map(f) as [
  number,
  number,
  number,
];

const float = new Float32Array(1);
const bits = new Int32Array(float.buffer);

/** Natural logarithm of a positive, normal float32 number. */
export function logFloat32(value: number): number {
  float[0] = value;
  let exponent = (bits[0]! >>> 23) - 126;
  bits[0] = (bits[0]! & ~0x7f800000) | 0x3f000000;
  let x = float[0]!;
  if (x < SQRT_HALF) {
    exponent -= 1;
    x = f(f(x - 1) + x);
  } else {
    x = f(x - 1);
  }
  const z = f(x * x);
  let y = LOG_POLYNOMIAL[0]!;
  for (let i = 1; i < LOG_POLYNOMIAL.length; i++) {
    y = f(y * x + LOG_POLYNOMIAL[i]!);
  }
  y = f(f(y * x) * z + f(exponent * LN2_LOW));
  y = f(y - z * 0.5);
  return f(f(x + y) + exponent * LN2_HIGH);
}

/** Sine and cosine of a non-negative float32 number below 8192, written to out[0] and out[1]. */
export function sinCosFloat32(value: number, out: Float32Array): void {
  const octant = (Math.trunc(f(value * FOUR_OVER_PI)) + 1) & ~1;
  let x = value;
  for (const part of MINUS_PI_4) {
    x = f(octant * part + x);
  }
  const z = f(x * x);
  const [c0, c1, c2] = COS_POLYNOMIAL;
  let c = f(f(f(c0 * z + c1) * z + c2) * z);
  c = f(f(c * z - f(z * 0.5)) + 1);
  const [s0, s1, s2] = SIN_POLYNOMIAL;
  let s = f(f(f(s0 * z + s1) * z + s2) * z);
  s = f(s * x + x);
  const swapped = (octant & 2) !== 0;
  const sine = swapped ? c : s;
  const cosine = swapped ? s : c;
  out[0] = octant & 4 ? -sine : sine;
  out[1] = (octant - 2) & 4 ? cosine : -cosine;
}

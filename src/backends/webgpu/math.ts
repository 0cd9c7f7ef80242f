/** Functions of one float32, as WGSL expressions of `a`; `p` and `q` are the kernel's parameters. */
export const UNARY: Record<string, string> = {
  Abs: 'abs(a)',
  Neg: '-a',
  Exp: 'exp(a)',
  Expm1: 'expm1(a)',
  Log: 'logarithm(a)',
  Log1p: 'log1p(a)',
  Sqrt: 'sqrt(a)',
  Rsqrt: '1.0 / sqrt(a)',
  Square: 'a * a',
  Reciprocal: '1.0 / a',
  Sigmoid: 'sigmoid(a)',
  Tanh: 'select(tanh(clamp(a, -20.0, 20.0)), a, isNan(a))',
  Erf: 'erf(a)',
  Relu: 'select(max(a, 0.0), a, isNan(a))',
  Relu6: 'select(clamp(a, 0.0, 6.0), a, isNan(a))',
  LeakyRelu: 'select(a, p * a, a < 0.0)',
  Elu: 'select(a, expm1(a), a < 0.0)',
  Selu: 'select(1.0507009873554805 * a, 1.7580993408473768 * expm1(a), a < 0.0)',
  Softplus: 'select(max(a, 0.0) + log1p(exp(-abs(a))), a, isNan(a))',
  Sin: 'sinOf(a)',
  Cos: 'cosOf(a)',
  Tan: 'sinOf(a) / cosOf(a)',
  Asin: 'asin(a)',
  Acos: 'acos(a)',
  Atan: 'atan(a)',
  Sinh: 'select(0.5 * (exp(a) - exp(-a)), 0.5 * (expm1(a) - expm1(-a)), abs(a) < 1.0)',
  Cosh: '0.5 * (exp(a) + exp(-a))',
  Asinh: 'select(sign(a) * log(abs(a) + sqrt(a * a + 1.0)), a, isNan(a))',
  Acosh: 'select(log(a + sqrt(a * a - 1.0)), nan(), a < 1.0 || isNan(a))',
  Atanh: 'select(0.5 * (log1p(a) - log1p(-a)), nan(), abs(a) > 1.0 || isNan(a))',
  Floor: 'floor(a)',
  Ceil: 'ceil(a)',
  Round: 'round(a)',
  Sign: 'select(sign(a), 0.0, isNan(a))',
  Step: 'select(select(p, 1.0, a > 0.0), a, isNan(a))',
  ClipByValue: 'select(clamp(a, p, q), a, isNan(a))',
};

/** The same for int32, where integers stay integers. */
export const UNARY_INT: Record<string, string> = {
  Abs: 'abs(a)',
  Neg: '-a',
  Square: 'a * a',
  Relu: 'max(a, 0)',
  Sign: 'sign(a)',
};

/** Kernels that give int32 for int32 by way of float32. */
export const ROUNDS_TO_INT = new Set(['ClipByValue', 'Step', 'Floor', 'Ceil', 'Round', 'Relu6']);

/** Predicates: bool for every number. */
export const TESTS: Record<string, string> = { IsNan: 'isNan(a)', IsInf: 'isInf(a)', IsFinite: 'isFinite(a)' };

/** Functions of two float32, of `a` and `b`. */
export const BINARY: Record<string, string> = {
  Add: 'a + b',
  Sub: 'a - b',
  Multiply: 'a * b',
  RealDiv: 'a / b',
  Maximum: 'select(max(a, b), a + b, isNan(a) || isNan(b))',
  Minimum: 'select(min(a, b), a + b, isNan(a) || isNan(b))',
  Pow: 'power(a, b)',
  SquaredDifference: '(a - b) * (a - b)',
  FloorDiv: 'floor(a / b)',
  Mod: 'modulo(a, b)',
  Atan2: 'select(atan2(a, b), a + b, isNan(a) || isNan(b))',
  Prelu: 'select(a, a * b, a < 0.0)',
};

/** The same for int32. */
export const BINARY_INT: Record<string, string> = {
  Add: 'a + b',
  Sub: 'a - b',
  Multiply: 'a * b',
  RealDiv: 'select(a / select(b, 1, b == 0), 0, b == 0)',
  Maximum: 'max(a, b)',
  Minimum: 'min(a, b)',
  Pow: 'power(a, b)',
  SquaredDifference: '(a - b) * (a - b)',
  FloorDiv: 'floorDiv(a, b)',
  Mod: 'select(a - b * floorDiv(a, b), 0, b == 0)',
  Prelu: 'select(a, a * b, a < 0)',
};

/** Two operands, bool result; T is the operands' type. */
export const COMPARISONS: Record<string, string> = {
  Equal: 'a == b',
  NotEqual: 'a != b || isNotANumber(a) || isNotANumber(b)',
  Greater: 'a > b',
  GreaterEqual: 'a >= b',
  Less: 'a < b',
  LessEqual: 'a <= b',
  LogicalAnd: '(a != T(0)) && (b != T(0))',
  LogicalOr: '(a != T(0)) || (b != T(0))',
};

/** Functions that the expressions above and the fused kernels call; a shader gets those that it names. */
const FUNCTIONS: Record<string, string> = {
  // a constant would be refused
  nan: 'fn nan() -> f32 { var bits = 0x7fc00000u; return bitcast<f32>(bits); }',
  logarithm: 'fn logarithm(x: f32) -> f32 { return select(log(x), nan(), x < 0.0 || isNan(x)); }',
  isNotANumber: 'fn isNotANumber(x: f32) -> bool { return isNan(x); }',
  // exp(x) - 1 and log(1 + x) without cancellation (Kahan)
  expm1: `fn expm1(x: f32) -> f32 {
  let u = exp(x);
  if (u == 1.0) { return x; }
  let v = u - 1.0;
  if (v == -1.0 || abs(x) > 1.0) { return v; }
  return v * x / log(u);
}`,
  log1p: `fn log1p(x: f32) -> f32 {
  let u = 1.0 + x;
  if (u == 1.0) { return x; }
  if (u < 0.0 || isNan(u)) { return nan(); }
  return select(log(u) * (x / (u - 1.0)), log(u), abs(x) > 1.0);
}`,
  sigmoid: 'fn sigmoid(x: f32) -> f32 { let e = exp(-abs(x)); return select(e, 1.0, x >= 0.0) / (1.0 + e); }',
  // Taylor's series near 0; beyond, Abramowitz and Stegun 7.1.26
  erf: `fn erf(x: f32) -> f32 {
  let y = abs(x); let s = x * x;
  if (y < 0.8) {
    let series = 1.0 + s * (-0.33333333 + s * (0.1 + s * (-0.023809524 + s * (0.0046296296 + s * (-0.00075757576
      + s * (0.00010683761 + s * (-1.3227513e-5 + s * 1.4589169e-6)))))));
    return 1.1283791671 * x * series;
  }
  let t = 1.0 / (1.0 + 0.3275911 * y);
  let tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return select(sign(x) * (1.0 - tail * exp(-min(s, 80.0))), x, isNan(x));
}`,
  silu: 'fn silu(x: f32) -> f32 { return x * sigmoid(x); }',
  gelu: 'fn gelu(x: f32) -> f32 { return 0.5 * x * (1.0 + erf(x * 0.70710678118654752)); }',
  quick_gelu: 'fn quick_gelu(x: f32) -> f32 { return x * sigmoid(1.702 * x); }',
  // WGSL promises an absolute error of 2^-11 only, within [-pi, pi]: reduction to a quadrant and Cephes's polynomials
  sinOf: 'fn sinOf(x: f32) -> f32 { return quadrant(x, 0); }',
  cosOf: 'fn cosOf(x: f32) -> f32 { return quadrant(x, 1); }',
  quadrant: `fn quadrant(x: f32, shift: i32) -> f32 {
  let n = round(x * 0.63661977236758134);
  let r = ((x - n * 1.5703125) - n * 4.837512969970703e-4) - n * 7.54978995489188216e-8;
  let s = r * r;
  let sine = r + r * s * (-1.6666654611e-1 + s * (8.3321608736e-3 - s * 1.9515295891e-4));
  let cosine = 1.0 - 0.5 * s + s * s * (4.166664568298827e-2 + s * (-1.388731625493765e-3 + s * 2.443315711809948e-5));
  let k = i32(n) + shift;
  let y = select(sine, cosine, (k & 1) == 1);
  return select(y, -y, (k & 2) == 2);
}`,
  power: `fn power(x: f32, y: f32) -> f32 {
  let whole = floor(y) == y;
  if (whole && abs(y) <= 64.0) {
    var n = u32(abs(y)); var base = x; var result = 1.0;
    while (n > 0u) { if ((n & 1u) == 1u) { result *= base; } base *= base; n >>= 1u; }
    return select(result, 1.0 / result, y < 0.0);
  }
  if (y == 0.5) { return sqrt(x); }
  let size = pow(abs(x), y);
  let odd = whole && abs(y % 2.0) == 1.0;
  return select(select(size, nan(), !whole), select(size, -size, odd && x < 0.0), x >= 0.0 || whole);
}`,
  modulo:
    'fn modulo(a: f32, b: f32) -> f32 { let r = a % b; return select(r, r + b, r != 0.0 && (r < 0.0) != (b < 0.0)); }',
};

const INTEGER_FUNCTIONS: Record<string, string> = {
  isNotANumber: 'fn isNotANumber(x: i32) -> bool { return false; }',
  floorDiv: `fn floorDiv(a: i32, b: i32) -> i32 {
  if (b == 0) { return 0; }
  let q = a / b;
  return select(q, q - 1, (a % b != 0) && ((a < 0) != (b < 0)));
}`,
  power: `fn power(a: i32, b: i32) -> i32 {
  if (b < 0) { return select(0, select(1, a, (b & 1) == 1), abs(a) == 1); }
  var n = u32(b); var base = a; var result = 1;
  while (n > 0u) { if ((n & 1u) == 1u) { result *= base; } base *= base; n >>= 1u; }
  return result;
}`,
};

/** The functions that `code` calls, with those that they call, each before its first use. */
export function withFunctions(code: string, integer = false): string {
  const library = integer ? INTEGER_FUNCTIONS : FUNCTIONS;
  const taken = new Set<string>();
  const take = (text: string) => {
    for (const [name, body] of Object.entries(library)) {
      if (!taken.has(name) && new RegExp(`\\b${name}\\(`).test(text)) {
        taken.add(name);
        take(body);
      }
    }
  };
  take(code);
  return [...taken].map((name) => library[name]).join('\n');
}

// The functions of one and of two numbers, each in one line. Formulas as in tfjs-core's own kernels.
#pragma once
#include "epilogue.cuh"

namespace td::cuda {

enum class Unary : int {
  abs, neg, exp, expm1, log, log1p, sqrt, rsqrt, square, reciprocal, sigmoid, tanh, erf, relu, relu6, leaky_relu, elu, selu,
  softplus, sin, cos, tan, floor, ceil, round, sign, step, clip, silu, gelu, quick_gelu
};

__device__ __forceinline__ float softplus(float x) { return x > 16.f ? x : x < -16.f ? expf(x) : log1pf(expf(x)); }

/// p0 and p1: the bounds of clip, the slope of leaky_relu, the value of step below 0.
__device__ __forceinline__ float apply(Unary op, float x, float p0, float p1) {
  switch (op) {
    case Unary::abs: return fabsf(x);
    case Unary::neg: return -x;
    case Unary::exp: return expf(x);
    case Unary::expm1: return expm1f(x);
    case Unary::log: return logf(x);
    case Unary::log1p: return log1pf(x);
    case Unary::sqrt: return sqrtf(x);
    case Unary::rsqrt: return 1.f / sqrtf(x);
    case Unary::square: return x * x;
    case Unary::reciprocal: return 1.f / x;
    case Unary::sigmoid: return sigmoid(x);
    case Unary::tanh: return tanhf(x);
    case Unary::erf: return erff(x);
    case Unary::relu: return x < 0.f ? 0.f : x;
    case Unary::relu6: return x < 0.f ? 0.f : x > 6.f ? 6.f : x;
    case Unary::leaky_relu: return x < 0.f ? x * p0 : x;
    case Unary::elu: return x < 0.f ? expm1f(x) : x;
    case Unary::selu: return x < 0.f ? 1.7580993408473768f * expm1f(x) : 1.0507009873554805f * x;
    case Unary::softplus: return softplus(x);
    case Unary::sin: return sinf(x);
    case Unary::cos: return cosf(x);
    case Unary::tan: return float(tan(double(x)));
    case Unary::floor: return floorf(x);
    case Unary::ceil: return ceilf(x);
    case Unary::round: return rintf(x);
    case Unary::sign: return x > 0.f ? 1.f : x < 0.f ? -1.f : 0.f;
    case Unary::step: return x != x ? x : x > 0.f ? 1.f : p0;
    case Unary::clip: return x < p0 ? p0 : x > p1 ? p1 : x;
    case Unary::silu: return x * sigmoid(x);
    case Unary::gelu: return gelu(x);
    default: return x * sigmoid(1.702f * x);  // quick_gelu
  }
}

/// Those that keep integers; the host sends the others through float32.
__device__ __forceinline__ int32_t apply(Unary op, int32_t x) {
  switch (op) {
    case Unary::abs: return x < 0 ? int32_t(0u - uint32_t(x)) : x;
    case Unary::neg: return int32_t(0u - uint32_t(x));
    case Unary::square: return int32_t(uint32_t(x) * uint32_t(x));
    case Unary::relu: return x < 0 ? 0 : x;
    default: return (x > 0) - (x < 0);  // sign
  }
}

enum class Test : int { is_nan, is_inf, is_finite };

__device__ __forceinline__ bool test(Test op, float x) {
  const bool finite = fabsf(x) < infinity();
  return op == Test::is_nan ? x != x : op == Test::is_inf ? fabsf(x) == infinity() : finite;
}

enum class Binary : int { add, sub, mul, div, max, min, pow, squared_difference, floor_div, mod, atan2, prelu };

__device__ __forceinline__ float floored_mod(float a, float b) {
  const float rest = fmodf(a, b);
  return (a < 0.f) != (b < 0.f) && rest != 0.f ? rest + b : rest;
}

__device__ __forceinline__ float apply(Binary op, float a, float b) {
  switch (op) {
    case Binary::add: return a + b;
    case Binary::sub: return a - b;
    case Binary::mul: return a * b;
    case Binary::div: return a / b;
    case Binary::max: return a > b || a != a ? a : b;
    case Binary::min: return a < b || a != a ? a : b;
    case Binary::pow: return b == 2.f ? a * a : powf(a, b);
    case Binary::squared_difference: return (a - b) * (a - b);
    case Binary::floor_div: return floorf(a / b);
    case Binary::mod: return floored_mod(a, b);
    case Binary::atan2: return atan2f(a, b);
    default: return a < 0.f ? a * b : a;  // prelu
  }
}

__device__ __forceinline__ int32_t integer_power(int32_t a, int32_t b) {
  const double value = pow(double(a), double(b));
  return fabs(value) < 9.2e18 ? int32_t(int64_t(value)) : 0;
}

/// Division by zero gives 0, overflow wraps.
__device__ __forceinline__ int32_t apply(Binary op, int32_t a, int32_t b) {
  const int64_t x = a, y = b;
  switch (op) {
    case Binary::add: return int32_t(x + y);
    case Binary::sub: return int32_t(x - y);
    case Binary::mul: return int32_t(x * y);
    case Binary::div: return y == 0 ? 0 : int32_t(x / y);
    case Binary::max: return a > b ? a : b;
    case Binary::min: return a < b ? a : b;
    case Binary::pow: return integer_power(a, b);
    case Binary::squared_difference: return int32_t(uint32_t(x - y) * uint32_t(x - y));
    case Binary::floor_div: return y == 0 ? 0 : int32_t(x / y - (x % y != 0 && (x < 0) != (y < 0)));
    case Binary::mod: return y == 0 ? 0 : int32_t(x % y + (x % y != 0 && (x < 0) != (y < 0) ? y : 0));
    case Binary::prelu: return int32_t(x < 0 ? x * y : x);
    default: return 0;
  }
}

enum class Compare : int { equal, not_equal, greater, greater_equal, less, less_equal, logical_and, logical_or };

template <class T>
__device__ __forceinline__ bool compare(Compare op, T a, T b) {
  switch (op) {
    case Compare::equal: return a == b;
    case Compare::not_equal: return a != b;
    case Compare::greater: return a > b;
    case Compare::greater_equal: return a >= b;
    case Compare::less: return a < b;
    case Compare::less_equal: return a <= b;
    case Compare::logical_and: return a != T(0) && b != T(0);
    default: return a != T(0) || b != T(0);
  }
}

}  // namespace td::cuda

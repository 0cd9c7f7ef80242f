#pragma once
#include <cstdint>

#include "core/tensor.h"

/// Inner loops over contiguous numbers, compiled once per instruction set (loops.inc).
namespace td::simd {

enum class Unary : int {
  abs, neg, exp, expm1, log, log1p, sqrt, rsqrt, square, reciprocal, sigmoid, tanh, erf, relu, relu6, leaky_relu, elu, selu,
  softplus, sin, cos, tan, floor, ceil, round, sign, step, clip, silu, gelu, quick_gelu, count
};

enum class Binary : int { add, sub, mul, div, max, min, pow, squared_difference, floor_div, mod, atan2, prelu, count };

enum class Reduce : int { sum, prod, max, min };

struct Loops {
  /// Numbers of a physical float type to and from float32; bf16 and f16 round to nearest even.
  void (*to_f32)(DType type, const void* from, float* to, int64_t n);
  void (*from_f32)(DType type, const float* from, void* to, int64_t n);
  /// y = op(x); p0 and p1 are the parameters of clip (bounds), leaky_relu (slope), step (value for x < 0).
  void (*unary)(Unary op, const float* x, float* y, int64_t n, float p0, float p1);
  void (*binary)(Binary op, const float* a, const float* b, float* y, int64_t n);
  /// Reduction of one contiguous row; NaN in, NaN out.
  float (*reduce_row)(Reduce op, const float* x, int64_t n);
  /// y[i] = op(y[i], x[i]).
  void (*reduce_into)(Reduce op, const float* x, float* y, int64_t n);
  /// Softmax, or its logarithm, of one row.
  void (*softmax_row)(const float* x, float* y, int64_t n, bool log);
  /// y = (x - mean) / sqrt(variance + epsilon) * gamma + beta over one row.
  void (*layer_norm_row)(DType type, const void* x, const float* gamma, const float* beta, void* y, int64_t n, float epsilon,
                         float* scratch);
  /// y = x / sqrt(mean(x^2) + epsilon) * gamma over one row; gamma may be null.
  void (*rms_norm_row)(DType type, const void* x, const float* gamma, void* y, int64_t n, float epsilon, float* scratch);
  /// Adds to sum[c] and square[c] those of x - shift[c] over `pixels` rows of `channels` numbers.
  void (*channel_moments)(DType type, const void* x, int64_t pixels, int64_t channels, const float* shift, float* sum,
                          float* square);
  /// y = activation(x * scale[c] + offset[c]); activation is silu or nothing.
  void (*channel_affine)(DType type, const void* x, void* y, int64_t pixels, int64_t channels, const float* scale,
                         const float* offset, bool silu);
  /// y = h * gelu(g) + residual; x is the row [h, g], the residual may be null and has y's type.
  void (*geglu_row)(DType type, const float* x, const void* residual, void* y, int64_t inner);
};

/// Those of the instruction set in use.
const Loops& loops();

}  // namespace td::simd

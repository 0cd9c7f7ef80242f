// Reductions of x [outer, middle, inner] over the middle. Sums are float32 whatever the numbers are stored as; every order of sums is
// fixed, so that results are the same from run to run.
#pragma once
#include "functors.cuh"
#include "strided.cuh"

namespace td::cuda {

enum class Reduce : int { sum, prod, max, min };

__device__ __forceinline__ float start_of(Reduce op) {
  return op == Reduce::sum ? 0.f : op == Reduce::prod ? 1.f : op == Reduce::max ? -infinity() : infinity();
}
/// NaN in, NaN out.
__device__ __forceinline__ float fold(Reduce op, float a, float b) {
  switch (op) {
    case Reduce::sum: return a + b;
    case Reduce::prod: return a * b;
    case Reduce::max: return a > b || a != a ? a : b;
    default: return a < b || a != a ? a : b;
  }
}

/// Over the threads of the block, up to 1024; every thread gets it.
__device__ __forceinline__ float block_fold(Reduce op, float x) {
  TD_SHARED(float, partial, 32);
  for (int d = 16; d > 0; d /= 2) x = fold(op, x, __shfl_xor_sync(0xffffffffu, x, d));
  const int warps = blockDim.x / 32;
  if (warps == 1) return x;
  __syncthreads();  // those of an earlier call may still be read
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  x = partial[0];
  for (int i = 1; i < warps; ++i) x = fold(op, x, partial[i]);
  return x;
}

/// inner == 1: a block reduces numbers [first, first + chunk) of row blockIdx.x; y [outer, pieces].
template <class From, class To>
__global__ void reduce_rows_kernel(Reduce op, const Number<From>* x, Number<To>* y, int64_t middle, int64_t chunk, float scale) {
  const int64_t first = blockIdx.y * chunk, last = min(first + chunk, middle), row = blockIdx.x;
  float value = start_of(op);
  for (int64_t i = first + threadIdx.x; i < last; i += blockDim.x) value = fold(op, value, Stored<From>::load(x, row * middle + i));
  value = block_fold(op, value);
  if (threadIdx.x == 0) Stored<To>::store(y, row * gridDim.y + blockIdx.y, value * scale);
}

/// A thread reduces numbers [first, first + chunk) of one column; y [outer, pieces, inner].
template <class From, class To>
__global__ void reduce_columns_kernel(Reduce op, const Number<From>* x, Number<To>* y, int64_t columns, int64_t middle, int64_t inner, int64_t chunk,
                                      float scale) {
  const int64_t column = global_thread();
  if (column >= columns) return;
  const int64_t outer = column / inner, at = column % inner, first = blockIdx.y * chunk, last = min(first + chunk, middle);
  // Partial results of 256 rows each keep the rounding error of long sums small.
  float total = start_of(op);
  for (int64_t block = first; block < last; block += 256) {
    float part = start_of(op);
    for (int64_t k = block; k < min(block + 256, last); ++k) part = fold(op, part, Stored<From>::load(x, (outer * middle + k) * inner + at));
    total = fold(op, total, part);
  }
  Stored<To>::store(y, (outer * gridDim.y + blockIdx.y) * inner + at, total * scale);
}

__global__ void reduce_integers_kernel(Reduce op, const int32_t* x, int32_t* y, int64_t columns, int64_t middle, int64_t inner) {
  const int64_t column = global_thread();
  if (column >= columns) return;
  const int32_t* from = x + column / inner * middle * inner + column % inner;
  uint32_t value = op == Reduce::sum ? 0u : op == Reduce::prod ? 1u : op == Reduce::max ? 0x80000000u : 0x7fffffffu;
  for (int64_t k = 0; k < middle; ++k) {
    const uint32_t v = uint32_t(from[k * inner]);
    if (op == Reduce::sum) value += v;
    if (op == Reduce::prod) value *= v;
    if (op == Reduce::max) value = int32_t(v) > int32_t(value) ? v : value;
    if (op == Reduce::min) value = int32_t(v) < int32_t(value) ? v : value;
  }
  y[column] = int32_t(value);
}

__global__ void reduce_logic_kernel(bool all, const uint8_t* x, uint8_t* y, int64_t columns, int64_t middle, int64_t inner) {
  const int64_t column = global_thread();
  if (column >= columns) return;
  const uint8_t* from = x + column / inner * middle * inner + column % inner;
  bool value = all;
  for (int64_t k = 0; k < middle; ++k) value = all ? value && from[k * inner] : value || from[k * inner];
  y[column] = value;
}

/// The place of the largest (smallest) number, the first of equal ones; NaN is chosen only in the first place. One warp per column.
__global__ void arg_kernel(bool largest, const float* x, int32_t* y, int64_t middle, int64_t inner) {
  const int64_t column = blockIdx.x;
  const float* from = x + column / inner * middle * inner + column % inner;
  const float sign = largest ? 1.f : -1.f;
  float best = -infinity();
  int place = 0x7fffffff;
  for (int64_t k = threadIdx.x; k < middle; k += 32) {
    const float v = sign * from[k * inner];
    if (v > best || (v == best && k < place)) {
      best = v;
      place = int(k);
    }
  }
  for (int d = 16; d > 0; d /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, best, d);
    const int at = __shfl_xor_sync(0xffffffffu, place, d);
    if (other > best || (other == best && at < place)) {
      best = other;
      place = at;
    }
  }
  if (threadIdx.x == 0) y[column] = place == 0x7fffffff || from[0] != from[0] ? 0 : place;
}

/// Running sums or products along the middle; T is float or int32_t, integers wrap.
template <class T>
__global__ void cumulate_kernel(bool product, bool exclusive, bool backwards, const T* x, T* y, int64_t columns, int64_t n, int64_t inner) {
  const int64_t column = global_thread();
  if (column >= columns) return;
  const int64_t first = column / inner * n * inner + column % inner;
  double total = product ? 1 : 0;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t at = first + (backwards ? n - 1 - i : i) * inner;
    const double before = total;
    total = product ? total * x[at] : total + x[at];
    if (T(0.5f) == T(0)) total = int32_t(int64_t(total));
    y[at] = T(exclusive ? before : total);
  }
}

}  // namespace td::cuda

// Kernels that choose numbers by their value or by an index.
#pragma once
#include "strided.cuh"

namespace td::cuda {

__global__ void one_hot_kernel(const int32_t* index, float* y, int64_t n, int64_t depth, float on, float off) {
  const int64_t i = global_thread();
  if (i < n) y[i] = index[i / depth] == i % depth ? on : off;
}

/// Whether number a at place i comes before number b at place j: larger ones first, NaN last, equal ones by their place.
__device__ __forceinline__ bool comes_before(float a, int i, float b, int j) {
  const bool a_nan = a != a, b_nan = b != b;
  if (a_nan || b_nan) return a_nan == b_nan ? i < j : b_nan;
  return a > b || (a == b && i < j);
}

/// The k first numbers of each row in that order, one after the other: the first of those that come after the last one. One warp per
/// row; meant for small k.
__global__ void top_k_kernel(const float* x, float* values, int32_t* places, int64_t n, int64_t k) {
  x += blockIdx.x * n;
  values += blockIdx.x * k;
  places += blockIdx.x * k;
  float last = 0.f;
  int last_place = -1;
  for (int64_t round = 0; round < k; ++round) {
    float best = 0.f;
    int place = -1;
    const auto offer = [&](float v, int at) {
      if (at >= 0 && (place < 0 || comes_before(v, at, best, place))) {
        best = v;
        place = at;
      }
    };
    for (int64_t i = threadIdx.x; i < n; i += 32) {
      if (last_place < 0 || comes_before(last, last_place, x[i], int(i))) offer(x[i], int(i));
    }
    for (int d = 16; d > 0; d /= 2) {
      const float other = __shfl_xor_sync(0xffffffffu, best, d);
      const int at = __shfl_xor_sync(0xffffffffu, place, d);
      offer(other, at);
    }
    last = best;
    last_place = place;
    if (threadIdx.x == 0) {
      values[round] = best;
      places[round] = place;
    }
  }
}

/// Adds row i of x [n, inner] to row ids[i] of y [segments, inner], in the order of i; a thread owns a column. T is float or int32_t.
template <class T>
__global__ void segment_sum_kernel(const T* x, const int32_t* ids, T* y, int64_t n, int64_t segments, int64_t inner) {
  const int64_t column = global_thread();
  if (column >= inner) return;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t id = ids[i];
    if (id >= 0 && id < segments) y[id * inner + column] += x[i * inner + column];
  }
}

}  // namespace td::cuda

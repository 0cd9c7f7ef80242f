// How kernels walk through operands that do not lie as the result does.
#pragma once
#include "device.cuh"

namespace td::cuda {

/// What a number of that tag is stored as.
template <class T>
using Number = typename Stored<T>::type;

constexpr int kRank = 8;

/// Dimensions of a result in C order and the strides of K operands along them, in elements.
template <int K>
struct Walk {
  int rank;
  int64_t dims[kRank], strides[K][kRank];
};

template <int K>
struct Places {
  int64_t at[K];
};

/// Where the operands have their number for element `i` of the result.
template <int K>
__device__ __forceinline__ Places<K> locate(const Walk<K>& walk, int64_t i) {
  Places<K> places{};
  for (int axis = walk.rank - 1; axis >= 0; --axis) {
    const int64_t place = axis ? i % walk.dims[axis] : i;
    for (int k = 0; k < K; ++k) places.at[k] += place * walk.strides[k][axis];
    if (axis) i /= walk.dims[axis];
  }
  return places;
}

__device__ __forceinline__ int64_t global_thread() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }

}  // namespace td::cuda

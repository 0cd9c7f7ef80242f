// The names of CUDA C++ for g++, so that kernels compile unchanged and run on the emulator.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "copies.h"
#include "grid.h"
#include "tensor_core.h"
#include "warp.h"

#define __global__ inline
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__ __restrict

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};

#define threadIdx (td::cuda::emulator::self().index)
#define blockIdx (td::cuda::emulator::block().index)
#define blockDim (td::cuda::emulator::block().size)
#define gridDim (td::cuda::emulator::block().grid)

inline void __syncthreads() { td::cuda::emulator::barrier(0, 0); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  td::cuda::emulator::meet(mask, td::cuda::emulator::Instruction::syncwarp, nullptr, [](void**) {});
}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
template <class T>
T __shfl_sync(unsigned mask, T value, int from) {
  return td::cuda::emulator::shuffle(mask, value, from & 31);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
  return td::cuda::emulator::shuffle(mask, value, td::cuda::emulator::self().lane ^ bits);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int delta) {
  const int lane = td::cuda::emulator::self().lane;
  return td::cuda::emulator::shuffle(mask, value, lane + delta < 32 ? lane + delta : lane);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, int delta) {
  const int lane = td::cuda::emulator::self().lane;
  return td::cuda::emulator::shuffle(mask, value, lane >= delta ? lane - delta : lane);
}
inline unsigned __ballot_sync(unsigned mask, bool vote) { return td::cuda::emulator::ballot(mask, vote); }

template <class T>
T __ldg(const T* at) {
  return *at;
}
inline float atomicAdd(float* at, float value) {
  float old = *at, sum;
  do {
    sum = old + value;
  } while (!__atomic_compare_exchange(at, &old, &sum, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}
inline int atomicAdd(int* at, int value) { return __atomic_fetch_add(at, value, __ATOMIC_RELAXED); }
inline unsigned atomicAdd(unsigned* at, unsigned value) { return __atomic_fetch_add(at, value, __ATOMIC_RELAXED); }

inline float __int_as_float(int bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline float __uint_as_float(unsigned bits) { return __int_as_float(static_cast<int>(bits)); }
inline int __float_as_int(float x) {
  int bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline unsigned __float_as_uint(float x) { return static_cast<unsigned>(__float_as_int(x)); }
inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.f / x; }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

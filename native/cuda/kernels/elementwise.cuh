// Kernels whose threads each make single numbers of the result. A thread takes every 256th of 1024 numbers, so that a warp reads and
// writes side by side; which function it applies is the same for all, so that the choice costs nothing beside the memory.
#pragma once
#include "functors.cuh"
#include "strided.cuh"

namespace td::cuda {

constexpr int kPerThread = 4;

/// Calls f(i) for the numbers of this thread.
template <class F>
__device__ __forceinline__ void for_numbers(int64_t n, const F& f) {
  const int64_t first = int64_t(blockIdx.x) * blockDim.x * kPerThread + threadIdx.x;
#pragma unroll
  for (int j = 0; j < kPerThread; ++j) {
    const int64_t i = first + int64_t(j) * blockDim.x;
    if (i < n) f(i);
  }
}

template <class T>
__global__ void unary_kernel(Unary op, const Number<T>* x, Number<T>* y, int64_t n, float p0, float p1) {
  for_numbers(n, [&](int64_t i) { Stored<T>::store(y, i, apply(op, Stored<T>::load(x, i), p0, p1)); });
}
__global__ void unary_integer_kernel(Unary op, const int32_t* x, int32_t* y, int64_t n) {
  for_numbers(n, [&](int64_t i) { y[i] = apply(op, x[i]); });
}
__global__ void test_kernel(Test op, const float* x, uint8_t* y, int64_t n) {
  for_numbers(n, [&](int64_t i) { y[i] = test(op, x[i]); });
}
__global__ void logical_not_kernel(const uint8_t* x, uint8_t* y, int64_t n) {
  for_numbers(n, [&](int64_t i) { y[i] = !x[i]; });
}

template <class T>
__global__ void binary_kernel(Binary op, const Number<T>* a, const Number<T>* b, Number<T>* y, int64_t n, Walk<2> walk) {
  for_numbers(n, [&](int64_t i) {
    const Places<2> from = locate(walk, i);
    Stored<T>::store(y, i, apply(op, Stored<T>::load(a, from.at[0]), Stored<T>::load(b, from.at[1])));
  });
}
__global__ void binary_integer_kernel(Binary op, const int32_t* a, const int32_t* b, int32_t* y, int64_t n, Walk<2> walk) {
  for_numbers(n, [&](int64_t i) {
    const Places<2> from = locate(walk, i);
    y[i] = apply(op, a[from.at[0]], b[from.at[1]]);
  });
}
/// T is float or int32_t.
template <class T>
__global__ void compare_kernel(Compare op, const T* a, const T* b, uint8_t* y, int64_t n, Walk<2> walk) {
  for_numbers(n, [&](int64_t i) {
    const Places<2> from = locate(walk, i);
    y[i] = compare(op, a[from.at[0]], b[from.at[1]]);
  });
}
/// Bits: an unsigned integer of the size of a number.
template <class Bits>
__global__ void select_kernel(const uint8_t* condition, const Bits* a, const Bits* b, Bits* y, int64_t n, Walk<3> walk) {
  for_numbers(n, [&](int64_t i) {
    const Places<3> from = locate(walk, i);
    y[i] = condition[from.at[0]] ? a[from.at[1]] : b[from.at[2]];
  });
}

constexpr int kTerms = 8;
struct Terms {
  const void* data[kTerms];
  int count;
};
template <class T>
__global__ void add_n_kernel(Terms terms, Number<T>* y, int64_t n) {
  for_numbers(n, [&](int64_t i) {
    float sum = 0.f;
    for (int k = 0; k < terms.count; ++k) sum += Stored<T>::load(static_cast<const Number<T>*>(terms.data[k]), i);
    Stored<T>::store(y, i, sum);
  });
}
__global__ void add_n_integer_kernel(Terms terms, int32_t* y, int64_t n) {
  for_numbers(n, [&](int64_t i) {
    uint32_t sum = 0;
    for (int k = 0; k < terms.count; ++k) sum += uint32_t(static_cast<const int32_t*>(terms.data[k])[i]);
    y[i] = int32_t(sum);
  });
}

/// float32 to int32 by truncation, at the ends of the range where it does not fit, NaN to 0.
__device__ __forceinline__ int32_t truncate(float x) {
  if (x != x) return 0;
  return x >= 2147483648.f ? 2147483647 : x <= -2147483648.f ? -2147483647 - 1 : int32_t(x);
}
/// One number of another type; bool is uint8_t.
template <class From, class To>
struct Conversion {
  __device__ static __forceinline__ void convert(const Number<From>* x, Number<To>* y, int64_t i) {
    Stored<To>::store(y, i, Stored<From>::load(x, i));
  }
};
template <class From>
struct Conversion<From, int32_t> {
  __device__ static __forceinline__ void convert(const Number<From>* x, int32_t* y, int64_t i) { y[i] = truncate(Stored<From>::load(x, i)); }
};
template <class From>
struct Conversion<From, uint8_t> {
  __device__ static __forceinline__ void convert(const Number<From>* x, uint8_t* y, int64_t i) { y[i] = Stored<From>::load(x, i) != 0.f; }
};
template <class To>
struct Conversion<uint8_t, To> {
  __device__ static __forceinline__ void convert(const uint8_t* x, Number<To>* y, int64_t i) { Stored<To>::store(y, i, x[i] ? 1.f : 0.f); }
};
template <>
struct Conversion<uint8_t, int32_t> {
  __device__ static __forceinline__ void convert(const uint8_t* x, int32_t* y, int64_t i) { y[i] = x[i] != 0; }
};
template <>
struct Conversion<int32_t, uint8_t> {
  __device__ static __forceinline__ void convert(const int32_t* x, uint8_t* y, int64_t i) { y[i] = x[i] != 0; }
};
template <class From, class To>
__global__ void cast_kernel(const Number<From>* x, Number<To>* y, int64_t n) {
  for_numbers(n, [&](int64_t i) { Conversion<From, To>::convert(x, y, i); });
}

}  // namespace td::cuda

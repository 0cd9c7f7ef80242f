// What follows a matrix product before its sums are stored: bias, time embedding, activation, residual; and how they are stored.
#pragma once
#include "device.cuh"

namespace td::cuda {

enum class Activation : int { linear, silu, gelu, quick_gelu, geglu };

/// One number per column, stored as float32 or as the type of the product; absent when null.
struct Offsets {
  const void* data;
  bool wide;
};

/// out = activation(sums + bias + embedding[image]) + residual, row by row; rows are `columns` numbers and may lie `stride` apart.
struct Epilogue {
  void* out;
  const void* residual;  // laid out as out; or null
  Offsets bias, embedding;
  int64_t stride;
  int columns;           // of the result: half of the product's with geglu
  int image_rows;        // rows of the product that share a row of the embedding
  Activation activation;
  bool aligned;          // rows of out and residual begin at multiples of 16 bytes
};

/// Sums in float32 of a product that several blocks share: [batch, split, rows, columns of the product]; null when each has its own.
struct Partial {
  float* sums;
  int splits;
};

template <class T>
__device__ __forceinline__ float load_offset(const Offsets& offsets, int64_t i) {
  return offsets.wide ? static_cast<const float*>(offsets.data)[i]
                      : Stored<T>::load(static_cast<const typename Stored<T>::type*>(offsets.data), i);
}

/// x Phi(x)
__device__ __forceinline__ float gelu(float x) { return 0.5f * x * (1.f + erff(x * 0.70710678f)); }
__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

__device__ __forceinline__ float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::gelu:
      return gelu(x);
    case Activation::quick_gelu:
      return x * sigmoid(1.702f * x);
    default:
      return x;
  }
}

/// Adds the constants of columns [column, column + N) of row m of the product; `columns` is the product's own number.
template <class T, int N>
__device__ __forceinline__ void add_offsets(const Epilogue& e, int m, int column, int columns, float (&v)[N]) {
  const int64_t image = e.embedding.data ? int64_t(m / e.image_rows) * columns : 0;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (column + i >= columns) continue;
    if (e.bias.data) v[i] += load_offset<T>(e.bias, column + i);
    if (e.embedding.data) v[i] += load_offset<T>(e.embedding, image + column + i);
  }
}

/// The vectors that hold N stored numbers.
template <class T, int N>
struct Packed;
template <>
struct Packed<float, 4> {
  static __device__ __forceinline__ void load(const float* from, float (&v)[4]) {
    const float4 x = *reinterpret_cast<const float4*>(from);
    v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
  }
  static __device__ __forceinline__ void store(float* to, const float (&v)[4]) {
    float4 x;
    x.x = v[0], x.y = v[1], x.z = v[2], x.w = v[3];
    *reinterpret_cast<float4*>(to) = x;
  }
};
template <class T>
struct Packed<T, 8> {
  static __device__ __forceinline__ void load(const uint16_t* from, float (&v)[8]) {
    const uint4 x = *reinterpret_cast<const uint4*>(from);
    const uint32_t words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      v[2 * i] = widen_bits(T(), static_cast<uint16_t>(words[i]));
      v[2 * i + 1] = widen_bits(T(), static_cast<uint16_t>(words[i] >> 16));
    }
  }
  static __device__ __forceinline__ void store(uint16_t* to, const float (&v)[8]) {
    uint4 x;
    x.x = pack(T(), v[0], v[1]), x.y = pack(T(), v[2], v[3]), x.z = pack(T(), v[4], v[5]), x.w = pack(T(), v[6], v[7]);
    *reinterpret_cast<uint4*>(to) = x;
  }
};

/// Activation, residual and rounding of columns [column, column + N) of one row of the result.
template <class T, int N>
__device__ __forceinline__ void store_row(const Epilogue& e, int64_t row, int column, float (&v)[N]) {
  using Number = typename Stored<T>::type;
  const int64_t at = row * e.stride + column;
  Number* out = static_cast<Number*>(e.out) + at;
  const Number* residual = e.residual ? static_cast<const Number*>(e.residual) + at : nullptr;
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = activate(e.activation, v[i]);
  if (e.aligned && column + N <= e.columns) {
    if (residual) {
      float r[N];
      Packed<T, N>::load(residual, r);
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] += r[i];
    }
    Packed<T, N>::store(out, v);
    return;
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (column + i >= e.columns) continue;
    if (residual) v[i] += Stored<T>::load(residual, i);
    Stored<T>::store(out, i, v[i]);
  }
}

/// Columns of the product are taken in groups, with geglu half of a group values and half the gates that belong to them, so that one
/// thread holds both. The first column of the result that place n of the product stands for.
template <int Group>
__device__ __forceinline__ int value_column(const Epilogue& e, int n) {
  return e.activation == Activation::geglu ? n / Group * (Group / 2) + n % (Group / 2) : n;
}
__device__ __forceinline__ int product_columns(const Epilogue& e) {
  return e.activation == Activation::geglu ? 2 * e.columns : e.columns;
}

/// One row of a product, N values from place n on and, with geglu, the gates: to the result, or to the sums that blocks share.
template <class T, int Group, int N>
__device__ __forceinline__ void finish_row(const Epilogue& e, float* partial, int m, int64_t row, int n, float (&v)[N], float (&gates)[N]) {
  const int column = value_column<Group>(e, n), columns = product_columns(e);
  const bool geglu = e.activation == Activation::geglu;
  if (row < 0 || column >= e.columns) return;
  if (partial) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (column + i >= e.columns) continue;
      partial[int64_t(m) * columns + column + i] = v[i];
      if (geglu) partial[int64_t(m) * columns + e.columns + column + i] = gates[i];
    }
    return;
  }
  add_offsets<T>(e, m, column, columns, v);
  if (geglu) {
    add_offsets<T>(e, m, e.columns + column, columns, gates);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] *= gelu(gates[i]);
  }
  store_row<T>(e, row, column, v);
}

}  // namespace td::cuda

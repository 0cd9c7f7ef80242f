// Moving tokens of any layout and type into the packed operands of the tile product, and results back.
#pragma once

#include <cstring>

#include "core/half.h"
#include "cpu/attention/kernels.h"
#include "cpu/attention/tile.h"

namespace td::attention {
namespace {

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

// Row length for operands read down a column: rows a multiple of 512 bytes apart would crowd into few sets of the first cache.
inline int64_t unaliased_row(int64_t slots) { return slots % 128 == 0 ? slots + 16 : slots; }

// Rows of one head: `count` tokens of `size` elements each.
struct Rows {
  const void* data;
  DType type;
  int64_t stride;  // elements from token to token
  int64_t count;
  int64_t size;
};

inline int64_t element_bytes(DType type) { return type == DType::f32 ? 4 : 2; }

inline const void* element_at(const void* data, DType type, int64_t index) {
  return static_cast<const char*>(data) + index * element_bytes(type);
}

inline void* element_at(void* data, DType type, int64_t index) {
  return static_cast<char*>(data) + index * element_bytes(type);
}

inline Rows rows_of(const void* data, DType type, const Strides& s, int64_t batch, int64_t head, int64_t begin,
                    int64_t count, int64_t size) {
  return {element_at(data, type, batch * s.batch + head * s.head + begin * s.token), type, s.token, count, size};
}

inline void look_ahead(Ahead& ahead, const Rows& rows) {
  const int64_t unit = element_bytes(rows.type);
  ahead.add(rows.data, rows.stride * unit, rows.count, rows.size * unit);
}

// One row as float32: the row itself, or `staging` filled from it.
template <class V>
const float* float_row(const Rows& rows, int64_t row, float* staging) {
  const void* source = element_at(rows.data, rows.type, row * rows.stride);
  if (rows.type == DType::f32) return static_cast<const float*>(source);
  V::widen(static_cast<const uint16_t*>(source), rows.type, rows.size, staging);
  return staging;
}

// float32 products. Every packed slot is one float.
template <class Simd>
struct PlainProduct {
  using V = Simd;
  using F = typename V::F;
  using Operand = F;
  static constexpr int kPair = 1;
  static constexpr int kExpDegree = 5;
  static constexpr bool kScaledQueries = true;

  static TD_INLINE Operand load(const float* p) { return V::load(p); }
  static TD_INLINE Operand broadcast(const float* p) { return V::set1(*p); }
  static TD_INLINE F madd(Operand x, Operand y, F sum) { return V::fmadd(x, y, sum); }

  // A call of memcpy costs more than the few vectors of a row; the last one overlaps the one before.
  static TD_INLINE void copy_row(const float* source, int64_t size, float* dst) {
    if (size < V::kWidth) {
      std::memcpy(dst, source, static_cast<size_t>(size) * sizeof(float));
      return;
    }
    for (int64_t c = 0; c + V::kWidth < size; c += V::kWidth) V::store(dst + c, V::load(source + c));
    V::store(dst + size - V::kWidth, V::load(source + size - V::kWidth));
  }

  // dst[row][size]
  static void pack_rows(const Rows& rows, float* dst, int64_t dst_row) {
    for (int64_t i = 0; i < rows.count; ++i) {
      const void* source = element_at(rows.data, rows.type, i * rows.stride);
      if (rows.type == DType::f32) {
        copy_row(static_cast<const float*>(source), rows.size, dst + i * dst_row);
      } else {
        V::widen(static_cast<const uint16_t*>(source), rows.type, rows.size, dst + i * dst_row);
      }
    }
  }

  // dst[row][size]: for pairs of one, the same.
  static void pack_row_pairs(const Rows& rows, float* dst, int64_t dst_row) { pack_rows(rows, dst, dst_row); }

  // dst[size][kQueryTile] times factor, zero for queries past the count up to a whole vector. staging: kWidth * size floats.
  static void pack_columns(const Rows& rows, float factor, float* dst, float* staging) {
    for (int64_t i = 0; i < rows.count; i += V::kWidth) {
      const int64_t count = least(V::kWidth, rows.count - i);
      const float* source = static_cast<const float*>(element_at(rows.data, rows.type, i * rows.stride));
      int64_t stride = rows.stride;
      if (rows.type != DType::f32) {
        for (int64_t r = 0; r < count; ++r) float_row<V>(rows, i + r, staging + r * rows.size);
        source = staging;
        stride = rows.size;
      }
      for (int64_t c = 0; c < rows.size; c += V::kWidth) {
        V::transpose(source + c, stride, count, least(V::kWidth, rows.size - c), dst + c * kQueryTile + i, kQueryTile, V::kWidth);
      }
    }
    if (factor == 1.0f) return;
    const int64_t width = round_up(rows.count, V::kWidth);
    for (int64_t s = 0; s < rows.size; ++s) {
      for (int64_t i = 0; i < width; i += V::kWidth) {
        float* place = dst + s * kQueryTile + i;
        V::store(place, V::mul(V::set1(factor), V::load(place)));
      }
    }
  }

  // kPair consecutive keys of one vector of queries, as the operand of a sum over keys.
  static TD_INLINE void store_keys(float* dst, const F* p) { V::store(dst, p[0]); }

  // One key's kQueryTile queries (`vectors` of them valid, the others zero), as the operand of a sum over queries.
  template <int kVectors>
  static TD_INLINE void store_queries(float* dst, const F* p) {
    TD_UNROLL
    for (int c = 0; c < kVectors; ++c) V::store(dst + c * V::kWidth, p[c]);
  }

  static void close_queries(float*, int64_t, int64_t, int64_t) {}
};

// src [size][kQueryTile] times factor[query] into rows of tokens. staging: kWidth * size floats.
template <class V>
void unpack_columns(const float* src, const Rows& rows, const float* factor, float* staging) {
  for (int64_t i = 0; i < rows.count; i += V::kWidth) {
    const int64_t count = least(V::kWidth, rows.count - i);
    const bool direct = rows.type == DType::f32;
    float* target = direct ? static_cast<float*>(element_at(const_cast<void*>(rows.data), rows.type, i * rows.stride)) : staging;
    const int64_t stride = direct ? rows.stride : rows.size;
    const typename V::F scale = V::load(factor + i);
    for (int64_t c = 0; c < rows.size; c += V::kWidth) {
      const int64_t cols = least(V::kWidth, rows.size - c);
      alignas(64) float block[V::kWidth * V::kWidth];
      for (int64_t s = 0; s < cols; ++s) {
        V::store(block + s * V::kWidth, V::mul(V::load(src + (c + s) * kQueryTile + i), scale));
      }
      V::transpose(block, V::kWidth, cols, count, target + c, stride, cols);
    }
    if (!direct) {
      for (int64_t r = 0; r < count; ++r) {
        void* place = element_at(const_cast<void*>(rows.data), rows.type, (i + r) * rows.stride);
        V::narrow(staging + r * rows.size, rows.type, rows.size, static_cast<uint16_t*>(place));
      }
    }
  }
}

}  // namespace
}  // namespace td::attention

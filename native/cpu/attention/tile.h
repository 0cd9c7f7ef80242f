// The one product of all attention kernels: out[row][col] (+)= sum over steps of a[row][step] * b[step][col].
// Included by the per-instruction-set sources after their SIMD traits; `A` is a product policy (PlainProduct or DotProduct):
//   A::V            SIMD traits of float32 vectors of V::kWidth lanes
//   A::kPair        numbers per 4-byte slot (1: float32, 2: bfloat16 pairs multiplied by a dot product)
//   A::kScaledQueries  whether the factor of the exponents is in the queries already
//   A::Operand, load, broadcast, madd
// a and b hold 4-byte slots; a step covers kPair terms of the sum.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "cpu/attention/ahead.h"
#include "cpu/isa.h"

namespace td::attention {

struct TileOperands {
  const float* a;
  ptrdiff_t a_row, a_step;
  const float* b;
  ptrdiff_t b_step;
  int64_t steps;
  float* out;
  ptrdiff_t out_row;
  float* maximum = nullptr;      // running maximum of each column
  float factor = 1.0f;           // of the exponents; with kScaledQueries 1
  const float* shift = nullptr;  // of each column's exponents
  float* total = nullptr;        // running sum of each column's probabilities
  Ahead* ahead = nullptr;        // asked for some between the groups of rows
};

// add: out += sum; the block is summed apart from out, which keeps rounding errors from growing with N.
// maximum: maximum[col] = max(maximum[col], out[.][col]), ignoring NaN.
// probabilities: out = 2^(sum * factor - shift[col]), kPair rows to a slot; total[col] += the sum over the rows.
enum class TileStore { assign, assign_maximum, add, add_maximum, probabilities };

// Scores of a tile to probabilities while they are in registers.
template <class A, int kRows, int kCols>
TD_INLINE void store_probabilities(const TileOperands& t, const typename A::V::F (&scores)[kRows][kCols]) {
  using V = typename A::V;
  const typename V::F factor = V::set1(t.factor);
  TD_UNROLL
  for (int c = 0; c < kCols; ++c) {
    const typename V::F shift = V::load(t.shift + c * V::kWidth);
    typename V::F total = V::load(t.total + c * V::kWidth);
    TD_UNROLL
    for (int r = 0; r < kRows; r += A::kPair) {
      typename V::F p[A::kPair];
      TD_UNROLL
      for (int i = 0; i < A::kPair; ++i) {
        if (r + i < kRows) {
          const typename V::F score = scores[r + i < kRows ? r + i : r][c];
          // An addition runs beside the multiplications, on units of its own.
          p[i] = V::template exp2<A::kExpDegree>(A::kScaledQueries ? V::sub(score, shift) : V::fmsub(score, factor, shift));
          total = V::add(total, p[i]);
        } else {
          p[i] = V::zero();
        }
      }
      A::store_keys(t.out + r / A::kPair * t.out_row + c * V::kWidth, p);
    }
    V::store(t.total + c * V::kWidth, total);
  }
}

template <class A, TileStore kStore, int kRows, int kCols>
void tile(const TileOperands& t) {
  using V = typename A::V;
  typename V::F sum[kRows][kCols];
  TD_UNROLL
  for (int r = 0; r < kRows; ++r) {
    TD_UNROLL
    for (int c = 0; c < kCols; ++c) sum[r][c] = V::zero();
  }
  const float* a = t.a;
  const float* b = t.b;
  const ptrdiff_t a_row = t.a_row, a_step = t.a_step, b_step = t.b_step;
  for (int64_t s = t.steps; s > 0; --s) {
    typename A::Operand columns[kCols];
    TD_UNROLL
    for (int c = 0; c < kCols; ++c) columns[c] = A::load(b + c * V::kWidth);
    TD_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const typename A::Operand row = A::broadcast(a + r * a_row);
      TD_UNROLL
      for (int c = 0; c < kCols; ++c) sum[r][c] = A::madd(row, columns[c], sum[r][c]);
    }
    a += a_step;
    b += b_step;
  }
  if constexpr (kStore == TileStore::add || kStore == TileStore::add_maximum) {
    TD_UNROLL
    for (int r = 0; r < kRows; ++r) {
      TD_UNROLL
      for (int c = 0; c < kCols; ++c) sum[r][c] = V::add(V::load(t.out + r * t.out_row + c * V::kWidth), sum[r][c]);
    }
  }
  if constexpr (kStore == TileStore::probabilities) return store_probabilities<A, kRows, kCols>(t, sum);
  if constexpr (kStore == TileStore::assign_maximum || kStore == TileStore::add_maximum) {
    TD_UNROLL
    for (int c = 0; c < kCols; ++c) {
      typename V::F most = V::load(t.maximum + c * V::kWidth);
      TD_UNROLL
      for (int r = 0; r < kRows; ++r) most = V::max_ignoring_nan(sum[r][c], most);
      V::store(t.maximum + c * V::kWidth, most);
    }
  }
  TD_UNROLL
  for (int r = 0; r < kRows; ++r) {
    TD_UNROLL
    for (int c = 0; c < kCols; ++c) V::store(t.out + r * t.out_row + c * V::kWidth, sum[r][c]);
  }
}

using TileFunction = void (*)(const TileOperands&);

template <class A, TileStore kStore, int kCols, int... kRow>
constexpr TileFunction tile_of_rows(std::integer_sequence<int, kRow...>, int64_t rows) {
  constexpr TileFunction functions[] = {tile<A, kStore, kRow + 1, kCols>...};
  return functions[rows - 1];
}

constexpr int kMostRows = 12;

// One group of columns, its rows cut by the register budget.
template <class A, TileStore kStore, int kCols>
void multiply_columns(TileOperands t, int64_t rows) {
  // Rows that share a slot of the result stay in one group.
  constexpr int kUnit = kStore == TileStore::probabilities ? A::kPair : 1;
  constexpr int kMost = A::V::kAccumulators / kCols < kMostRows ? A::V::kAccumulators / kCols : kMostRows;
  static_assert(kMost % kUnit == 0, "a group holds whole slots");
  const int64_t units = (rows + kUnit - 1) / kUnit;
  const int64_t groups = (rows + kMost - 1) / kMost;
  for (int64_t g = 0; g < groups; ++g) {
    if (t.ahead) t.ahead->some();
    // Even shares, so that no group falls to one or two rows, whose few chains would wait for the latency of the adder.
    const int64_t share = kUnit * (units / groups + (g < units % groups ? 1 : 0));
    const int64_t count = share < rows ? share : rows;
    tile_of_rows<A, kStore, kCols>(std::make_integer_sequence<int, kMost>(), count)(t);
    rows -= count;
    t.a += count * t.a_row;
    t.out += count / kUnit * t.out_row;
  }
}

// rows x (vectors * kWidth) outputs.
template <class A, TileStore kStore>
void multiply(const TileOperands& operands, int64_t rows, int64_t vectors) {
  using V = typename A::V;
  constexpr int kMost = V::kColumns;
  const int64_t groups = (vectors + kMost - 1) / kMost;
  TileOperands t = operands;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t count = vectors / groups + (g < vectors % groups ? 1 : 0);
    switch (count) {
      case 1: multiply_columns<A, kStore, 1>(t, rows); break;
      case 2: multiply_columns<A, kStore, 2>(t, rows); break;
      case 3: if constexpr (kMost >= 3) multiply_columns<A, kStore, 3>(t, rows); break;
      case 4: if constexpr (kMost >= 4) multiply_columns<A, kStore, 4>(t, rows); break;
    }
    t.b += count * V::kWidth;
    t.out += count * V::kWidth;
    if (t.maximum) t.maximum += count * V::kWidth;
    if (t.shift) t.shift += count * V::kWidth;
    if (t.total) t.total += count * V::kWidth;
  }
}

// Steps whose part of b stays in the first cache.
constexpr int64_t kPiece = 128;

// The same for long sums, cut into pieces.
template <class A, bool kMaximum>
void multiply_long(const TileOperands& operands, int64_t rows, int64_t vectors) {
  constexpr TileStore kFirst = kMaximum ? TileStore::assign_maximum : TileStore::assign;
  constexpr TileStore kLast = kMaximum ? TileStore::add_maximum : TileStore::add;
  const int64_t pieces = (operands.steps + kPiece - 1) / kPiece;
  if (pieces == 1) return multiply<A, kFirst>(operands, rows, vectors);
  TileOperands t = operands;
  for (int64_t i = 0; i < pieces; ++i) {
    t.steps = operands.steps / pieces + (i < operands.steps % pieces ? 1 : 0);
    if (i == 0) {
      multiply<A, TileStore::assign>(t, rows, vectors);
    } else if (i + 1 < pieces) {
      multiply<A, TileStore::add>(t, rows, vectors);
    } else {
      multiply<A, kLast>(t, rows, vectors);
    }
    t.a += t.steps * t.a_step;
    t.b += t.steps * t.b_step;
  }
}

}  // namespace td::attention

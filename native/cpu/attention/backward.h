// Backward pass. With P = exp(S - lse) recomputed tile by tile and delta = rowsum(dy * out):
//   dV = P^T dy,  dP = dy V^T,  dS = P * (dP - delta),  dQ = scale dS K,  dK = scale dS^T Q
// (FlashAttention, Dao et al. 2022, algorithm 4). A tile is held transposed, [keys][queries], as in the forward pass.
#pragma once

#include <cmath>
#include <limits>

#include "cpu/attention/scores.h"
#include "cpu/attention/scratch.h"

namespace td::attention {
namespace {

// delta[query] of the task's queries.
template <class V>
void row_delta(const BackwardTask& task, float* delta, float* staging) {
  const Problem& p = *task.problem;
  const int64_t count = task.query_end - task.query_begin;
  const Rows out = rows_of(p.out, p.type, p.out_strides, task.batch, task.head, task.query_begin, count, p.value_size);
  const Rows dy = rows_of(task.gradients->dy, p.type, task.gradients->dy_strides, task.batch, task.head, task.query_begin, count,
                          p.value_size);
  for (int64_t i = 0; i < count; ++i) {
    const float* x = float_row<V>(out, i, staging);
    const float* y = float_row<V>(dy, i, staging + p.value_size);
    typename V::F sum = V::zero();
    int64_t c = 0;
    for (; c + V::kWidth <= p.value_size; c += V::kWidth) sum = V::fmadd(V::load(x + c), V::load(y + c), sum);
    alignas(64) float lanes[V::kWidth];
    V::store(lanes, sum);
    float total = 0.0f;
    for (float lane : lanes) total += lane;
    for (; c < p.value_size; ++c) total += x[c] * y[c];
    delta[i] = total;
  }
}

template <class A>
class Backward {
  using V = typename A::V;
  using F = typename V::F;

 public:
  static size_t scratch(const Problem& p, const Blocking& b, bool whole_head) {
    Scratch measure(nullptr);
    Backward backward(p, Gradients(), b, measure, whole_head);
    return measure.used();
  }

  static void delta(const BackwardTask& task, float* delta, float* staging) { row_delta<V>(task, delta, staging); }

  static void head(const BackwardTask& task, float* memory) {
    Scratch scratch(memory);
    Backward backward(*task.problem, *task.gradients, task.blocking, scratch, true);
    backward.walk_keys(task);
    backward.write_queries(task);
  }

  static void keys(const BackwardTask& task, float* memory) {
    Scratch scratch(memory);
    Backward backward(*task.problem, *task.gradients, task.blocking, scratch, false);
    backward.query_sums_ = nullptr;
    backward.walk_keys(task);
  }

  static void queries(const BackwardTask& task, float* memory) {
    Scratch scratch(memory);
    Backward backward(*task.problem, *task.gradients, task.blocking, scratch, false);
    backward.walk_queries(task);
  }

 private:
  Backward(const Problem& p, const Gradients& g, const Blocking& b, Scratch& scratch, bool whole_head)
      : p_(p),
        g_(g),
        key_block_(b.key_block),
        q_slots_(divide_up(p.head_size, A::kPair)),
        v_slots_(divide_up(p.value_size, A::kPair)),
        q_width_(round_up(p.head_size, V::kWidth)),
        v_width_(round_up(p.value_size, V::kWidth)),
        factor_(std::fabs(p.scale)),
        exponent_factor_(p.bias ? kLog2E : std::fabs(p.scale) * kLog2E) {
    const int64_t pair_rows = divide_up(kQueryTile, A::kPair);
    keys_ = scratch.take(key_block_ * q_slots_);
    key_pairs_ = A::kPair == 1 ? keys_ : scratch.take(divide_up(key_block_, A::kPair) * p.head_size);
    values_ = scratch.take(key_block_ * v_slots_);
    scores_ = scratch.take(key_block_ * kQueryTile);
    slopes_ = scratch.take(key_block_ * kQueryTile);
    // Bfloat16 operands of sums over queries; in float32 they are the tiles themselves.
    score_pairs_ = A::kPair == 1 ? scores_ : scratch.take(key_block_ * pair_rows);
    slope_pairs_ = A::kPair == 1 ? slopes_ : scratch.take(key_block_ * pair_rows);
    query_columns_ = scratch.take(q_slots_ * kQueryTile);
    dy_columns_ = scratch.take(v_slots_ * kQueryTile);
    query_pairs_ = scratch.take(pair_rows * q_width_);
    dy_pairs_ = scratch.take(pair_rows * v_width_);
    shift_ = scratch.take(kQueryTile);
    delta_ = scratch.take(kQueryTile);
    ignored_ = scratch.take(kQueryTile);
    key_sums_ = scratch.take(key_block_ * q_width_);
    value_sums_ = scratch.take(key_block_ * v_width_);
    staging_ = scratch.take(V::kWidth * most(most(p.head_size, p.value_size), V::kWidth));
    const int64_t tiles = whole_head ? divide_up(p.queries, kQueryTile) : 1;
    query_sums_ = scratch.take(tiles * p.head_size * kQueryTile);
  }

  void zero(float* data, int64_t count) {
    for (int64_t i = 0; i < count; ++i) data[i] = 0.0f;
  }

  // dk and dv of the task's keys; with query_sums_, dq of every query as well.
  void walk_keys(const BackwardTask& task) {
    // Columns past the head size are multiplied along with the others: they have to be numbers.
    zero(query_pairs_, divide_up(kQueryTile, A::kPair) * q_width_);
    zero(dy_pairs_, divide_up(kQueryTile, A::kPair) * v_width_);
    if (!g_.dq) query_sums_ = nullptr;
    if (query_sums_) zero(query_sums_, divide_up(p_.queries, kQueryTile) * p_.head_size * kQueryTile);
    for (int64_t k0 = task.key_begin; k0 < task.key_end; k0 += key_block_) {
      const int64_t count = least(key_block_, task.key_end - k0);
      load_keys(task, k0, count);
      zero(key_sums_, count * q_width_);
      zero(value_sums_, count * v_width_);
      for (int64_t q0 = 0; q0 < p_.queries; q0 += kQueryTile) {
        const int64_t queries = least(kQueryTile, p_.queries - q0);
        load_queries(task, q0, queries);
        differentiate(task, q0, queries, k0, count);
        sum_keys(queries, count);
        if (query_sums_) sum_queries(query_sums_ + q0 * p_.head_size, queries, count);
      }
      if (g_.dk) write_rows(g_.dk, g_.dk_strides, task, k0, count, p_.head_size, key_sums_, q_width_, p_.scale);
      if (g_.dv) write_rows(g_.dv, g_.dv_strides, task, k0, count, p_.value_size, value_sums_, v_width_, 1.0f);
    }
  }

  // dq of the task's queries.
  void walk_queries(const BackwardTask& task) {
    for (int64_t q0 = task.query_begin; q0 < task.query_end; q0 += kQueryTile) {
      const int64_t queries = least(kQueryTile, task.query_end - q0);
      load_queries(task, q0, queries);
      zero(query_sums_, p_.head_size * kQueryTile);
      for (int64_t k0 = 0; k0 < p_.keys; k0 += key_block_) {
        const int64_t count = least(key_block_, p_.keys - k0);
        load_keys(task, k0, count);
        differentiate(task, q0, queries, k0, count);
        sum_queries(query_sums_, queries, count);
      }
      write_columns(task, q0, queries, query_sums_);
    }
  }

  void write_queries(const BackwardTask& task) {
    if (!query_sums_) return;
    for (int64_t q0 = 0; q0 < p_.queries; q0 += kQueryTile) {
      write_columns(task, q0, least(kQueryTile, p_.queries - q0), query_sums_ + q0 * p_.head_size);
    }
  }

  void load_keys(const BackwardTask& task, int64_t k0, int64_t count) {
    const Rows keys = rows_of(p_.k, p_.type, p_.k_strides, task.batch, task.head, k0, count, p_.head_size);
    A::pack_rows(keys, keys_, q_slots_);
    if (A::kPair > 1) A::pack_row_pairs(keys, key_pairs_, p_.head_size);
    A::pack_rows(rows_of(p_.v, p_.type, p_.v_strides, task.batch, task.head, k0, count, p_.value_size), values_, v_slots_);
  }

  void load_queries(const BackwardTask& task, int64_t q0, int64_t queries) {
    const Rows q = rows_of(p_.q, p_.type, p_.q_strides, task.batch, task.head, q0, queries, p_.head_size);
    const Rows dy = rows_of(g_.dy, p_.type, g_.dy_strides, task.batch, task.head, q0, queries, p_.value_size);
    A::pack_columns(q, p_.scale < 0 ? -1.0f : 1.0f, query_columns_, staging_);
    A::pack_columns(dy, 1.0f, dy_columns_, staging_);
    A::pack_row_pairs(q, query_pairs_, q_width_);
    A::pack_row_pairs(dy, dy_pairs_, v_width_);
    const int64_t row = (task.batch * p_.heads + task.head) * p_.queries + q0;
    const float infinity = std::numeric_limits<float>::infinity();
    for (int64_t i = 0; i < kQueryTile; ++i) {
      const float lse = i < queries ? p_.lse[row + i] : infinity;  // infinity makes the probabilities of padding zero
      shift_[i] = lse == -infinity ? 0.0f : lse * kLog2E;           // a row without keys has probabilities of zero
      delta_[i] = i < queries ? task.delta[row + i] : 0.0f;
    }
  }

  // scores_ = P and slopes_ = dS, both [key][query], and their pairs.
  void differentiate(const BackwardTask& task, int64_t q0, int64_t queries, int64_t k0, int64_t count) {
    const int64_t vectors = divide_up(queries, V::kWidth);
    multiply_long<A, false>(
        {keys_, q_slots_, 1, query_columns_, kQueryTile, q_slots_, scores_, kQueryTile, nullptr}, count, vectors);
    multiply_long<A, false>({values_, v_slots_, 1, dy_columns_, kQueryTile, v_slots_, slopes_, kQueryTile, nullptr}, count,
                                   vectors);
    if (p_.bias) {
      for (int64_t i = 0; i < kQueryTile; ++i) ignored_[i] = 0.0f;
      add_bias<V>(bias_tile(p_, task.batch, task.head, q0, queries, k0, count), factor_, scores_, ignored_, staging_);
    }
    int64_t c = 0;
    constexpr int kStep = kQueryTile / V::kWidth < 4 ? kQueryTile / V::kWidth : 4;
    for (; c + kStep <= vectors; c += kStep) differentiate_columns<kStep>(c * V::kWidth, count);
    for (; c + 2 <= vectors; c += 2) differentiate_columns<2>(c * V::kWidth, count);
    for (; c < vectors; ++c) differentiate_columns<1>(c * V::kWidth, count);
  }

  template <int kCols>
  void differentiate_columns(int64_t at, int64_t count) {
    F shift[kCols], delta[kCols];
    TD_UNROLL
    for (int c = 0; c < kCols; ++c) {
      shift[c] = V::load(shift_ + at + c * V::kWidth);
      delta[c] = V::load(delta_ + at + c * V::kWidth);
    }
    const F factor = V::set1(exponent_factor_);
    constexpr int64_t kPairRow = kQueryTile / A::kPair;
    for (int64_t k = 0; k < count; k += A::kPair) {
      F slope[A::kPair][kCols];
      TD_UNROLL
      for (int i = 0; i < A::kPair; ++i) {
        if (k + i >= count) {
          TD_UNROLL
          for (int c = 0; c < kCols; ++c) slope[i][c] = V::zero();
          continue;
        }
        const int64_t row = (k + i) * kQueryTile + at;
        F probability[kCols];
        TD_UNROLL
        for (int c = 0; c < kCols; ++c) {
          const F score = V::load(scores_ + row + c * V::kWidth);
          probability[c] = V::template exp2<A::kExpDegree>(V::fmsub(score, factor, shift[c]));
          slope[i][c] = V::mul(probability[c], V::sub(V::load(slopes_ + row + c * V::kWidth), delta[c]));
        }
        const int64_t pair = (k + i) * kPairRow + at / A::kPair;
        A::template store_queries<kCols>(score_pairs_ + pair, probability);
        if (A::kPair > 1) A::template store_queries<kCols>(slope_pairs_ + pair, slope[i]);
      }
      TD_UNROLL
      for (int c = 0; c < kCols; ++c) {
        F both[A::kPair];
        TD_UNROLL
        for (int i = 0; i < A::kPair; ++i) both[i] = slope[i][c];
        A::store_keys(slopes_ + k / A::kPair * kQueryTile + at + c * V::kWidth, both);
      }
    }
  }

  // dK += dS^T Q, dV += P^T dy over one tile of queries.
  void sum_keys(int64_t queries, int64_t count) {
    constexpr int64_t kPairRow = kQueryTile / A::kPair;
    const int64_t steps = divide_up(queries, A::kPair);
    A::close_queries(score_pairs_, kPairRow, count, queries);
    A::close_queries(slope_pairs_, kPairRow, count, queries);
    if (g_.dv) {
      multiply<A, TileStore::add>({score_pairs_, kPairRow, 1, dy_pairs_, v_width_, steps, value_sums_, v_width_, nullptr}, count,
                                  v_width_ / V::kWidth);
    }
    if (g_.dk) {
      multiply<A, TileStore::add>({slope_pairs_, kPairRow, 1, query_pairs_, q_width_, steps, key_sums_, q_width_, nullptr}, count,
                                  q_width_ / V::kWidth);
    }
  }

  // dQ^T += K^T dS^T over one block of keys.
  void sum_queries(float* sums, int64_t queries, int64_t count) {
    multiply<A, TileStore::add>(
        {key_pairs_, 1, p_.head_size, slopes_, kQueryTile, divide_up(count, A::kPair), sums, kQueryTile, nullptr}, p_.head_size,
        divide_up(queries, V::kWidth));
  }

  void write_rows(void* target, const Strides& strides, const BackwardTask& task, int64_t k0, int64_t count, int64_t size,
                  float* sums, int64_t width, float scale) {
    const F factor = V::set1(scale);
    for (int64_t r = 0; r < count; ++r) {
      float* row = sums + r * width;
      for (int64_t i = 0; i < width; i += V::kWidth) V::store(row + i, V::mul(V::load(row + i), factor));
      void* place = element_at(target, p_.type,
                               task.batch * strides.batch + task.head * strides.head + (k0 + r) * strides.token);
      if (p_.type == DType::f32) {
        std::memcpy(place, row, static_cast<size_t>(size) * sizeof(float));
      } else {
        V::narrow(row, p_.type, size, static_cast<uint16_t*>(place));
      }
    }
  }

  void write_columns(const BackwardTask& task, int64_t q0, int64_t queries, const float* sums) {
    for (int64_t i = 0; i < kQueryTile; ++i) ignored_[i] = p_.scale;
    unpack_columns<V>(sums, rows_of(g_.dq, p_.type, g_.dq_strides, task.batch, task.head, q0, queries, p_.head_size), ignored_,
                      staging_);
  }

  const Problem& p_;
  const Gradients g_;
  const int64_t key_block_;
  const int64_t q_slots_, v_slots_;  // 4-byte slots of a packed row
  const int64_t q_width_, v_width_;  // head sizes rounded up to vectors
  const float factor_;
  const float exponent_factor_;
  float *keys_, *key_pairs_, *values_;
  float *scores_, *slopes_, *score_pairs_, *slope_pairs_;
  float *query_columns_, *dy_columns_, *query_pairs_, *dy_pairs_;
  float *shift_, *delta_, *ignored_;
  float *key_sums_, *value_sums_;
  float* staging_;
  float* query_sums_;  // [tile][head_size][kQueryTile]
};

}  // namespace
}  // namespace td::attention

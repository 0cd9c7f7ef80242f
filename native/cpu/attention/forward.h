// Forward pass over one range of queries of one head.
#pragma once

#include <cmath>
#include <limits>

#include "cpu/attention/scores.h"
#include "cpu/attention/scratch.h"

namespace td::attention {
namespace {

template <class A>
class Forward {
  using V = typename A::V;
  using F = typename V::F;

 public:
  static size_t scratch(const Problem& p, const Blocking& b) {
    Scratch measure(nullptr);
    Forward forward(p, b, measure);
    return measure.used();
  }

  static void run(const ForwardTask& task, float* memory) {
    Scratch scratch(memory);
    Forward forward(*task.problem, task.blocking, scratch);
    forward.queries(task);
  }

 private:
  Forward(const Problem& p, const Blocking& b, Scratch& scratch)
      : p_(p),
        key_block_(b.key_block),
        q_slots_(divide_up(p.head_size, A::kPair)),
        value_row_(unaliased_row(p.value_size)),
        query_factor_(!A::kScaledQueries ? (p.scale < 0 ? -1.0f : 1.0f) : p.bias ? p.scale : p.scale * kLog2E),
        score_factor_(A::kScaledQueries ? 1.0f : std::fabs(p.scale)),
        exponent_factor_(p.bias ? kLog2E : A::kScaledQueries ? 1.0f : std::fabs(p.scale) * kLog2E) {
    keys_ = scratch.take(key_block_ * q_slots_);
    values_ = scratch.take(divide_up(key_block_, A::kPair) * value_row_);
    scores_ = scratch.take(key_block_ * kQueryTile);
    block_maximum_ = scratch.take(kQueryTile);
    block_total_ = scratch.take(kQueryTile);
    shift_ = scratch.take(kQueryTile);
    staging_ = scratch.take(V::kWidth * most(most(p.head_size, p.value_size), V::kWidth));
    tile_floats_ = static_cast<int64_t>(tile_layout(p, nullptr));
    tiles_ = scratch.take(tile_floats_ * b.query_tiles);
  }

  // What a tile of queries keeps from one block of keys to the next.
  struct Tile {
    float* queries;  // [q_slots][kQueryTile]
    float* out;      // [value_size][kQueryTile], not yet divided by total
    float* maximum;  // [kQueryTile], times exponent_factor
    float* total;    // [kQueryTile]
  };

  size_t tile_layout(const Problem& p, Tile* tile, float* base = nullptr) const {
    Scratch scratch(base);
    float* queries = scratch.take(q_slots_ * kQueryTile);
    float* out = scratch.take(p.value_size * kQueryTile);
    float* maximum = scratch.take(kQueryTile);
    float* total = scratch.take(kQueryTile);
    if (tile) *tile = {queries, out, maximum, total};
    return scratch.used();
  }

  Tile tile(int64_t index) const {
    Tile t;
    tile_layout(p_, &t, tiles_ + index * tile_floats_);
    return t;
  }

  void queries(const ForwardTask& task) {
    const int64_t tiles = divide_up(task.query_end - task.query_begin, kQueryTile);
    for (int64_t k0 = 0; k0 < p_.keys; k0 += key_block_) {
      const int64_t count = least(key_block_, p_.keys - k0);
      const bool last = k0 + count == p_.keys;
      A::pack_rows(key_rows(task, k0, count), keys_, q_slots_);
      A::pack_row_pairs(value_rows(task, k0, count), values_, value_row_);
      for (int64_t i = 0; i < tiles; ++i) {
        if (k0 == 0) begin(task, i);
        plan_ahead(task, i, tiles, k0, count);
        attend(task, i, k0, count);
        if (last) finish(task, i);
      }
    }
  }

  // What comes from memory next is asked for now, and arrives behind the products.
  void plan_ahead(const ForwardTask& task, int64_t index, int64_t tiles, int64_t k0, int64_t count) {
    const int64_t next = k0 + count, coming = least(key_block_, p_.keys - next);
    ahead_.clear();
    if (k0 == 0 && index + 1 < tiles) look_ahead(ahead_, query_rows(task, index + 1));
    if (coming > 0) {
      const int64_t from = coming * index / tiles, share = coming * (index + 1) / tiles - from;
      look_ahead(ahead_, key_rows(task, next + from, share));
      look_ahead(ahead_, value_rows(task, next + from, share));
    } else {
      look_ahead(ahead_, out_rows(task, index));
    }
    ahead_.divide(divide_up(count, kMostRows) + divide_up(p_.value_size, kMostRows));
  }

  Rows key_rows(const ForwardTask& task, int64_t begin, int64_t count) const {
    return rows_of(p_.k, p_.type, p_.k_strides, task.batch, task.head, begin, count, p_.head_size);
  }
  Rows value_rows(const ForwardTask& task, int64_t begin, int64_t count) const {
    return rows_of(p_.v, p_.type, p_.v_strides, task.batch, task.head, begin, count, p_.value_size);
  }
  Rows query_rows(const ForwardTask& task, int64_t index) const {
    return rows_of(p_.q, p_.type, p_.q_strides, task.batch, task.head, first_query(task, index), query_count(task, index),
                   p_.head_size);
  }
  Rows out_rows(const ForwardTask& task, int64_t index) const {
    return rows_of(p_.out, p_.type, p_.out_strides, task.batch, task.head, first_query(task, index), query_count(task, index),
                   p_.value_size);
  }

  int64_t first_query(const ForwardTask& task, int64_t index) const { return task.query_begin + index * kQueryTile; }
  int64_t query_count(const ForwardTask& task, int64_t index) const {
    return least(kQueryTile, task.query_end - first_query(task, index));
  }

  void begin(const ForwardTask& task, int64_t index) {
    const Tile t = tile(index);
    A::pack_columns(query_rows(task, index), query_factor_, t.queries, staging_);
    for (int64_t i = 0; i < kQueryTile; i += V::kWidth) {
      V::store(t.maximum + i, V::set1(-std::numeric_limits<float>::infinity()));
      V::store(t.total + i, V::zero());
    }
  }

  void attend(const ForwardTask& task, int64_t index, int64_t k0, int64_t count) {
    const Tile t = tile(index);
    const int64_t vectors = divide_up(query_count(task, index), V::kWidth);
    const bool first = k0 == 0;
    if (first || !exponentiate_at_once(t, count, vectors)) {
      find_scores(task, index, k0, count);
      raise_maximum(t, vectors, first);
      exponentiate<A>(scores_, count, vectors, exponent_factor_, shift_, t.total);
    }
    TileOperands values = {values_, 1, value_row_, scores_, kQueryTile, divide_up(count, A::kPair), t.out, kQueryTile};
    values.ahead = &ahead_;
    if (first) {
      multiply<A, TileStore::assign>(values, p_.value_size, vectors);
    } else {
      multiply<A, TileStore::add>(values, p_.value_size, vectors);
    }
  }

  TileOperands score_operands(const Tile& t) {
    TileOperands scores = {keys_, q_slots_, 1, t.queries, kQueryTile, q_slots_, scores_, kQueryTile};
    scores.ahead = &ahead_;
    return scores;
  }

  // Probabilities under the running maximum, without a look at the block's own: scores leave the registers as probabilities. False,
  // with nothing changed but scores_, when scores are too far above that maximum or are not numbers.
  bool exponentiate_at_once(const Tile& t, int64_t count, int64_t vectors) {
    if (p_.bias || q_slots_ > kPiece) return false;
    for (int64_t c = 0; c < vectors * V::kWidth; c += V::kWidth) {
      const F maximum = V::load(t.maximum + c);
      if (V::any_not_equal(maximum, V::zero_where_negative_infinity(maximum))) return false;
      V::store(shift_ + c, maximum);
      V::store(block_total_ + c, V::zero());
    }
    TileOperands scores = score_operands(t);
    scores.factor = exponent_factor_;
    scores.shift = shift_;
    scores.total = block_total_;
    multiply<A, TileStore::probabilities>(scores, count, vectors);
    // A larger sum has a term above 2^kSlack, for which raise_maximum will raise the maximum.
    const F most = V::set1(static_cast<float>(count) * kMostOverMaximum);
    for (int64_t c = 0; c < vectors * V::kWidth; c += V::kWidth) {
      const F total = V::load(block_total_ + c);
      if (V::any_not_equal(total, V::min(total, most))) return false;
    }
    for (int64_t c = 0; c < vectors * V::kWidth; c += V::kWidth) {
      V::store(t.total + c, V::add(V::load(t.total + c), V::load(block_total_ + c)));
    }
    return true;
  }

  // scores_ and block_maximum_, with the bias.
  void find_scores(const ForwardTask& task, int64_t index, int64_t k0, int64_t count) {
    const int64_t queries = query_count(task, index), vectors = divide_up(queries, V::kWidth);
    for (int64_t i = 0; i < vectors * V::kWidth; i += V::kWidth) {
      V::store(block_maximum_ + i, V::set1(-std::numeric_limits<float>::infinity()));
    }
    TileOperands scores = score_operands(tile(index));
    if (p_.bias) {
      multiply_long<A, false>(scores, count, vectors);
      add_bias<V>(bias_tile(p_, task.batch, task.head, first_query(task, index), queries, k0, count), score_factor_, scores_,
                  block_maximum_, staging_);
    } else {
      scores.maximum = block_maximum_;
      multiply_long<A, true>(scores, count, vectors);
    }
  }

  // Takes the block's maximum into the running one, and rescales what was summed under the old one where it rose by more than kSlack.
  // A smaller rise is left alone (as FlashAttention-4 does): any shift gives the same quotient, and 2^kSlack overflows nothing.
  void raise_maximum(const Tile& t, int64_t vectors, bool first) {
    // Slightly below the maximum, by more than rounding can lift it: the exponent of the largest score is then not below zero, where the
    // polynomial of exp2 would start at the far end of its interval and give 1 with its largest error.
    const F low = V::set1(exponent_factor_ * (1.0f - 0x1p-22f)), high = V::set1(exponent_factor_ * (1.0f + 0x1p-22f));
    for (int64_t c = 0; c < vectors * V::kWidth; c += V::kWidth) {
      const F before = V::load(t.maximum + c);
      const F highest = V::load(block_maximum_ + c);
      const F lowered = V::min(V::mul(highest, low), V::mul(highest, high));
      const F after = V::where_greater(V::sub(lowered, V::set1(kSlack)), before, lowered, before);
      // Subtracting -inf from -inf would make NaN of a block that merely holds masked keys.
      const F shift = V::zero_where_negative_infinity(after);
      V::store(shift_ + c, shift);
      if (!V::any_not_equal(before, after)) continue;
      V::store(t.maximum + c, after);
      if (first) continue;
      const F shrink = V::template exp2<5>(V::sub(before, shift));
      V::store(t.total + c, V::mul(V::load(t.total + c), shrink));
      for (int64_t i = 0; i < p_.value_size; ++i) {
        float* place = t.out + i * kQueryTile + c;
        V::store(place, V::mul(V::load(place), shrink));
      }
    }
  }

  void finish(const ForwardTask& task, int64_t index) {
    const Tile t = tile(index);
    const int64_t q0 = first_query(task, index), queries = query_count(task, index);
    // A row whose every key is masked has a total of zero, and gives zero.
    for (int64_t i = 0; i < kQueryTile; ++i) shift_[i] = i < queries && t.total[i] != 0.0f ? 1.0f / t.total[i] : 0.0f;
    unpack_columns<V>(t.out, out_rows(task, index), shift_, staging_);
    if (!p_.lse) return;
    float* lse = p_.lse + (task.batch * p_.heads + task.head) * p_.queries + q0;
    for (int64_t i = 0; i < queries; ++i) {
      lse[i] = static_cast<float>(t.maximum[i] * kLn2 + static_cast<double>(std::log(t.total[i])));
    }
  }

  static constexpr float kSlack = 8.0f;
  static constexpr float kMostOverMaximum = 256.0f;  // 2^kSlack

  const Problem& p_;
  const int64_t key_block_;
  const int64_t q_slots_;
  const int64_t value_row_;
  const float query_factor_;     // of the packed queries
  const float score_factor_;     // of their scores, before the bias
  const float exponent_factor_;  // of the scores, with the bias, as powers of two
  int64_t tile_floats_ = 0;
  Ahead ahead_;
  float* keys_;
  float* values_;
  float* scores_;
  float* block_maximum_;
  float* block_total_;
  float* shift_;
  float* staging_;
  float* tiles_;
};

}  // namespace
}  // namespace td::attention

// A tile of scores: the bias, and the online softmax that turns scores into probabilities.
#pragma once

#include "cpu/attention/pack.h"

namespace td::attention {
namespace {

constexpr float kLog2E = 1.44269504088896341f;
constexpr double kLn2 = 0.693147180559945309417;

// Bias of one tile: keys [k0, k0 + keys) by queries [q0, q0 + queries).
struct BiasTile {
  const float* data;
  int64_t query_stride, key_stride;
  int64_t keys, queries;
};

inline BiasTile bias_tile(const Problem& p, int64_t batch, int64_t head, int64_t q0, int64_t queries, int64_t k0,
                          int64_t keys) {
  const BiasStrides& s = p.bias_strides;
  return {p.bias + batch * s.batch + head * s.head + q0 * s.query + k0 * s.key, s.query, s.key, keys, queries};
}

// scores = scale * scores + bias, in place; raises maximum[query]. buffer: kWidth * kWidth floats.
template <class V>
void add_bias(const BiasTile& t, float scale, float* scores, float* maximum, float* buffer) {
  using F = typename V::F;
  const F factor = V::set1(scale);
  for (int64_t i = 0; i < t.queries; i += V::kWidth) {
    const int64_t queries = least(V::kWidth, t.queries - i);
    F highest = V::load(maximum + i);
    for (int64_t k = 0; k < t.keys; k += V::kWidth) {
      const int64_t keys = least(V::kWidth, t.keys - k);
      const float* corner = t.data + i * t.query_stride + k * t.key_stride;
      if (t.query_stride != 0) {
        if (t.key_stride == 1) {
          V::transpose(corner, t.query_stride, queries, keys, buffer, V::kWidth, V::kWidth);
        } else {
          for (int64_t j = 0; j < keys; ++j) {
            for (int64_t r = 0; r < V::kWidth; ++r) {
              buffer[j * V::kWidth + r] = r < queries ? corner[r * t.query_stride + j * t.key_stride] : 0.0f;
            }
          }
        }
      }
      for (int64_t j = 0; j < keys; ++j) {
        const F bias = t.query_stride != 0 ? V::load(buffer + j * V::kWidth) : V::set1(corner[j * t.key_stride]);
        float* place = scores + (k + j) * kQueryTile + i;
        const F score = V::fmadd(V::load(place), factor, bias);
        V::store(place, score);
        highest = V::max_ignoring_nan(score, highest);
      }
    }
    V::store(maximum + i, highest);
  }
}

// probabilities = 2^(scores * factor - shift), in the layout of a sum over keys, in place; total[query] += their sum.
template <class A, int kCols>
void exponentiate_columns(float* scores, int64_t keys, float factor, const float* shift, float* total) {
  using V = typename A::V;
  using F = typename V::F;
  const F scale = V::set1(factor);
  F offset[kCols], sum[kCols];
  TD_UNROLL
  for (int c = 0; c < kCols; ++c) {
    offset[c] = V::load(shift + c * V::kWidth);
    sum[c] = V::zero();
  }
  float* target = scores;
  const float* source = scores;
  int64_t k = 0;
  for (; k + A::kPair <= keys; k += A::kPair) {
    TD_UNROLL
    for (int c = 0; c < kCols; ++c) {
      F p[A::kPair];
      TD_UNROLL
      for (int i = 0; i < A::kPair; ++i) {
        const F score = V::load(source + i * kQueryTile + c * V::kWidth);
        p[i] = V::template exp2<A::kExpDegree>(V::fmsub(score, scale, offset[c]));
        sum[c] = V::add(sum[c], p[i]);
      }
      A::store_keys(target + c * V::kWidth, p);
    }
    source += A::kPair * kQueryTile;
    target += kQueryTile;
  }
  if (k < keys) {
    TD_UNROLL
    for (int c = 0; c < kCols; ++c) {
      F p[A::kPair] = {V::template exp2<A::kExpDegree>(V::fmsub(V::load(source + c * V::kWidth), scale, offset[c]))};
      for (int i = 1; i < A::kPair; ++i) p[i] = V::zero();
      sum[c] = V::add(sum[c], p[0]);
      A::store_keys(target + c * V::kWidth, p);
    }
  }
  TD_UNROLL
  for (int c = 0; c < kCols; ++c) {
    V::store(total + c * V::kWidth, V::add(V::load(total + c * V::kWidth), sum[c]));
  }
}

template <class A>
void exponentiate(float* scores, int64_t keys, int64_t vectors, float factor, const float* shift, float* total) {
  constexpr int kStep = 4;
  int64_t c = 0;
  for (; c + kStep <= vectors; c += kStep) {
    const int64_t at = c * A::V::kWidth;
    exponentiate_columns<A, kStep>(scores + at, keys, factor, shift + at, total + at);
  }
  for (; c < vectors; ++c) {
    const int64_t at = c * A::V::kWidth;
    exponentiate_columns<A, 1>(scores + at, keys, factor, shift + at, total + at);
  }
}

}  // namespace
}  // namespace td::attention

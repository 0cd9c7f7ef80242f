// Attention and its gradients in float64, and the tensors of a test case.
#pragma once
#include <functional>
#include <string>

#include "cuda/kernels/attention_float32.cuh"
#include "cuda/kernels/attention_forward.cuh"
#include "numbers.h"

namespace td::cuda::test {

enum class AttentionLayout { heads, tokens, packed };

struct AttentionCase {
  using Run = std::function<void(const AttentionArguments&, int batch)>;

  int batch, heads, queries, keys, head_size, value_size;
  AttentionLayout layout = AttentionLayout::heads;
  bool bias = false, causal = false;

  AttentionStrides strides(int tokens, int size, bool result = false) const {
    const int64_t row = int64_t(heads) * size;
    if (layout == AttentionLayout::heads) return {tokens * row, int64_t(tokens) * size, size};
    return layout == AttentionLayout::tokens || result ? AttentionStrides{tokens * row, size, row} : AttentionStrides{3 * tokens * row, size, 3 * row};
  }
  int64_t query_numbers() const { return int64_t(batch) * heads * queries * head_size; }
  int64_t key_numbers() const { return int64_t(batch) * heads * keys * head_size; }
  int64_t value_numbers() const { return int64_t(batch) * heads * keys * value_size; }
  int64_t out_numbers() const { return int64_t(batch) * heads * queries * value_size; }
  float scale() const { return 1.f / std::sqrt(float(head_size)); }
  std::string text() const {
    static const char* names[] = {"", " tokens", " packed"};
    return std::to_string(batch) + "x" + std::to_string(heads) + " " + std::to_string(queries) + "x" + std::to_string(keys) + " d " +
           std::to_string(head_size) + (value_size != head_size ? "/" + std::to_string(value_size) : "") + names[int(layout)] + (bias ? " bias" : "") +
           (causal ? " causal" : "");
  }
};

/// The inputs in memory of the device.
template <class T>
struct AttentionTensors {
  DeviceArray<Number<T>> q, k, v;
  DeviceArray<float> bias;
  AttentionCase c;

  explicit AttentionTensors(const AttentionCase& given)
      : q(random_numbers<T>(given.layout == AttentionLayout::packed ? 3 * given.query_numbers() : given.query_numbers(), 1)),
        k(random_numbers<T>(given.key_numbers(), 2)), v(random_numbers<T>(given.value_numbers(), 3)),
        bias(random_bias(given)), c(given) {}

  /// A quarter of the keys masked, and every key of the query in the middle.
  static std::vector<float> random_bias(const AttentionCase& c) {
    std::vector<float> bias(c.bias ? size_t(c.batch) * c.queries * c.keys : 0);
    std::mt19937 generator(4);
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < bias.size(); ++i) {
      bias[i] = generator() % 4 == 0 || int(i / c.keys) % c.queries == c.queries / 2 ? -INFINITY : normal(generator);
    }
    return bias;
  }
  const Number<T>* at(int which) {
    if (c.layout == AttentionLayout::packed) return q.data() + which * c.heads * c.head_size;
    return which == 0 ? q.data() : which == 1 ? k.data() : v.data();
  }
  static bool aligned(const void* data, const AttentionStrides& s) {
    const int64_t vector = 16 / sizeof(Number<T>);
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && s.batch % vector == 0 && s.head % vector == 0 && s.token % vector == 0;
  }
  AttentionTensor tensor(int which, int tokens, int size) {
    const AttentionStrides s = c.strides(tokens, size);
    return {at(which), s, aligned(at(which), s)};
  }
  AttentionArguments arguments(Number<T>* out, float* lse) {
    AttentionArguments p{};
    p.q = tensor(0, c.queries, c.head_size);
    p.k = tensor(1, c.keys, c.head_size);
    p.v = tensor(2, c.keys, c.value_size);
    const AttentionStrides s = c.strides(c.queries, c.value_size, true);
    p.out = {out, s, aligned(out, s)};
    p.lse = lse;
    if (c.bias) p.bias = {bias.data(), int64_t(c.queries) * c.keys, 0, c.keys, 1};
    p.heads = c.heads, p.queries = c.queries, p.keys = c.keys, p.head_size = c.head_size, p.value_size = c.value_size;
    p.scale = c.scale();
    p.causal = c.causal;
    return p;
  }
  /// Number x of token n.
  double number(int which, int tokens, int size, int b, int h, int n, int x) {
    const AttentionStrides s = c.strides(tokens, size);
    return read<T>(at(which)[b * s.batch + h * s.head + n * s.token + x]);
  }
  /// The logarithms of the weights of one query, and their log-sum-exp (-inf where all are masked).
  double logits(int b, int h, int i, std::vector<double>& w) {
    double top = -INFINITY, sum = 0;
    for (int j = 0; j < c.keys; ++j) {
      double dot = 0;
      for (int x = 0; x < c.head_size; ++x) dot += number(0, c.queries, c.head_size, b, h, i, x) * number(1, c.keys, c.head_size, b, h, j, x);
      w[j] = dot * c.scale() + (c.bias ? bias[(size_t(b) * c.queries + i) * c.keys + j] : 0.);
      if (c.causal && j > i) w[j] = -INFINITY;
      top = std::max(top, w[j]);
    }
    for (int j = 0; j < c.keys && top > -INFINITY; ++j) sum += std::exp(w[j] - top);
    return sum > 0 ? top + std::log(sum) : -INFINITY;
  }
};

template <class T>
struct AttentionOutcome {
  Error<T> error;
  double lse_error = 0;
  std::vector<Number<T>> out;
};

template <class T>
AttentionOutcome<T> run_attention(const AttentionCase& c, const AttentionCase::Run& run) {
  AttentionTensors<T> t(c);
  DeviceArray<Number<T>> out(c.out_numbers());
  DeviceArray<float> lse(size_t(c.batch) * c.heads * c.queries);
  run(t.arguments(out.data(), lse.data()), c.batch);
  AttentionOutcome<T> r;
  r.out = out.values();
  std::vector<double> w(c.keys), o(c.value_size);
  const AttentionStrides s = c.strides(c.queries, c.value_size, true);
  for (int b = 0; b < c.batch; ++b) {
    for (int h = 0; h < c.heads; ++h) {
      for (int i = 0; i < c.queries; ++i) {
        const double want = t.logits(b, h, i, w), got = lse[(size_t(b) * c.heads + h) * c.queries + i];
        std::fill(o.begin(), o.end(), 0.);
        for (int j = 0; j < c.keys && want > -INFINITY; ++j) {
          const double weight = std::exp(w[j] - want);
          for (int x = 0; x < c.value_size; ++x) o[x] += weight * t.number(2, c.keys, c.value_size, b, h, j, x);
        }
        r.lse_error = std::max(r.lse_error, want == got ? 0. : std::isnan(got - want) ? INFINITY : std::fabs(got - want));
        for (int x = 0; x < c.value_size; ++x) r.error.add(r.out[b * s.batch + h * s.head + i * s.token + x], o[x]);
      }
    }
  }
  return r;
}

}  // namespace td::cuda::test

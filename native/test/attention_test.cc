// Compares every instruction set of the CPU attention with a double-precision reference.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/half.h"
#include "cpu/attention/attention.h"
#include "cpu/isa.h"
#include "test/check.h"

using namespace td;
using namespace td::attention;

namespace {

void expect(bool ok, const std::string& what) { CHECK_MESSAGE(ok, what); }

/// A test that runs on every instruction set that this machine has.
#define ATTENTION_TEST(name) ATTENTION_TEST_OF(name, DOCTEST_ANONYMOUS(attention_test_))
#define ATTENTION_TEST_OF(name, body) \
  static void body();                 \
  TEST_CASE(name) { on_every_isa(body); } \
  static void body()

void on_every_isa(void (*body)()) {
  const Isa before = isa();
  for (Isa each : {Isa::base, Isa::avx2, Isa::avx512, Isa::avx512_bf16}) {
    if (each > detected_isa()) continue;
    set_isa(each);
    body();
  }
  set_isa(before);
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
enum class Layout { bhnd, tokens, packed, gaps };
enum class Bias { none, full, per_head, per_key, per_query, single, transposed };

struct Case {
  int64_t batch, heads, queries, keys, head_size, value_size;
  DType type = DType::f32;
  Layout layout = Layout::bhnd;
  Bias bias = Bias::none;
  bool masked = false;  // some keys at -inf, and one query with every key at -inf
  float scale = 0.0f;   // 0: 1 / sqrt(head_size)
  float spread = 1.0f;  // standard deviation of q
};

std::string describe(const Case& c) {
  char text[200];
  std::snprintf(text, sizeof text, "[%s %s] B%lld H%lld Nq%lld Nk%lld d%lld dv%lld layout %d bias %d masked %d scale %g",
                name_of(isa()), name_of(c.type), static_cast<long long>(c.batch),
                static_cast<long long>(c.heads), static_cast<long long>(c.queries), static_cast<long long>(c.keys),
                static_cast<long long>(c.head_size), static_cast<long long>(c.value_size), static_cast<int>(c.layout),
                static_cast<int>(c.bias), c.masked, static_cast<double>(c.scale));
  return text;
}

constexpr char kUntouched = 0x5b;

// A [B,H,N,size] tensor in the memory of some layout and type. What the layout leaves out is filled with kUntouched.
class Operand {
 public:
  Operand(const Case& c, int64_t tokens, int64_t size, int part = 0)
      : type_(c.type), batch_(c.batch), heads_(c.heads), tokens_(tokens), size_(size) {
    int64_t total = 0;
    switch (c.layout) {
      case Layout::bhnd:
        strides = strides_bhnd(heads_, tokens, size);
        total = batch_ * heads_ * tokens * size;
        break;
      case Layout::tokens:
        strides = strides_tokens(heads_, tokens, size);
        total = batch_ * heads_ * tokens * size;
        break;
      case Layout::packed:  // the part-th of three that share each token
        strides = {tokens * 3 * heads_ * size, size, 3 * heads_ * size};
        offset_ = part * heads_ * size;
        total = batch_ * tokens * 3 * heads_ * size;
        break;
      case Layout::gaps:
        strides = {heads_ * (tokens * (size + 3) + 5) + 7, tokens * (size + 3) + 5, size + 3};
        offset_ = 1;
        total = 1 + batch_ * strides.batch;
        break;
    }
    data_.assign(static_cast<size_t>(total * bytes()), kUntouched);
  }

  int64_t bytes() const { return type_ == DType::f32 ? 4 : 2; }
  int64_t count() const { return batch_ * heads_ * tokens_ * size_; }
  void* data() { return data_.data() + offset_ * bytes(); }
  const std::vector<char>& raw() const { return data_; }

  // Stores values rounded to the type, and rounds them in place too.
  void set(std::vector<float>& values) {
    each([&](int64_t i, char* place) {
      if (type_ == DType::f32) {
        std::memcpy(place, &values[static_cast<size_t>(i)], 4);
        return;
      }
      const bool bf16 = type_ == DType::bf16;
      float& value = values[static_cast<size_t>(i)];
      const uint16_t half = bf16 ? float_to_bf16(value) : float_to_f16(value);
      std::memcpy(place, &half, 2);
      value = bf16 ? bf16_to_float(half) : f16_to_float(half);
    });
  }

  std::vector<float> get() {
    std::vector<float> values(static_cast<size_t>(count()));
    each([&](int64_t i, char* place) {
      float& value = values[static_cast<size_t>(i)];
      if (type_ == DType::f32) {
        std::memcpy(&value, place, 4);
        return;
      }
      uint16_t half;
      std::memcpy(&half, place, 2);
      value = type_ == DType::bf16 ? bf16_to_float(half) : f16_to_float(half);
    });
    return values;
  }

  bool gaps_untouched() {
    std::vector<char> mine(data_.size(), 0);
    each([&](int64_t, char* place) { std::memset(mine.data() + (place - data_.data()), 1, static_cast<size_t>(bytes())); });
    for (size_t i = 0; i < data_.size(); ++i) {
      if (!mine[i] && data_[i] != kUntouched) return false;
    }
    return true;
  }

  Strides strides;

 private:
  void each(const std::function<void(int64_t, char*)>& function) {
    int64_t i = 0;
    for (int64_t b = 0; b < batch_; ++b)
      for (int64_t h = 0; h < heads_; ++h)
        for (int64_t n = 0; n < tokens_; ++n)
          for (int64_t x = 0; x < size_; ++x) {
            const int64_t at = offset_ + b * strides.batch + h * strides.head + n * strides.token + x;
            function(i++, data_.data() + at * bytes());
          }
  }

  DType type_;
  int64_t batch_, heads_, tokens_, size_, offset_ = 0;
  std::vector<char> data_;
};

std::vector<float> normals(int64_t count, unsigned seed, float spread = 1.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

// Everything of one case: inputs in memory and as float32, and the outputs' memory.
struct Setup {
  explicit Setup(const Case& given)
      : c(given),
        q(c, c.queries, c.head_size, 0),
        k(c, c.keys, c.head_size, 1),
        v(c, c.keys, c.value_size, 2),
        out(c, c.queries, c.value_size, 0),
        dy(c, c.queries, c.value_size, 1),
        dq(c, c.queries, c.head_size, 0),
        dk(c, c.keys, c.head_size, 1),
        dv(c, c.keys, c.value_size, 2),
        q_values(normals(q.count(), 1, c.spread)),
        k_values(normals(k.count(), 2)),
        v_values(normals(v.count(), 3)),
        dy_values(normals(dy.count(), 4)),
        lse(static_cast<size_t>(c.batch * c.heads * c.queries)) {
    make_bias();
    store();
    p.type = c.type;
    p.batch = c.batch, p.heads = c.heads, p.queries = c.queries, p.keys = c.keys;
    p.head_size = c.head_size, p.value_size = c.value_size;
    p.scale = c.scale != 0.0f ? c.scale : 1.0f / std::sqrt(static_cast<float>(c.head_size));
    p.q = q.data(), p.k = k.data(), p.v = v.data(), p.out = out.data(), p.lse = lse.data();
    p.q_strides = q.strides, p.k_strides = k.strides, p.v_strides = v.strides, p.out_strides = out.strides;
    p.bias = bias.empty() ? nullptr : bias.data();
    g.dy = dy.data(), g.dq = dq.data(), g.dk = dk.data(), g.dv = dv.data();
    g.dy_strides = dy.strides, g.dq_strides = dq.strides, g.dk_strides = dk.strides, g.dv_strides = dv.strides;
  }

  void store() {
    q.set(q_values);
    k.set(k_values);
    v.set(v_values);
    dy.set(dy_values);
  }

  void make_bias() {
    BiasStrides& s = p.bias_strides;
    const int64_t n = c.queries, m = c.keys;
    int64_t count = 0;
    switch (c.bias) {
      case Bias::none: return;
      case Bias::full: s = {c.heads * n * m, n * m, m, 1}, count = c.batch * c.heads * n * m; break;
      case Bias::per_head: s = {0, n * m, m, 1}, count = c.heads * n * m; break;
      case Bias::per_key: s = {m, 0, 0, 1}, count = c.batch * m; break;
      case Bias::per_query: s = {n, 0, 1, 0}, count = c.batch * n; break;
      case Bias::single: s = {0, 0, m, 1}, count = n * m; break;
      case Bias::transposed: s = {0, n * m, 1, n}, count = c.heads * n * m; break;
    }
    bias = normals(count, 5);
    if (!c.masked) return;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < m; ++j) {
        const bool whole_row = i == n / 2 && s.query != 0;
        if (whole_row || (s.key != 0 && j % 3 == 1)) {
          for (int64_t b = 0; b < (s.batch ? c.batch : 1); ++b)
            for (int64_t h = 0; h < (s.head ? c.heads : 1); ++h) {
              bias[static_cast<size_t>(b * s.batch + h * s.head + i * s.query + j * s.key)] = -kInfinity;
            }
        }
      }
    }
  }

  Case c;
  Operand q, k, v, out, dy, dq, dk, dv;
  std::vector<float> q_values, k_values, v_values, dy_values, bias, lse;
  Problem p;
  Gradients g;
};

struct Truth {
  std::vector<double> out, lse, dq, dk, dv;
};

Truth reference(const Setup& s, bool gradients) {
  const Case& c = s.c;
  const int64_t n = c.queries, m = c.keys, d = c.head_size, e = c.value_size, heads = c.batch * c.heads;
  Truth t;
  t.out.assign(static_cast<size_t>(heads * n * e), 0.0);
  t.lse.assign(static_cast<size_t>(heads * n), 0.0);
  if (gradients) {
    t.dq.assign(static_cast<size_t>(heads * n * d), 0.0);
    t.dk.assign(static_cast<size_t>(heads * m * d), 0.0);
    t.dv.assign(static_cast<size_t>(heads * m * e), 0.0);
  }
  std::vector<double> weight(static_cast<size_t>(m));
  for (int64_t bh = 0; bh < heads; ++bh) {
    const float* q = s.q_values.data() + bh * n * d;
    const float* k = s.k_values.data() + bh * m * d;
    const float* v = s.v_values.data() + bh * m * e;
    const float* dy = s.dy_values.data() + bh * n * e;
    const BiasStrides& bs = s.p.bias_strides;
    const float* bias = s.bias.empty() ? nullptr : s.bias.data() + bh / c.heads * bs.batch + bh % c.heads * bs.head;
    for (int64_t i = 0; i < n; ++i) {
      double highest = -std::numeric_limits<double>::infinity(), total = 0.0;
      for (int64_t j = 0; j < m; ++j) {
        double score = 0.0;
        for (int64_t x = 0; x < d; ++x) score += static_cast<double>(q[i * d + x]) * static_cast<double>(k[j * d + x]);
        score *= static_cast<double>(s.p.scale);
        if (bias) score += static_cast<double>(bias[i * bs.query + j * bs.key]);
        weight[static_cast<size_t>(j)] = score;
        if (score > highest) highest = score;
      }
      const bool hidden = highest == -std::numeric_limits<double>::infinity();
      for (double& w : weight) total += w = std::exp(w - (hidden ? 0.0 : highest));
      t.lse[static_cast<size_t>(bh * n + i)] = highest + std::log(total);
      double* out = t.out.data() + (bh * n + i) * e;
      for (int64_t j = 0; j < m; ++j) {
        weight[static_cast<size_t>(j)] /= total == 0.0 ? 1.0 : total;
        for (int64_t x = 0; x < e; ++x) out[x] += weight[static_cast<size_t>(j)] * static_cast<double>(v[j * e + x]);
      }
      if (!gradients) continue;
      double delta = 0.0;
      for (int64_t x = 0; x < e; ++x) delta += out[x] * static_cast<double>(dy[i * e + x]);
      for (int64_t j = 0; j < m; ++j) {
        double dp = 0.0;
        for (int64_t x = 0; x < e; ++x) {
          t.dv[static_cast<size_t>((bh * m + j) * e + x)] += weight[static_cast<size_t>(j)] * static_cast<double>(dy[i * e + x]);
          dp += static_cast<double>(dy[i * e + x]) * static_cast<double>(v[j * e + x]);
        }
        const double slope = weight[static_cast<size_t>(j)] * (dp - delta) * static_cast<double>(s.p.scale);
        for (int64_t x = 0; x < d; ++x) {
          t.dq[static_cast<size_t>((bh * n + i) * d + x)] += slope * static_cast<double>(k[j * d + x]);
          t.dk[static_cast<size_t>((bh * m + j) * d + x)] += slope * static_cast<double>(q[i * d + x]);
        }
      }
    }
  }
  return t;
}

// |x - truth| / |truth| over what is finite, or the root mean square of x where the truth is zero (the gradients of a softmax over one
// key); infinite when a non-finite value is not the same in both.
double distance(const std::vector<float>& x, const std::vector<double>& truth) {
  if (x.size() != truth.size()) return kInfinity;
  double error = 0.0, norm = 0.0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (std::isfinite(truth[i]) && std::isfinite(x[i])) {
      error += (static_cast<double>(x[i]) - truth[i]) * (static_cast<double>(x[i]) - truth[i]);
      norm += truth[i] * truth[i];
    } else if (std::isnan(truth[i]) ? !std::isnan(x[i]) : static_cast<double>(x[i]) != truth[i]) {
      return kInfinity;
    }
  }
  if (norm == 0.0) return std::sqrt(error / static_cast<double>(x.size()));
  return std::sqrt(error / norm);
}

void expect_near(const std::vector<float>& x, const std::vector<double>& truth, double limit, const std::string& what) {
  const double error = distance(x, truth);
  char text[80];
  std::snprintf(text, sizeof text, ": relative L2 error %.3g, limit %.3g", error, limit);
  expect(error <= limit, what + text);
}

struct Limits {
  double out, lse, gradient;
};

Limits limits(DType type) {
  if (type == DType::f32) return {1.5e-6, 1e-6, 4e-6};
  if (type == DType::bf16) return {6e-3, 1e-4, 1.5e-2};
  return {8e-4, 1e-6, 2e-3};
}

bool same_bytes(const std::vector<float>& x, const std::vector<float>& y) {
  return std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
}

void check_case(const Case& c, const Limits& limit, bool gradients) {
  Setup s(c);
  const std::string what = describe(c);
  const Truth truth = reference(s, gradients);
  forward(s.p, 1);
  expect_near(s.out.get(), truth.out, limit.out, what + " out");
  expect_near(s.lse, truth.lse, limit.lse, what + " lse");
  expect(s.out.gaps_untouched(), what + " out writes beside its rows");
  if (gradients) {
    backward(s.p, s.g, 1);
    expect_near(s.dq.get(), truth.dq, limit.gradient, what + " dq");
    expect_near(s.dk.get(), truth.dk, limit.gradient, what + " dk");
    expect_near(s.dv.get(), truth.dv, limit.gradient, what + " dv");
    expect(s.dq.gaps_untouched() && s.dk.gaps_untouched() && s.dv.gaps_untouched(), what + " gradients write beside their rows");
  }
  for (int threads : {2, 3}) {
    Setup again(c);
    forward(again.p, threads);
    expect(same_bytes(again.lse, s.lse) && again.out.raw() == s.out.raw(), what + " forward differs with threads");
    if (!gradients) continue;
    backward(again.p, again.g, threads);
    expect(again.dq.raw() == s.dq.raw() && again.dk.raw() == s.dk.raw() && again.dv.raw() == s.dv.raw(),
           what + " backward differs with threads");
  }
}

void check_case(const Case& c, bool gradients = true) { check_case(c, limits(c.type), gradients); }

const DType kTypes[] = {DType::f32, DType::bf16, DType::f16};

ATTENTION_TEST("attention of all sizes and layouts") {
  for (DType type : kTypes) {
    for (int64_t d : {1, 2, 7, 8, 15, 16, 17, 33, 40, 64, 80, 129, 160, 256, 512}) {
      check_case({1, 2, 37, 29, d, d, type});
      check_case({3, 1, 65, 131, d, d, type, Layout::tokens}, d <= 160);
    }
    for (int64_t n : {1, 2, 3, 15, 16, 17, 31, 33, 47, 48, 63, 64, 65, 127, 129, 200}) {
      check_case({1, 1, n, 77, 40, 40, type});
      check_case({1, 1, 77, n, 40, 40, type});
      check_case({1, 3, n, n, 8, 8, type, Layout::tokens});
    }
    check_case({1, 1, 1, 1, 1, 1, type});
    check_case({2, 2, 50, 60, 24, 56, type, Layout::gaps});
    check_case({2, 2, 50, 60, 72, 9, type, Layout::gaps});
    check_case({1, 1, 600, 700, 40, 40, type});
    check_case({2, 3, 70, 70, 40, 40, type, Layout::packed});
    check_case({2, 3, 70, 70, 33, 33, type, Layout::packed});
  }
}

ATTENTION_TEST("attention with a bias") {
  for (DType type : kTypes) {
    for (Bias bias : {Bias::full, Bias::per_head, Bias::per_key, Bias::per_query, Bias::single, Bias::transposed}) {
      for (bool masked : {false, true}) {
        check_case({2, 2, 35, 150, 40, 40, type, Layout::tokens, bias, masked});
        check_case({1, 2, 70, 9, 20, 20, type, Layout::bhnd, bias, masked});
      }
    }
  }
  // The first blocks of keys hidden altogether, as for padding on the left.
  Case c = {1, 1, 20, 400, 16, 16, DType::f32, Layout::bhnd, Bias::per_key};
  Setup s(c);
  for (size_t j = 0; j < 300; ++j) s.bias[j] = -kInfinity;
  const Truth truth = reference(s, true);
  forward(s.p, 1);
  backward(s.p, s.g, 1);
  expect_near(s.out.get(), truth.out, 1.5e-6, describe(c) + " left padding out");
  expect_near(s.dq.get(), truth.dq, 4e-6, describe(c) + " left padding dq");
  expect_near(s.dv.get(), truth.dv, 4e-6, describe(c) + " left padding dv");
}

// Scores that climb from block to block of keys, by little (the running maximum is left behind) and by much (it is raised each time).
void check_climbing(Setup& s, float step, const Limits& limit) {
  const Truth truth = reference(s, true);
  forward(s.p, 1);
  const std::string what = describe(s.c) + " climbing by " + std::to_string(step);
  expect_near(s.out.get(), truth.out, limit.out, what + " out");
  expect_near(s.lse, truth.lse, limit.lse, what + " lse");
  backward(s.p, s.g, 1);
  expect_near(s.dv.get(), truth.dv, limit.gradient, what + " dv");
}

ATTENTION_TEST("attention whose scores climb from block to block") {
  for (DType type : kTypes) {
    for (float step : {0.002f, 0.03f, 0.1f, -0.03f}) {
      Setup by_bias({2, 1, 70, 400, 40, 40, type, Layout::tokens, Bias::per_key});
      for (size_t j = 0; j < by_bias.bias.size(); ++j) by_bias.bias[j] = step * static_cast<float>(j % 400);
      check_climbing(by_bias, step, limits(type));

      Setup by_keys({2, 1, 70, 401, 40, 40, type, Layout::tokens});
      for (size_t i = 0; i < by_keys.q_values.size(); i += 40) by_keys.q_values[i] = 1.0f;
      for (size_t j = 0; j < by_keys.k_values.size(); j += 40) {
        by_keys.k_values[j] = step / by_keys.p.scale * static_cast<float>(j / 40 % 401);
      }
      by_keys.store();
      // A float32 score of 40, summed from terms as large, is off by 5e-6, and so are the probabilities.
      Limits limit = limits(type);
      if (type == DType::f32) limit.out = limit.gradient = 1e-5;
      check_climbing(by_keys, step, limit);
    }
  }
}

// Scores so high that an exponential under an earlier block's maximum is infinite, and a first block of keys whose scores are all -inf.
ATTENTION_TEST("attention whose maximum comes late") {
  for (DType type : kTypes) {
    for (float first : {-300.0f, -kInfinity}) {
      Setup s({1, 2, 70, 300, 40, 40, type});
      for (size_t i = 0; i < s.q_values.size(); i += 40) s.q_values[i] = 1.0f;
      for (size_t j = 0; j < s.k_values.size(); j += 40) s.k_values[j] = j / 40 % 300 < 150 ? first / s.p.scale : 0.0f;
      s.store();
      check_climbing(s, first, limits(type));
    }
  }
}

ATTENTION_TEST("attention of any scale") {
  for (DType type : kTypes) {
    for (float scale : {-0.2f, 1.0f, 1e-3f}) {
      check_case({1, 2, 40, 50, 40, 40, type, Layout::bhnd, Bias::none, false, scale});
      check_case({1, 2, 40, 50, 40, 40, type, Layout::bhnd, Bias::single, false, scale});
    }
  }
  // Scores in the hundreds: the maximum has to be taken out before exponentials. A float32 score of 500 is off by 3e-5, and so are the
  // probabilities; the gradients of such rows are all but zero.
  check_case({1, 2, 70, 300, 40, 40, DType::f32, Layout::bhnd, Bias::none, false, 1.0f, 30.0f}, {1e-5, 1e-6, 0.0}, false);
}

ATTENTION_TEST("attention passes on what is not finite") {
  struct Poison {
    const char* name;
    std::function<void(Setup&)> apply;
  };
  const std::vector<Poison> poisons = {
      {"NaN in q", [](Setup& s) { s.q_values[5 * 40 + 3] = kNaN; }},
      {"NaN in k", [](Setup& s) { s.k_values[7 * 40 + 1] = kNaN; }},
      {"NaN in a late k", [](Setup& s) { s.k_values[207 * 40 + 1] = kNaN; }},
      {"NaN in v", [](Setup& s) { s.v_values[7 * 40 + 1] = kNaN; }},
      {"inf in q", [](Setup& s) { s.q_values[5 * 40 + 3] = kInfinity; }},
      {"inf in k", [](Setup& s) { s.k_values[200 * 40 + 1] = kInfinity; }},
      {"-inf in v", [](Setup& s) { s.v_values[3 * 40 + 39] = -kInfinity; }},
      {"inf in the bias", [](Setup& s) { s.bias[5] = kInfinity; }},
      {"NaN in the bias", [](Setup& s) { s.bias[static_cast<size_t>(s.c.keys) + 130] = kNaN; }},
  };
  for (DType type : kTypes) {
    for (const Poison& poison : poisons) {
      for (Bias bias : {Bias::none, Bias::single}) {
        if (bias == Bias::none && std::strstr(poison.name, "bias")) continue;
        Case c = {1, 1, 19, 231, 40, 40, type, Layout::bhnd, bias};
        Setup s(c);
        poison.apply(s);
        s.store();
        const Truth truth = reference(s, false);
        forward(s.p, 2);
        expect_near(s.out.get(), truth.out, limits(type).out, describe(c) + " " + poison.name);
        backward(s.p, s.g, 2);
        bool spread = false;
        for (float x : s.dv.get()) spread |= !std::isfinite(x);
        for (float x : s.dq.get()) spread |= !std::isfinite(x);
        expect(spread, describe(c) + " " + poison.name + " reaches the gradients");
      }
    }
  }
}

ATTENTION_TEST("attention computes the gradients that are asked for") {
  const Case c = {2, 2, 70, 140, 40, 40};
  Setup all(c);
  forward(all.p, 2);
  backward(all.p, all.g, 2);
  for (int asked = 1; asked < 8; ++asked) {
    Setup some(c);
    forward(some.p, 2);
    if (!(asked & 1)) some.g.dq = nullptr;
    if (!(asked & 2)) some.g.dk = nullptr;
    if (!(asked & 4)) some.g.dv = nullptr;
    backward(some.p, some.g, 2);
    const std::string what = describe(c) + " gradients asked for: " + std::to_string(asked);
    if (asked & 1) expect(some.dq.raw() == all.dq.raw(), what + " dq");
    if (asked & 2) expect(some.dk.raw() == all.dk.raw(), what + " dk");
    if (asked & 4) expect(some.dv.raw() == all.dv.raw(), what + " dv");
  }
  Setup no_lse(c);
  no_lse.p.lse = nullptr;
  forward(no_lse.p, 2);
  expect(no_lse.out.raw() == all.out.raw(), describe(c) + " without lse");
}

ATTENTION_TEST("attention without queries") {
  Case c = {1, 1, 0, 5, 8, 8};
  Setup s(c);
  forward(s.p, 2);
  backward(s.p, s.g, 2);
  for (float x : s.dk.get()) expect(x == 0.0f, "dk without queries is zero");
  for (float x : s.dv.get()) expect(x == 0.0f, "dv without queries is zero");
}

TEST_CASE("attention refuses what makes no sense") {
  const auto message = [](const std::function<void(Setup&)>& break_it, bool is_backward = false) {
    Setup s({1, 1, 4, 4, 8, 8});
    break_it(s);
    return check::failure([&] { is_backward ? backward(s.p, s.g, 1) : forward(s.p, 1); });
  };
  CHECK(message([](Setup& s) { s.p.keys = 0; }) == "keys must be at least 1, got 0");
  CHECK(message([](Setup& s) { s.p.head_size = 0; }) == "head_size must be at least 1, got 0");
  CHECK(message([](Setup& s) { s.p.value_size = -1; }) == "value_size must be at least 1, got -1");
  CHECK(message([](Setup& s) { s.p.batch = -1; }) == "batch must be at least 0, got -1");
  CHECK(message([](Setup& s) { s.p.k = nullptr; }) == "q, k, v and out must not be null");
  CHECK(message([](Setup& s) { s.p.scale = kNaN; }) == "scale must be finite, got nan");
  CHECK(message([](Setup& s) { s.p.type = DType::i32; }) == "type must be a float, got int32");
  CHECK(message([](Setup& s) { s.g.dy = nullptr; }, true) == "dy must not be null");
  CHECK(message([](Setup& s) { s.p.lse = nullptr; }, true) == "the backward pass needs the lse of the forward pass");
}

ATTENTION_TEST("scratch memory of attention does not grow with the tokens") {
  Setup small({1, 1, 8192, 1, 40, 40}), large({1, 1, 8192, 1, 40, 40});
  small.p.keys = 256;
  large.p.keys = large.p.queries = 1 << 20;
  expect(forward_scratch(large.p) == forward_scratch(small.p), "forward scratch does not grow with N");
}

}  // namespace

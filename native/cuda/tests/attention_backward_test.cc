// Gradients of attention against float64 of the same rounded inputs.
#include <doctest/doctest.h>

#include <cstdio>

#include "attention_reference.h"
#include "cuda/kernels/attention_backward_float32.cuh"
#include "schedules.h"

using namespace td::cuda;
using namespace td::cuda::test;

namespace {

/// Inputs, saved outputs and gradients; the reference in float64.
template <class T>
struct GradientRun {
  AttentionCase c;
  AttentionTensors<T> t;
  DeviceArray<Number<T>> out, dy, dq, dk, dv;
  DeviceArray<float> lse, delta;
  std::vector<double> want_q, want_k, want_v;

  explicit GradientRun(const AttentionCase& given)
      : c(given), t(given), out(c.out_numbers()), dy(random_numbers<T>(c.out_numbers(), 7)),
        dq(c.layout == AttentionLayout::packed ? 3 * c.query_numbers() : c.query_numbers()), dk(c.key_numbers()), dv(c.value_numbers()),
        lse(size_t(c.batch) * c.heads * c.queries), delta(lse.size()) {
    differentiate();
  }
  void differentiate() {
    want_q.assign(c.query_numbers(), 0.), want_k.assign(c.key_numbers(), 0.), want_v.assign(c.value_numbers(), 0.);
    const AttentionStrides s = c.strides(c.queries, c.value_size, true);
    std::vector<double> w(c.keys), dp(c.keys), o(c.value_size);
    for (int b = 0; b < c.batch; ++b) {
      for (int h = 0; h < c.heads; ++h) {
        const int64_t bh = int64_t(b) * c.heads + h;
        for (int i = 0; i < c.queries; ++i) {
          const double l = t.logits(b, h, i, w);
          lse[bh * c.queries + i] = l;
          double mean = 0;
          std::fill(o.begin(), o.end(), 0.);
          for (int j = 0; j < c.keys; ++j) {
            w[j] = l > -INFINITY ? std::exp(w[j] - l) : 0;
            dp[j] = 0;
            for (int x = 0; x < c.value_size; ++x) {
              const double v = t.number(2, c.keys, c.value_size, b, h, j, x), d = read<T>(dy[b * s.batch + h * s.head + i * s.token + x]);
              o[x] += w[j] * v;
              dp[j] += d * v;
              want_v[(bh * c.keys + j) * c.value_size + x] += w[j] * d;
            }
            mean += w[j] * dp[j];
          }
          for (int x = 0; x < c.value_size; ++x) out[b * s.batch + h * s.head + i * s.token + x] = rounded<T>(o[x]);
          for (int j = 0; j < c.keys; ++j) {
            const double ds = w[j] * (dp[j] - mean) * c.scale();
            for (int x = 0; x < c.head_size; ++x) {
              want_q[(bh * c.queries + i) * c.head_size + x] += ds * t.number(1, c.keys, c.head_size, b, h, j, x);
              want_k[(bh * c.keys + j) * c.head_size + x] += ds * t.number(0, c.queries, c.head_size, b, h, i, x);
            }
          }
        }
      }
    }
  }
  Number<T>* result(int which) {
    if (c.layout == AttentionLayout::packed) return dq.data() + which * c.heads * c.head_size;
    return which == 0 ? dq.data() : which == 1 ? dk.data() : dv.data();
  }
  AttentionGradientArguments arguments() {
    AttentionGradientArguments g{};
    g.forward = t.arguments(out.data(), lse.data());
    g.dy = {dy.data(), g.forward.out.strides, AttentionTensors<T>::aligned(dy.data(), g.forward.out.strides)};
    g.delta = delta.data();
    const auto to = [&](int which, int tokens, int size) {
      const AttentionStrides s = c.strides(tokens, size);
      return AttentionResult{result(which), s, AttentionTensors<T>::aligned(result(which), s)};
    };
    g.dq = to(0, c.queries, c.head_size), g.dk = to(1, c.keys, c.head_size), g.dv = to(2, c.keys, c.value_size);
    return g;
  }
  Error<T> error(int which, const std::vector<double>& want, int tokens, int size) {
    Error<T> e;
    const AttentionStrides s = c.strides(tokens, size);
    size_t i = 0;
    for (int b = 0; b < c.batch; ++b) {
      for (int h = 0; h < c.heads; ++h) {
        for (int n = 0; n < tokens; ++n) {
          for (int x = 0; x < size; ++x) e.add(result(which)[b * s.batch + h * s.head + n * s.token + x], want[i++]);
        }
      }
    }
    return e;
  }
};

template <class T, int D, int Lines, bool ForKeys, bool Bias>
void launch_tensor(const AttentionGradientArguments& g, int batch) {
  using F = AttentionBackward<T, D, 4, Lines, 2, ForKeys, Bias>;
  const int rows = ForKeys ? g.forward.keys : g.forward.queries;
  emulator::run_grid(attention_backward_kernel<F>, {dim3((rows + F::kRows - 1) / F::kRows * batch * g.forward.heads), dim3(F::kThreads), size_t(F::kShared), false}, g);
}
template <class T, int D, int Lines>
void launch_both(const AttentionGradientArguments& g, int batch) {
  if (g.forward.bias.data) launch_tensor<T, D, Lines, false, true>(g, batch), launch_tensor<T, D, Lines, true, true>(g, batch);
  else launch_tensor<T, D, Lines, false, false>(g, batch), launch_tensor<T, D, Lines, true, false>(g, batch);
}
template <class T, bool ForKeys>
void launch_float(const AttentionGradientArguments& g, int batch) {
  using F = AttentionFloatBackward<T, 128, ForKeys>;
  const int rows = ForKeys ? g.forward.keys : g.forward.queries, channels = std::max(g.forward.head_size, g.forward.value_size);
  emulator::run_grid(attention_float_backward_kernel<T, 128, ForKeys>,
                     {dim3((rows + 63) / 64 * batch * g.forward.heads, (channels + 127) / 128), dim3(256), size_t(F::kShared), false}, g);
}

template <class T>
void run_gradients(GradientRun<T>& run) {
  const AttentionGradientArguments g = run.arguments();
  const int batch = run.c.batch, size = std::max(run.c.head_size, run.c.value_size);
  emulator::run_grid(attention_delta_kernel<T>, {dim3((run.c.queries + 3) / 4 * batch * run.c.heads), dim3(128), 0, false}, g, run.delta.data());
  if constexpr (sizeof(Number<T>) == 2) {
    if (size <= 40) return launch_both<T, 40, 32>(g, batch);
    if (size <= 64) return launch_both<T, 64, 32>(g, batch);
    if (size <= 80) return launch_both<T, 80, 32>(g, batch);
    if (size <= 96) return launch_both<T, 96, 32>(g, batch);
    if (size <= 128) return launch_both<T, 128, 16>(g, batch);
    if (size <= 160) return launch_both<T, 160, 16>(g, batch);
  }
  launch_float<T, false>(g, batch);
  launch_float<T, true>(g, batch);
}

template <class T>
void compare(const AttentionCase& c) {
  GradientRun<T> run(c);
  run_gradients(run);
  const Error<T> q = run.error(0, run.want_q, c.queries, c.head_size), k = run.error(1, run.want_k, c.keys, c.head_size),
                 v = run.error(2, run.want_v, c.keys, c.value_size);
  std::printf("  %-34s dq %.2e (%.2f) dk %.2e (%.2f) dv %.2e (%.2f of rounding)\n", c.text().c_str(), q.relative(), q.times(), k.relative(), k.times(),
              v.relative(), v.times());
  CAPTURE(c.text());
  for (const Error<T>& e : {q, k, v}) {
    // dS is rounded before the last product, and so is the output that delta is made of
    if (sizeof(Number<T>) == 2) CHECK(e.times() < 2.5);
    else CHECK(e.relative() < 2e-6);
  }
}

const AttentionCase kCases[] = {
    {1, 2, 77, 77, 40, 40},
    {2, 2, 70, 77, 40, 40, AttentionLayout::tokens},
    {1, 2, 1, 3, 40, 40},
    {1, 2, 65, 65, 64, 64, AttentionLayout::packed},
    {1, 1, 70, 50, 80, 80},
    {1, 1, 40, 77, 96, 96},
    {1, 1, 70, 40, 128, 128},
    {1, 2, 64, 20, 160, 160, AttentionLayout::tokens},
    {1, 1, 20, 30, 200, 200},
    {1, 2, 33, 50, 5, 7, AttentionLayout::tokens},
    {1, 2, 50, 77, 40, 40, AttentionLayout::heads, true},
    {2, 1, 77, 30, 64, 64, AttentionLayout::tokens, true},
    {1, 1, 77, 77, 64, 64, AttentionLayout::packed, false, true},
    {1, 1, 70, 100, 40, 40, AttentionLayout::heads, true, true},
};

}  // namespace

TEST_CASE_TEMPLATE("gradients of attention", T, half16, bfloat16, float) {
  for (const AttentionCase& c : kCases) compare<T>(c);
}

TEST_CASE("gradients of attention do not depend on the schedule") {
  for (int i : {1, 3, 6, 10, 13}) {
    GradientRun<half16> run(kCases[i]);
    std::vector<uint16_t> first[3];
    for_each_schedule([&] {
      run_gradients(run);
      const std::vector<uint16_t> now[3] = {run.dq.values(), run.dk.values(), run.dv.values()};
      for (int j = 0; j < 3; ++j) {
        if (first[j].empty()) first[j] = now[j];
        CHECK(now[j] == first[j]);
      }
    });
  }
}

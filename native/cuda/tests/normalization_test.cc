// Normalisation, softmax and timestep embedding against float64 of the same rounded inputs.
#include <doctest/doctest.h>

#include <cstdio>

#include "cuda/kernels/normalization.cuh"
#include "product_run.h"
#include "schedules.h"

using namespace td::cuda;
using namespace td::cuda::test;

namespace {

struct GroupCase {
  int batch, pixels, channels, groups, pieces;
  bool silu;
  float mean = 0;
};
const GroupCase kGroups[] = {{2, 37, 40, 4, 3, true}, {1, 64, 320, 32, 1, true}, {2, 5, 12, 3, 7, false, 100.f}, {1, 1, 6, 2, 1, true}, {1, 50, 2100, 7, 2, false}};

template <class T>
struct GroupRun {
  const GroupCase& c;
  DeviceArray<Number<T>> x, y;
  DeviceArray<float> gamma, moments, affine;
  DeviceArray<Number<T>> beta;

  explicit GroupRun(const GroupCase& given)
      : c(given), x(size_t(c.batch) * c.pixels * c.channels), y(x.size()), gamma(random_numbers<float>(c.channels, 2)),
        moments(size_t(c.batch) * c.pieces * c.channels * 2), affine(size_t(c.batch) * c.channels * 2), beta(random_numbers<T>(c.channels, 3)) {
    const auto numbers = random_numbers<T>(x.size(), 1);
    for (size_t i = 0; i < x.size(); ++i) x[i] = rounded<T>(read<T>(numbers[i]) + c.mean * (1 + i % c.channels % 3));
  }
  GroupNormArguments arguments() {
    return {x.data(), y.data(), {gamma.data(), true}, {beta.data(), sizeof(Number<T>) == 4}, c.batch, c.pixels, c.channels, c.groups, 1e-5f, c.silu,
            vectors_fit<T>(x.data(), c.channels) && vectors_fit<T>(y.data(), c.channels), moments.data(), affine.data(), c.pieces};
  }
  void in_three() {
    const GroupNormArguments p = arguments();
    constexpr int V = kVector<T>;
    const int vectors = (c.channels + V - 1) / V;
    emulator::run_grid(group_moments_kernel<T>, {dim3(c.batch * c.pieces, (vectors + 255) / 256), dim3(256), 0, true}, p);
    emulator::run_grid(group_affine_kernel<T>, {dim3(c.batch * c.groups), dim3(128), 0, false}, p);
    emulator::run_grid(group_apply_kernel<T>, {dim3((c.batch * c.pixels * vectors + 255) / 256), dim3(256), 0, true}, p);
  }
  void in_one() {
    const size_t shared = size_t(c.pixels) * (c.channels / c.groups) * 4;
    emulator::run_grid(group_norm_kernel<T>, {dim3(c.batch * c.groups), dim3(256), shared, false}, arguments());
  }
  Error<T> error() {
    Error<T> e;
    const int width = c.channels / c.groups;
    for (int n = 0; n < c.batch; ++n) {
      for (int g = 0; g < c.groups; ++g) {
        const auto at = [&](int i) { return (size_t(n) * c.pixels + i / width) * c.channels + g * width + i % width; };
        const int count = c.pixels * width;
        double mean = 0, variance = 0;
        for (int i = 0; i < count; ++i) mean += read<T>(x[at(i)]) / count;
        for (int i = 0; i < count; ++i) variance += (read<T>(x[at(i)]) - mean) * (read<T>(x[at(i)]) - mean) / count;
        for (int i = 0; i < count; ++i) {
          const int channel = g * width + i % width;
          const double v = (read<T>(x[at(i)]) - mean) / std::sqrt(variance + 1e-5f) * gamma[channel] + read<T>(beta[channel]);
          e.add(y[at(i)], activated(c.silu ? Activation::silu : Activation::linear, v));
        }
      }
    }
    return e;
  }
};

template <class T>
struct RowsRun {
  int rows, columns;
  DeviceArray<Number<T>> x, y;
  DeviceArray<float> gamma, beta;

  RowsRun(int r, int c, float spread)
      : rows(r), columns(c), x(random_numbers<T>(size_t(r) * c, 1, spread)), y(x.size()), gamma(random_numbers<float>(c, 2)), beta(random_numbers<float>(c, 3)) {}
  template <class K>
  void run(K kernel) {
    const RowsArguments p{x.data(), y.data(), {gamma.data(), true}, {beta.data(), true}, rows, columns, 1e-5f,
                          vectors_fit<T>(x.data(), columns) && vectors_fit<T>(y.data(), columns)};
    emulator::run_grid(kernel, {dim3((rows + 3) / 4), dim3(128), 0, false}, p);
  }
  template <class F>
  Error<T> error(const F& want_row) {
    Error<T> e;
    std::vector<double> v(columns);
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < columns; ++c) v[c] = read<T>(x[size_t(r) * columns + c]);
      want_row(v);
      for (int c = 0; c < columns; ++c) e.add(y[size_t(r) * columns + c], v[c]);
    }
    return e;
  }
};

void softmax(std::vector<double>& v, bool logarithm) {
  double top = -INFINITY, sum = 0;
  for (double x : v) top = std::max(top, x);
  for (double x : v) sum += std::exp(x - top);
  for (double& x : v) x = logarithm ? x - top - std::log(sum) : std::exp(x - top) / sum;
}

}  // namespace

TEST_CASE_TEMPLATE("group normalisation", T, half16, bfloat16, float) {
  for (const GroupCase& c : kGroups) {
    GroupRun<T> run(c);
    CAPTURE(c.channels);
    run.in_three();
    const Error<T> three = run.error();
    check_error<T>(three);
    run.in_one();
    const Error<T> one = run.error();
    check_error<T>(one);
    std::printf("  %dx%dx%d, %d groups: error %.2e in three, %.2e in one\n", c.batch, c.pixels, c.channels, c.groups, three.relative(), one.relative());
  }
}

TEST_CASE("group normalisation spreads what is not finite within its group") {
  const GroupCase c{1, 8, 8, 2, 2, false};
  GroupRun<float> run(c);
  run.x[0] = INFINITY;
  for (int way : {0, 1}) {
    way ? run.in_one() : run.in_three();
    for (int i = 0; i < 64; ++i) CHECK(std::isfinite(run.y[i]) == (i % 8 >= 4));
  }
}

TEST_CASE_TEMPLATE("layer normalisation and softmax", T, half16, bfloat16, float) {
  for (int columns : {1, 7, 40, 77, 320, 600}) {
    RowsRun<T> run(5, columns, 3.f);
    CAPTURE(columns);
    run.run(layer_norm_kernel<T>);
    const Error<T> e = run.error([&](std::vector<double>& v) {
      double mean = 0, variance = 0;
      for (double x : v) mean += x / columns;
      for (double x : v) variance += (x - mean) * (x - mean) / columns;
      for (int i = 0; i < columns; ++i) v[i] = (v[i] - mean) / std::sqrt(variance + 1e-5f) * run.gamma[i] + run.beta[i];
    });
    check_error<T>(e);
    run.run(rms_norm_kernel<T>);
    check_error<T>(run.error([&](std::vector<double>& v) {
      double square = 0;
      for (double x : v) square += x * x / columns;
      for (int i = 0; i < columns; ++i) v[i] = v[i] / std::sqrt(square + 1e-5f) * run.gamma[i];
    }));
    run.run(softmax_kernel<T, false>);
    check_error<T>(run.error([](std::vector<double>& v) { softmax(v, false); }));
    run.run(softmax_kernel<T, true>);
    check_error<T>(run.error([](std::vector<double>& v) { softmax(v, true); }));
  }
}

TEST_CASE("timestep embedding") {
  for (int dim : {1, 2, 9, 320}) {
    for (bool flip : {false, true}) {
      DeviceArray<float> t(std::vector<float>{0.f, 1.5f, 981.f}), y(3 * size_t(dim));
      const TimestepArguments p{t.data(), y.data(), 3, dim, std::log(10000.), 0., 1.f, flip};
      emulator::run_grid(timestep_embedding_kernel, {dim3((3 * dim + 255) / 256), dim3(256), 0, true}, p);
      const int half = dim / 2;
      for (int i = 0; i < 3 * dim; ++i) {
        const int c = i % dim;
        const double angle = t[i / dim] * std::exp(-std::log(10000.) * (half ? c % half : 0) / half);
        const double want = c >= 2 * half ? 0 : (c < half) == flip ? std::cos(angle) : std::sin(angle);
        CHECK(y[i] == doctest::Approx(want).epsilon(1e-4).scale(1));
      }
    }
  }
}

TEST_CASE("normalisation does not depend on the schedule") {
  GroupRun<half16> group(kGroups[0]);
  RowsRun<half16> rows(5, 77, 1.f);
  std::vector<uint16_t> first[3];
  for_each_schedule([&] {
    group.in_three();
    std::vector<uint16_t> now[3] = {group.y.values(), {}, {}};
    group.in_one();
    now[1] = group.y.values();
    rows.run(layer_norm_kernel<half16>);
    now[2] = rows.y.values();
    for (int i = 0; i < 3; ++i) {
      if (first[i].empty()) first[i] = now[i];
      CHECK(now[i] == first[i]);
    }
  });
}

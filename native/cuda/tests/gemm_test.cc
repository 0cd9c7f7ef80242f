// Matrix products against float64 of the same rounded inputs: either operand transposed, batches, odd sizes, epilogues, shared sums.
#include <doctest/doctest.h>

#include <cstdio>

#include "product_run.h"
#include "schedules.h"

using namespace td::cuda;
using namespace td::cuda::test;

namespace {

struct GemmCase {
  int rows, columns, depth;  // columns of the result
  Activation activation = Activation::linear;
  bool bias = false, residual = false;
  int batch = 1, splits = 1;
  bool parts = false;
};

template <class T, bool TA, bool TB>
struct GemmRun {
  const GemmCase& c;
  int wide;
  DeviceArray<Number<T>> a, b, residual, out;
  DeviceArray<float> bias;

  explicit GemmRun(const GemmCase& given)
      : c(given), wide(c.activation == Activation::geglu ? 2 * c.columns : c.columns), a(random_numbers<T>(size_t(c.batch) * c.rows * c.depth, 1)),
        b(random_numbers<T>(size_t(c.batch) * wide * c.depth, 2, 1 / std::sqrt(float(c.depth)))),
        residual(random_numbers<T>(size_t(c.batch) * c.rows * c.columns, 3)), out(size_t(c.batch) * c.rows * c.columns),
        bias(random_numbers<float>(size_t(c.batch) * wide, 4)) {}

  GemmArguments arguments() {
    GemmArguments p{};
    const int64_t a_stride = TA ? c.rows : c.depth, b_stride = TB ? c.depth : wide, out_stride = c.parts ? c.batch * c.columns : c.columns;
    p.a = {a.data(), a_stride, c.parts ? 0 : int64_t(c.rows) * c.depth, vectors_fit<T>(a.data(), a_stride) && c.rows * c.depth % 8 == 0};
    const bool halves = c.activation != Activation::geglu || c.columns % 8 == 0;
    p.b = {b.data(), b_stride, c.parts ? 0 : int64_t(wide) * c.depth, vectors_fit<T>(b.data(), b_stride) && halves && wide * c.depth % 8 == 0};
    p.rows = c.rows, p.depth = c.depth;
    p.out_batch = c.parts ? c.columns : int64_t(c.rows) * c.columns;
    p.epilogue = {out.data(), c.residual ? residual.data() : nullptr, {c.bias ? bias.data() : nullptr, true}, {nullptr, false}, out_stride,
                  c.columns, 1, c.activation, vectors_fit<T>(out.data(), out_stride) && vectors_fit<T>(residual.data(), 0) && p.out_batch % 8 == 0};
    p.parts = c.parts;
    for (int i = 0; i < 3 && c.parts; ++i) {
      p.b_parts[i] = b.data() + i * int64_t(wide) * c.depth;
      p.bias_parts[i] = {c.bias ? bias.data() + i * wide : nullptr, true};
    }
    return p;
  }
  template <class Tile, class Problem>
  std::vector<Number<T>> run() {
    run_product<T, Problem, Tile>(arguments(), c.rows, wide, c.batch, c.splits);
    return out.values();
  }
  double sum(int batch, int i, int column) const {
    auto* self = const_cast<GemmRun*>(this);
    double s = c.bias ? self->bias[c.parts ? batch * wide + column : column] : 0;
    const Number<T>*x = self->a.data() + (c.parts ? 0 : int64_t(batch) * c.rows * c.depth), *y = self->b.data() + int64_t(batch) * wide * c.depth;
    for (int k = 0; k < c.depth; ++k) {
      s += read<T>(x[TA ? int64_t(k) * c.rows + i : int64_t(i) * c.depth + k]) * read<T>(y[TB ? int64_t(column) * c.depth + k : int64_t(k) * wide + column]);
    }
    return s;
  }
  Error<T> error() {
    Error<T> e;
    const GemmArguments p = arguments();
    for (int n = 0; n < c.batch; ++n) {
      for (int i = 0; i < c.rows; ++i) {
        for (int j = 0; j < c.columns; ++j) {
          const int64_t at = n * p.out_batch + i * p.epilogue.stride + j;
          const double gate = c.activation == Activation::geglu ? sum(n, i, c.columns + j) : 0;
          e.add(out[at], activated(c.activation, sum(n, i, j), gate) + (c.residual ? read<T>(residual[at]) : 0.));
        }
      }
    }
    return e;
  }
};

template <class T, bool TA, bool TB>
void compare(const GemmCase& c) {
  GemmRun<T, TA, TB> run(c);
  CAPTURE(c.rows);
  CAPTURE(c.columns);
  CAPTURE(c.depth);
  CAPTURE(TA);
  CAPTURE(TB);
  const auto check = [&](const char* tile) {
    CAPTURE(tile);
    const Error<T> e = run.error();
    if (!TA && !TB) std::printf("  %4d x %4d x %4d %-14s error %.2e, %.2f of rounding\n", c.rows, c.columns, c.depth, tile, e.relative(), e.times());
    check_error<T>(e);
  };
  if constexpr (sizeof(Number<T>) == 2) {
    using P = Gemm<T, TA, TB, 32>;
    run.template run<Product<T, P, 128, 128, 64, 3, false>, P>(), check("128 x 128");
    run.template run<Product<T, P, 64, 64, 32, 4, false>, P>(), check("64 x 64");
  } else {
    run.template run<FloatProduct<Gemm<T, TA, TB, 128>, 128>, Gemm<T, TA, TB, 128>>(), check("128 x 128");
    run.template run<FloatProduct<Gemm<T, TA, TB, 64>, 64>, Gemm<T, TA, TB, 64>>(), check("64 x 64");
  }
}

const GemmCase kCases[] = {
    {130, 144, 72, Activation::gelu, true, true},
    {77, 40, 200, Activation::geglu, true, true},
    {5, 13, 35, Activation::silu, true, false},
    {33, 21, 9, Activation::geglu, true, true},
    {70, 48, 200, Activation::geglu, true, true, 1, 3},
    {70, 50, 130, Activation::quick_gelu, false, true, 2, 2},
    {40, 64, 64, Activation::linear, true, false, 3},
    {65, 24, 40, Activation::linear, true, false, 3, 1, true},
    {1, 1, 1, Activation::linear, false, false},
    {3, 8, 640, Activation::linear, true, false, 1, 20},
};

}  // namespace

TEST_CASE_TEMPLATE("products of matrices", T, half16, bfloat16, float) {
  for (const GemmCase& c : kCases) {
    compare<T, false, false>(c);
    compare<T, false, true>(c);
    if (c.parts) continue;
    compare<T, true, false>(c);
    compare<T, true, true>(c);
  }
}

TEST_CASE("aligned products copy asynchronously throughout") {
  const GemmCase c{128, 64, 96, Activation::linear, true, true};
  using P = Gemm<half16, false, false, 32>;
  GemmRun<half16, false, false> run(c);
  REQUIRE(run.arguments().a.aligned);
  REQUIRE(run.arguments().b.aligned);
  const auto checked = run.run<Product<half16, P, 64, 64, 32, 4, false>, P>();
  CHECK(run.run<Product<half16, P, 64, 64, 32, 4, true>, P>() == checked);
  CHECK(run.run<Product<half16, P, 128, 128, 64, 3, true>, P>() == checked);
  CHECK(run.error().times() < 1.5);
}

TEST_CASE("products do not depend on the schedule") {
  for (const GemmCase& c : {kCases[0], kCases[1], kCases[4], kCases[7]}) {
    GemmRun<half16, false, false> run(c);
    GemmRun<half16, true, true> transposed(c);
    GemmRun<float, false, true> wide(c);
    std::vector<uint16_t> first[2];
    std::vector<float> floats;
    for_each_schedule([&] {
      using P = Gemm<half16, false, false, 32>;
      using Q = Gemm<half16, true, true, 32>;
      using R = Gemm<float, false, true, 64>;
      const auto a = run.run<Product<half16, P, 128, 128, 64, 3, false>, P>();
      const auto b = transposed.run<Product<half16, Q, 64, 64, 32, 4, false>, Q>();
      const auto f = wide.run<FloatProduct<R, 64>, R>();
      if (first[0].empty()) first[0] = a, first[1] = b, floats = f;
      CHECK(a == first[0]);
      CHECK(b == first[1]);
      CHECK(f == floats);
    });
  }
}

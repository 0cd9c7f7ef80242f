// Convolutions and their gradients against float64 of the same rounded inputs: strides, dilations, uneven padding, few channels, epilogues.
#include <doctest/doctest.h>

#include <cstdio>

#include "product_run.h"
#include "schedules.h"

using namespace td::cuda;
using namespace td::cuda::test;

namespace {

struct ConvolutionCase {
  ConvolutionShape s;
  bool extras = false;  // bias, residual, time embedding and SiLU
  int splits = 1;

  ConvolutionCase(int batch, int height, int width, int in, int out, int filter, int stride = 1, bool with_extras = false, int shared = 1,
                  int top = -1, int bottom = -1, int dilation = 1, int enlarge = 0)
      : extras(with_extras), splits(shared) {
    const int pad = top < 0 ? filter / 2 : top, end = bottom < 0 ? pad : bottom, span = (filter - 1) * dilation + 1;
    height <<= enlarge, width <<= enlarge;
    s = {batch, height, width, in, (height + pad + end - span) / stride + 1, (width + pad + end - span) / stride + 1, out, filter, filter,
         stride, stride, dilation, dilation, pad, pad, enlarge};
  }
  int64_t image() const { return int64_t(s.batch) * (s.height >> s.enlarge) * (s.width >> s.enlarge) * s.in; }
  int64_t filter() const { return int64_t(s.filter_height) * s.filter_width * s.in * s.out; }
  int64_t pixels() const { return int64_t(s.batch) * s.out_height * s.out_width; }

  /// Calls f(input, filter, output) with the places of every pair that a convolution multiplies.
  template <class F>
  void each(const F& f) const {
    for (int64_t pixel = 0; pixel < pixels(); ++pixel) {
      const int x0 = pixel % s.out_width, y0 = pixel / s.out_width % s.out_height, n = pixel / s.out_width / s.out_height;
      for (int i = 0; i < s.filter_height; ++i) {
        for (int j = 0; j < s.filter_width; ++j) {
          const int y = y0 * s.stride_h - s.top + i * s.dilation_h, x = x0 * s.stride_w - s.left + j * s.dilation_w;
          if (y < 0 || y >= s.height || x < 0 || x >= s.width) continue;
          const int64_t in = ((int64_t(n) * (s.height >> s.enlarge) + (y >> s.enlarge)) * (s.width >> s.enlarge) + (x >> s.enlarge)) * s.in;
          for (int c = 0; c < s.in; ++c) {
            for (int o = 0; o < s.out; ++o) f(in + c, ((int64_t(i) * s.filter_width + j) * s.in + c) * s.out + o, pixel * s.out + o);
          }
        }
      }
    }
  }
};

enum class Pass { forward, input_gradient, filter_gradient };

template <class T>
struct ConvolutionRun {
  const ConvolutionCase& c;
  DeviceArray<Number<T>> image, filter, dy, residual, dx, dw, y;
  DeviceArray<Number<T>> embedding;
  DeviceArray<float> bias;

  explicit ConvolutionRun(const ConvolutionCase& given)
      : c(given), image(random_numbers<T>(c.image(), 1)), filter(random_numbers<T>(c.filter(), 2, 1 / std::sqrt(float(c.filter() / c.s.out)))),
        dy(random_numbers<T>(c.pixels() * c.s.out, 3)), residual(random_numbers<T>(c.pixels() * c.s.out, 4)), dx(c.image()), dw(c.filter()),
        y(c.pixels() * c.s.out), embedding(random_numbers<T>(size_t(c.s.batch) * c.s.out, 5)), bias(random_numbers<float>(c.s.out, 6)) {}

  ConvolutionArguments arguments(Pass pass) {
    const ConvolutionShape& s = c.s;
    ConvolutionArguments p{};
    p.shape = s;
    const bool backward = pass == Pass::input_gradient;
    p.image = backward ? dy.data() : image.data();
    p.image_aligned = vectors_fit<T>(p.image, backward ? s.out : s.in);
    p.filter = pass == Pass::filter_gradient ? dy.data() : filter.data();
    p.filter_aligned = vectors_fit<T>(p.filter, s.out);
    Number<T>* out = pass == Pass::forward ? y.data() : backward ? dx.data() : dw.data();
    const int columns = backward ? s.in : s.out;
    p.epilogue = {out, nullptr, {nullptr, true}, {nullptr, false}, columns, columns, s.out_height * s.out_width, Activation::linear,
                  vectors_fit<T>(out, columns) && vectors_fit<T>(residual.data(), columns)};
    if (c.extras && pass == Pass::forward) {
      p.epilogue.bias.data = bias.data();
      p.epilogue.embedding.data = embedding.data();
      p.epilogue.residual = residual.data();
      p.epilogue.activation = Activation::silu;
    }
    return p;
  }
  template <template <class> class Problem>
  void run(Pass pass, bool large) {
    const ConvolutionShape& s = c.s;
    constexpr int vector = 16 / sizeof(Number<T>);
    const int rows = pass == Pass::forward          ? c.pixels()
                     : pass == Pass::input_gradient ? s.batch * s.height * s.width
                                                    : s.filter_height * s.filter_width * ((s.in + vector - 1) / vector * vector);
    const int columns = pass == Pass::input_gradient ? s.in : s.out;
    using P = Problem<T>;
    if constexpr (sizeof(Number<T>) == 2) {
      if (large) run_product<T, P, Product<T, P, 128, 128, 64, 3, false>>(arguments(pass), rows, columns, 1, c.splits);
      else run_product<T, P, Product<T, P, 64, 64, 32, 4, false>>(arguments(pass), rows, columns, 1, c.splits);
    } else {
      if (large) run_product<T, P, FloatProduct<P, 128>>(arguments(pass), rows, columns, 1, c.splits);
      else run_product<T, P, FloatProduct<P, 64>>(arguments(pass), rows, columns, 1, c.splits);
    }
  }
  static Error<T> compare(DeviceArray<Number<T>>& got, const std::vector<double>& want) {
    Error<T> e;
    for (size_t i = 0; i < want.size(); ++i) e.add(got[i], want[i]);
    return e;
  }
  Error<T> forward_error() {
    std::vector<double> want(y.size(), 0.);
    c.each([&](int64_t i, int64_t f, int64_t o) { want[o] += read<T>(image[i]) * read<T>(filter[f]); });
    for (size_t i = 0; i < want.size() && c.extras; ++i) {
      const int o = i % c.s.out, n = i / c.s.out / (c.s.out_height * c.s.out_width);
      want[i] = activated(Activation::silu, want[i] + bias[o] + read<T>(embedding[n * c.s.out + o])) + read<T>(residual[i]);
    }
    return compare(y, want);
  }
  Error<T> input_error() {
    std::vector<double> want(dx.size(), 0.);
    c.each([&](int64_t i, int64_t f, int64_t o) { want[i] += read<T>(dy[o]) * read<T>(filter[f]); });
    return compare(dx, want);
  }
  Error<T> filter_error() {
    std::vector<double> want(dw.size(), 0.);
    c.each([&](int64_t i, int64_t f, int64_t o) { want[f] += read<T>(dy[o]) * read<T>(image[i]); });
    return compare(dw, want);
  }
};

const ConvolutionCase kCases[] = {
    {2, 8, 8, 64, 96, 3, 1, true},           {1, 9, 7, 40, 130, 3, 2},         {1, 10, 10, 72, 64, 1, 1, true}, {1, 5, 6, 8, 4, 3},
    {1, 6, 7, 4, 24, 3, 1, true},            {2, 7, 8, 3, 5, 3, 2, true, 1, 0, 1}, {1, 9, 9, 16, 8, 3, 1, false, 1, 2, 2, 2},
    {2, 4, 5, 72, 16, 3, 1, true, 4},        {1, 4, 3, 8, 16, 5, 1, true, 1, 2, 2, 1, 1},
};

}  // namespace

TEST_CASE_TEMPLATE("convolutions", T, half16, bfloat16, float) {
  for (const ConvolutionCase& c : kCases) {
    for (bool large : {false, true}) {
      ConvolutionRun<T> run(c);
      run.template run<ConvolutionForward>(Pass::forward, large);
      const Error<T> e = run.forward_error();
      if (large) std::printf("  %dx%dx%dx%d -> %d, %dx%d error %.2e, %.2f of rounding\n", c.s.batch, c.s.height, c.s.width, c.s.in, c.s.out, c.s.filter_height, c.s.filter_width, e.relative(), e.times());
      CAPTURE(c.s.in);
      CAPTURE(c.s.out);
      CAPTURE(large);
      check_error<T>(e);
    }
  }
}

TEST_CASE_TEMPLATE("gradients of convolutions", T, half16, bfloat16, float) {
  for (const ConvolutionCase& c : kCases) {
    if (c.s.enlarge) continue;
    ConvolutionRun<T> run(c);
    CAPTURE(c.s.in);
    CAPTURE(c.s.out);
    CAPTURE(c.s.stride_h);
    for (bool large : {false, true}) {
      run.template run<ConvolutionInputGradient>(Pass::input_gradient, large);
      check_error<T>(run.input_error());
      run.template run<ConvolutionFilterGradient>(Pass::filter_gradient, large);
      check_error<T>(run.filter_error());
    }
  }
}

TEST_CASE_TEMPLATE("enlarged convolutions in four phases", T, half16, bfloat16, float) {
  for (const ConvolutionCase& c : {ConvolutionCase(2, 5, 6, 16, 24, 3, 1, true, 1, 1, 1, 1, 1), ConvolutionCase(1, 4, 4, 5, 3, 3, 1, true, 2, 1, 1, 1, 1)}) {
    ConvolutionRun<T> run(c);
    const int64_t count = int64_t(c.s.in) * c.s.out;
    DeviceArray<Number<T>> phases(16 * count);
    emulator::run_grid(phase_filters_kernel<T>, {dim3((count + 255) / 256, 16), dim3(256), 0, true}, run.filter.data(), phases.data(), count);
    ConvolutionArguments p = run.arguments(Pass::forward);
    p.filter = phases.data();
    p.phases = true;
    p.shape.height /= 2, p.shape.width /= 2, p.shape.enlarge = 0;
    p.shape.out_height = p.shape.height, p.shape.out_width = p.shape.width;
    p.shape.filter_height = p.shape.filter_width = 2;
    p.epilogue.image_rows = p.shape.out_height * p.shape.out_width;
    const int rows = c.s.batch * p.shape.height * p.shape.width;
    using P = ConvolutionForward<T>;
    if constexpr (sizeof(Number<T>) == 2) run_product<T, P, Product<T, P, 64, 64, 32, 4, false>>(p, rows, c.s.out, 4, c.splits);
    else run_product<T, P, FloatProduct<P, 64>>(p, rows, c.s.out, 4, c.splits);
    const Error<T> e = run.forward_error();
    std::printf("  four phases: error %.2e, %.2f of rounding\n", e.relative(), e.times());
    // the filters of the phases are rounded, too
    if (sizeof(Number<T>) == 2) CHECK(e.times() < 2);
    else CHECK(e.relative() < 1e-6);
  }
}

TEST_CASE("convolutions do not depend on the schedule") {
  for (int i : {0, 1, 7}) {
    ConvolutionRun<half16> run(kCases[i]);
    ConvolutionRun<float> wide(kCases[i]);
    std::vector<uint16_t> y, dx, dw;
    std::vector<float> f;
    for_each_schedule([&] {
      run.run<ConvolutionForward>(Pass::forward, true);
      run.run<ConvolutionInputGradient>(Pass::input_gradient, false);
      run.run<ConvolutionFilterGradient>(Pass::filter_gradient, false);
      wide.run<ConvolutionForward>(Pass::forward, false);
      if (y.empty()) y = run.y.values(), dx = run.dx.values(), dw = run.dw.values(), f = wide.y.values();
      CHECK(run.y.values() == y);
      CHECK(run.dx.values() == dx);
      CHECK(run.dw.values() == dw);
      CHECK(wide.y.values() == f);
    });
  }
}

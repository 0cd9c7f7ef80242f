#include <cstring>

#include "test/check.h"
#include "cpu/convert.h"

using namespace td;
using namespace check;

namespace {

double bound(DType type) { return type == DType::f32 ? 3e-6 : type == DType::bf16 ? 6e-3 : 8e-4; }

double gelu(double x) { return 0.5 * x * (1 + std::erf(x * std::sqrt(0.5))); }

std::vector<float> naive_linear(const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& residual, const std::string& act) {
  const auto given = [](const Tensor& tensor) { return tensor ? floats(tensor) : std::vector<float>(); };
  const std::vector<float> xs = floats(x), ws = floats(w), bs = given(b), rs = given(residual);
  const int64_t in = w.shape[0], out = w.shape[1], rows = x.elements() / in, width = act == "geglu" ? out / 2 : out;
  std::vector<float> y(rows * width);
  std::vector<double> h(out);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < out; ++c) {
      h[c] = bs.empty() ? 0 : bs[c];
      for (int64_t k = 0; k < in; ++k) h[c] += static_cast<double>(xs[r * in + k]) * ws[k * out + c];
    }
    for (int64_t c = 0; c < width; ++c) {
      double v = h[c];
      if (act == "silu") v = v / (1 + std::exp(-v));
      if (act == "gelu") v = gelu(v);
      if (act == "quick_gelu") v = v / (1 + std::exp(-1.702 * v));
      if (act == "geglu") v = v * gelu(h[width + c]);
      y[r * width + c] = static_cast<float>(v + (rs.empty() ? 0 : rs[r * width + c]));
    }
  }
  return y;
}

struct Convolution {
  int64_t n, h, w, in, kh, kw, out, stride, top, bottom, left, right, upsample;
};

std::vector<float> naive_convolution(const Convolution& c, const Tensor& x, const Tensor& f, const Tensor& b, const Tensor& temb,
                                     const Tensor& residual, bool silu, Shape* shape) {
  const int64_t h = c.h * c.upsample, w = c.w * c.upsample;
  const int64_t oh = (h + c.top + c.bottom - c.kh) / c.stride + 1, ow = (w + c.left + c.right - c.kw) / c.stride + 1;
  *shape = {c.n, oh, ow, c.out};
  const std::vector<float> xs = floats(x), fs = floats(f), bs = floats(b), ts = floats(temb);
  const std::vector<float> rs = residual ? floats(residual) : std::vector<float>();
  std::vector<float> y(shape->elements());
  int64_t to = 0;
  for (int64_t n = 0; n < c.n; ++n)
    for (int64_t i = 0; i < oh; ++i)
      for (int64_t j = 0; j < ow; ++j)
        for (int64_t o = 0; o < c.out; ++o, ++to) {
          double sum = bs[o] + ts[n * c.out + o];
          for (int64_t p = 0; p < c.kh; ++p)
            for (int64_t q = 0; q < c.kw; ++q) {
              const int64_t row = i * c.stride + p - c.top, column = j * c.stride + q - c.left;
              if (row < 0 || row >= h || column < 0 || column >= w) continue;
              const int64_t from = ((n * c.h + row / c.upsample) * c.w + column / c.upsample) * c.in;
              for (int64_t k = 0; k < c.in; ++k)
                sum += static_cast<double>(xs[from + k]) * fs[((p * c.kw + q) * c.in + k) * c.out + o];
            }
          if (silu) sum = sum / (1 + std::exp(-sum));
          y[to] = static_cast<float>(sum + (rs.empty() ? 0 : rs[to]));
        }
  return y;
}

}  // namespace

TEST_CASE("linear equals the definition") {
  for (DType type : {DType::f32, DType::bf16, DType::f16}) {
    for (const char* act : {"linear", "silu", "gelu", "quick_gelu", "geglu"}) {
      for (int round = 0; round < 6; ++round) {
        const int64_t rows = random_integer(1, 40), in = random_integer(1, 70), out = 2 * random_integer(1, 40);
        const int64_t width = std::strcmp(act, "geglu") ? out : out / 2;
        const Tensor x = random_tensor({rows, in}, type), w = random_tensor({in, out}, type, 0.2f), b = random_tensor({out}, type);
        const Tensor residual = round % 2 ? random_tensor({rows, width}, type) : Tensor();
        w.storage->weight = round % 3 == 0;
        const std::vector<float> expected = naive_linear(x, Tensor(std::make_shared<Storage>(*w.storage), w.shape), b, residual, act);
        // Twice: the second time on weights that are packed already.
        for (int again = 0; again < 2; ++again) {
          const Tensor y = run("Linear", {x, w, b, residual}, [&](Attributes& a) { a.set("activation", std::string(act)); })[0];
          CHECK(y.dtype() == type);
          CHECK_CLOSE(floats(y), expected, bound(type));
        }
        // Packed weights still give their numbers.
        CHECK(floats(w).size() == static_cast<size_t>(in * out));
      }
    }
  }
}

TEST_CASE("packed qkv equals three layers") {
  for (DType type : {DType::f32, DType::bf16, DType::f16}) {
    for (int round = 0; round < 12; ++round) {
      const int64_t rows = random_integer(1, 40), in = random_integer(1, 150), out = round % 4 ? random_integer(1, 90) : 64;
      const bool biased = round % 2, marked = round % 3 == 0;
      const Tensor x = random_tensor({rows, in}, type);
      std::vector<Tensor> inputs{x};
      std::vector<std::vector<float>> expected, before;
      for (int i = 0; i < 3; ++i) inputs.push_back(random_tensor({in, out}, type, 0.2f));
      for (int i = 0; i < 3 && biased; ++i) inputs.push_back(random_tensor({out}, type));
      for (int i = 0; i < 3; ++i) {
        const Tensor& w = inputs[1 + i];
        w.storage->weight = marked;
        before.push_back(floats(w));
        const Tensor copy(std::make_shared<Storage>(*w.storage), w.shape);
        expected.push_back(naive_linear(x, copy, biased ? inputs[4 + i] : Tensor(), Tensor(), "linear"));
      }
      for (int again = 0; again < 2; ++again) {
        const std::vector<float> y = floats(run("PackedQkv", inputs)[0]);
        for (int i = 0; i < 3; ++i) {
          std::vector<float> part;
          for (int64_t row = 0; row < rows; ++row) {
            part.insert(part.end(), y.begin() + (row * 3 + i) * out, y.begin() + (row * 3 + i + 1) * out);
          }
          CHECK_CLOSE(part, expected[i], bound(type));
        }
      }
      // Taken back one by one, in any order, and together again.
      for (int i : {2, 0, 1}) {
        const Tensor w(inputs[1 + i].storage, inputs[1 + i].shape);
        CHECK((!marked || !w.storage->plain));
        CHECK(floats(w) == before[i]);
        const Tensor y = run("Linear", {x, w, biased ? inputs[4 + i] : Tensor()})[0];
        CHECK_CLOSE(floats(y), expected[i], bound(type));
      }
      CHECK(run("PackedQkv", inputs)[0].elements() == rows * 3 * out);
      for (int i = 0; i < 3; ++i) CHECK(floats(Tensor(inputs[1 + i].storage, inputs[1 + i].shape)) == before[i]);
    }
  }
}

TEST_CASE("packed weights keep their numbers") {
  for (DType type : {DType::f32, DType::bf16, DType::f16}) {
    const Tensor w = random_tensor({37, 51}, type), f = random_tensor({3, 3, 5, 19}, type);
    const std::vector<float> before = floats(w), filter = floats(f);
    Tensor held_w(w.storage, w.shape), held_f(f.storage, f.shape);
    w.storage->weight = f.storage->weight = true;
    run("Linear", {random_tensor({4, 37}, type), w});
    run("Conv2dFused", {random_tensor({1, 6, 6, 5}, type), f}, [](Attributes& a) {
      a.set("strides", std::vector<double>{1, 1});
      a.set("pad", std::vector<double>{1, 1, 1, 1});
    });
    CHECK((!w.storage->plain && w.storage->packed));
    CHECK((!f.storage->plain && f.storage->packed));
    CHECK(floats(Tensor(w.storage, w.shape)) == before);
    CHECK(floats(Tensor(f.storage, f.shape)) == filter);
  }
}

TEST_CASE("packed weights serve views of other shapes") {
  const Tensor w = random_tensor({48, 64}), x = random_tensor({5, 48}), z = random_tensor({5, 64}), none;
  const Tensor view(w.storage, {64, 48});
  w.storage->weight = true;
  const Tensor copy(std::make_shared<Storage>(*w.storage), w.shape);
  for (int again = 0; again < 2; ++again) {
    CHECK_CLOSE(floats(run("Linear", {x, w})[0]), naive_linear(x, copy, none, none, "linear"), bound(DType::f32));
    const Tensor copied_view(copy.storage, view.shape);
    CHECK_CLOSE(floats(run("Linear", {z, view})[0]), naive_linear(z, copied_view, none, none, "linear"), bound(DType::f32));
  }
  const Tensor image = random_tensor({1, 3, 3, 48});
  const Tensor filter(w.storage, {1, 1, 48, 64});
  const Tensor y = run("Conv2dFused", {image, filter}, [](Attributes& a) {
    a.set("strides", std::vector<double>{1, 1});
    a.set("pad", std::vector<double>{0, 0, 0, 0});
  })[0];
  CHECK_CLOSE(floats(y), naive_linear(Tensor(image.storage, {9, 48}), copy, none, none, "linear"), bound(DType::f32));
}

TEST_CASE("convolution equals the definition") {
  const Convolution shapes[] = {
      {1, 5, 6, 3, 3, 3, 7, 1, 1, 1, 1, 1, 1},   {3, 7, 5, 16, 3, 3, 32, 1, 1, 1, 1, 1, 1}, {2, 8, 9, 4, 3, 3, 5, 2, 1, 1, 1, 1, 1},
      {1, 8, 8, 4, 3, 3, 5, 2, 0, 1, 0, 1, 1},   {2, 4, 3, 33, 1, 1, 9, 1, 0, 0, 0, 0, 1},  {2, 4, 5, 6, 3, 3, 10, 1, 1, 1, 1, 1, 2},
      {1, 1, 1, 17, 3, 3, 16, 1, 1, 1, 1, 1, 2}, {1, 6, 7, 2, 4, 2, 3, 1, 2, 1, 0, 1, 1},   {1, 4, 4, 8, 1, 1, 8, 1, 0, 0, 0, 0, 2},
      // wide enough for Winograd: odd sizes, more than one group of tiles, several pieces of the channels, upsampled
      {2, 9, 11, 64, 3, 3, 80, 1, 1, 1, 1, 1, 1}, {3, 13, 8, 96, 3, 3, 144, 1, 1, 1, 1, 1, 1}, {1, 48, 50, 64, 3, 3, 64, 1, 1, 1, 1, 1, 1},
      {2, 15, 13, 272, 3, 3, 64, 1, 1, 1, 1, 1, 1}, {2, 8, 7, 80, 3, 3, 64, 1, 1, 1, 1, 1, 2}, {1, 7, 13, 144, 3, 3, 96, 1, 1, 1, 1, 1, 2},
  };
  for (DType type : {DType::f32, DType::bf16, DType::f16}) {
    for (const Convolution& c : shapes) {
      for (int variant = 0; variant < 4; ++variant) {
        const Tensor x = random_tensor({c.n, c.h, c.w, c.in}, type), f = random_tensor({c.kh, c.kw, c.in, c.out}, type, 0.2f);
        const Tensor b = random_tensor({c.out}, type);
        Tensor temb = random_tensor({c.n, c.out}, type);
        if (variant & 2) {
          // The same for every image, as in guidance.
          const size_t row = temb.bytes() / c.n;
          for (int64_t n = 1; n < c.n; ++n) std::memcpy(temb.mutable_data<char>() + n * row, temb.raw(), row);
        }
        const bool silu = variant & 1;
        Shape shape;
        naive_convolution(c, x, f, b, temb, Tensor(), silu, &shape);
        const Tensor residual = variant & 1 ? random_tensor(shape, type) : Tensor();
        const std::vector<float> expected = naive_convolution(c, x, f, b, temb, residual, silu, &shape);
        for (int again = 0; again < 2; ++again) {
          const Tensor y = run("Conv2dFused", {x, f, b, residual, temb}, [&](Attributes& a) {
            a.set("strides", std::vector<double>{double(c.stride), double(c.stride)});
            a.set("pad", std::vector<double>{double(c.top), double(c.bottom), double(c.left), double(c.right)});
            a.set("activation", std::string(silu ? "silu" : "linear"));
            a.set("upsample", double(c.upsample));
          })[0];
          CHECK(y.shape == shape);
          CHECK_CLOSE(floats(y), expected, bound(type));
        }
      }
    }
  }
}

TEST_CASE("convolution spreads what is not finite no further than its window") {
  const Convolution c = {1, 20, 20, 64, 3, 3, 64, 1, 1, 1, 1, 1, 1};
  for (float poison : {INFINITY, NAN}) {
    Tensor x = random_tensor({c.n, c.h, c.w, c.in}), f = random_tensor({c.kh, c.kw, c.in, c.out}, DType::f32, 0.2f);
    x.mutable_data<float>()[(7 * c.w + 9) * c.in + 5] = poison;
    const std::vector<float> y = floats(run("Conv2dFused", {x, f}, [](Attributes& a) {
      a.set("strides", std::vector<double>{1, 1});
      a.set("pad", std::vector<double>{1, 1, 1, 1});
    })[0]);
    for (int64_t i = 0; i < c.h; ++i)
      for (int64_t j = 0; j < c.w; ++j) {
        const bool reached = std::abs(i - 7) <= 1 && std::abs(j - 9) <= 1;
        CHECK(std::isfinite(y[(i * c.w + j) * c.out]) == !reached);
      }
  }
}

TEST_CASE("convolution keeps an infinite weight infinite") {
  const Convolution c = {1, 20, 20, 64, 3, 3, 64, 1, 1, 1, 1, 1, 1};
  Tensor x = random_tensor({c.n, c.h, c.w, c.in}), f = random_tensor({c.kh, c.kw, c.in, c.out}, DType::f32, 0.2f);
  f.mutable_data<float>()[(4 * c.in + 5) * c.out + 3] = INFINITY;
  const std::vector<float> y = floats(run("Conv2dFused", {x, f}, [](Attributes& a) {
    a.set("strides", std::vector<double>{1, 1});
    a.set("pad", std::vector<double>{1, 1, 1, 1});
  })[0]);
  for (int64_t pixel = 0; pixel < c.h * c.w; ++pixel)
    for (int64_t o = 0; o < c.out; ++o) CHECK((o == 3 ? std::isinf(y[pixel * c.out + o]) : std::isfinite(y[pixel * c.out + o])));
}

TEST_CASE("group norm equals the definition") {
  for (DType type : {DType::f32, DType::bf16, DType::f16}) {
    for (int round = 0; round < 10; ++round) {
      const int64_t groups = random_integer(1, 8), width = random_integer(1, 20), c = groups * width;
      const int64_t n = random_integer(1, 3), pixels = random_integer(1, 700);
      const Tensor x = random_tensor({n, pixels, c}, type), g = random_tensor({c}), b = random_tensor({c});
      const std::vector<float> xs = floats(x), gs = floats(g), bs = floats(b);
      std::vector<float> expected(xs.size());
      for (int64_t i = 0; i < n; ++i)
        for (int64_t k = 0; k < groups; ++k) {
          double mean = 0, variance = 0;
          const auto each = [&](const std::function<void(size_t, int64_t)>& visit) {
            for (int64_t p = 0; p < pixels; ++p)
              for (int64_t j = k * width; j < (k + 1) * width; ++j) visit((i * pixels + p) * c + j, j);
          };
          each([&](size_t at, int64_t) { mean += xs[at]; });
          mean /= pixels * width;
          each([&](size_t at, int64_t) { variance += (xs[at] - mean) * (xs[at] - mean); });
          variance /= pixels * width;
          each([&](size_t at, int64_t j) {
            const double v = (xs[at] - mean) / std::sqrt(variance + 1e-5) * gs[j] + bs[j];
            expected[at] = static_cast<float>(v / (1 + std::exp(-v)));
          });
        }
      const Tensor y = run("GroupNorm", {x, g, b}, [&](Attributes& a) {
        a.set("groups", double(groups));
        a.set("activation", std::string("silu"));
      })[0];
      CHECK_CLOSE(floats(y), expected, type == DType::f32 ? 2e-5 : bound(type));
    }
  }
}

/// Numbers so small that the epsilon is three quarters of what is divided by: +-1e-3 becomes +-1/2.
TEST_CASE("norms add their epsilon to the variance") {
  for (const char* norm : {"GroupNorm", "LayerNorm"}) {
    const int64_t channels = 8;
    Tensor x = Tensor::empty(DType::f32, {1, 6, channels}), gamma = Tensor::empty(DType::f32, {channels}),
           beta = Tensor::empty(DType::f32, {channels});
    std::fill_n(gamma.mutable_data<float>(), channels, 1.0f);
    std::fill_n(beta.mutable_data<float>(), channels, 0.0f);
    std::vector<float> expected(x.elements());
    for (int64_t i = 0; i < x.elements(); ++i) {
      x.mutable_data<float>()[i] = i % 2 ? 1e-3f : -1e-3f;
      expected[i] = i % 2 ? 0.5f : -0.5f;
    }
    const Tensor y = run(norm, {x, gamma, beta}, [&](Attributes& a) {
      a.set("groups", 2.0);
      a.set("epsilon", 3e-6);
    })[0];
    CHECK_CLOSE(floats(y), expected, 1e-5);
  }
}

TEST_CASE("rms norm equals the definition") {
  for (DType type : {DType::f32, DType::bf16, DType::f16}) {
    for (int64_t channels : {1, 3, 64, 200}) {
      const Tensor x = random_tensor({5, 7, channels}, type, 0.01f), g = random_tensor({channels});
      const std::vector<float> xs = floats(x), gs = floats(g);
      for (bool scaled : {true, false}) {
        std::vector<float> expected(xs.size());
        for (int64_t row = 0; row < 35; ++row) {
          double sum = 0;
          for (int64_t c = 0; c < channels; ++c) sum += std::pow(xs[row * channels + c], 2.0);
          for (int64_t c = 0; c < channels; ++c)
            expected[row * channels + c] =
                static_cast<float>(xs[row * channels + c] / std::sqrt(sum / channels + 1e-4) * (scaled ? gs[c] : 1.0f));
        }
        const Tensor y = run("RmsNorm", {x, scaled ? g : Tensor()}, [](Attributes& a) { a.set("epsilon", 1e-4); })[0];
        CHECK(y.dtype() == type);
        CHECK_CLOSE(floats(y), expected, bound(type));
      }
    }
  }
  CHECK(failure([] { run("RmsNorm", {random_tensor({2, 3}), random_tensor({4})}); }).find("gamma needs 3 numbers") != std::string::npos);
}

TEST_CASE("convolution gradients are adjoint") {
  // <dy, conv(x, f)> = <dx, x> = <df, f>
  const auto dot = [](const Tensor& a, const Tensor& b) {
    double sum = 0;
    for (int64_t i = 0; i < a.elements(); ++i) sum += static_cast<double>(a.data<float>()[i]) * b.data<float>()[i];
    return sum;
  };
  for (int64_t stride : {1, 2}) {
    const Tensor x = random_tensor({2, 7, 8, 5}), f = random_tensor({3, 3, 5, 6});
    const auto set = [&](Attributes& a) {
      a.set("strides", std::vector<double>{double(stride), double(stride)});
      a.set("pad", std::vector<double>{1, 1, 0, 1});
      a.set("inputShape", std::vector<double>{2, 7, 8, 5});
      a.set("filterShape", std::vector<double>{3, 3, 5, 6});
    };
    const Tensor y = run("Conv2D", {x, f}, set)[0], dy = random_tensor(y.shape);
    const double expected = dot(dy, y);
    CHECK(std::fabs(dot(run("Conv2DBackpropInput", {dy, f}, set)[0], x) - expected) < 1e-4 * std::fabs(expected) + 1e-3);
    CHECK(std::fabs(dot(run("Conv2DBackpropFilter", {x, dy}, set)[0], f) - expected) < 1e-4 * std::fabs(expected) + 1e-3);
  }
}

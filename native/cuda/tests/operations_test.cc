// The fused operations by their registered names, as tfjs calls them: shapes, types, layouts, optional inputs, and which kernel is taken.
#include <doctest/doctest.h>

#include <functional>

#include "cuda/dispatch.h"
#include "cuda/kernels.h"
#include "numbers.h"

using namespace td;
using namespace td::cuda;
using namespace td::cuda::test;

namespace {

using Numbers = std::vector<double>;

const Registry& registry() {
  static const bool done = [] {
    Registry& all = Registry::instance();
    if (all.find("Linear") >= 0) return true;
    register_elementwise(all), register_matmul(all), register_convolution(all), register_normalization(all), register_attention(all);
    return true;
  }();
  (void)done;
  return Registry::instance();
}

Tensor tensor(const Shape& shape, DType type, unsigned seed, float spread = 1.f) {
  const auto numbers = random_numbers<float>(shape.elements(), seed, spread);
  return as_type(upload_tensor(DType::f32, shape, numbers.data()), type);
}
Numbers numbers_of(const Tensor& x) {
  const Tensor wide = as_type(x, DType::f32);
  std::vector<float> values(x.elements());
  fetch(wide.raw(), values.data(), values.size() * 4);
  return {values.begin(), values.end()};
}

std::vector<Tensor> run(const char* name, const std::vector<Tensor>& inputs, const std::function<void(Attributes&)>& set = [](Attributes&) {}) {
  Call call;
  call.inputs = inputs;
  set(call.attributes);
  registry().run(registry().find(name), call);
  return call.outputs;
}
std::string failure(const std::function<void()>& work) {
  try {
    work();
  } catch (const KernelError& error) {
    return error.what();
  }
  return "";
}

/// ||got - want|| / ||want||, in units of what rounding to the type may cost.
double error_of(const Tensor& got, const Numbers& want) {
  const Numbers x = numbers_of(got);
  REQUIRE(x.size() == want.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < x.size(); ++i) difference += (x[i] - want[i]) * (x[i] - want[i]), norm += want[i] * want[i];
  const double unit = got.dtype() == DType::f32 ? 1e-6 : got.dtype() == DType::f16 ? 4.5e-4 : 3.6e-3;
  return std::sqrt(difference / norm) / unit;
}

/// a [m, k] times b [k, n].
Numbers product(const Numbers& a, const Numbers& b, int64_t m, int64_t k, int64_t n) {
  Numbers c(m * n, 0.);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t x = 0; x < k; ++x) {
      for (int64_t j = 0; j < n; ++j) c[i * n + j] += a[i * k + x] * b[x * n + j];
    }
  }
  return c;
}

constexpr DType kTypes[] = {DType::f32, DType::f16, DType::bf16};

}  // namespace

TEST_CASE("Linear, with and without everything that it may add") {
  for (DType type : kTypes) {
    const Tensor x = tensor({2, 3, 40}, type, 1), w = tensor({40, 48}, type, 2, 0.2f), b = tensor({48}, DType::f32, 3), r = tensor({2, 3, 24}, type, 4);
    Numbers want = product(numbers_of(x), numbers_of(w), 6, 40, 48);
    CHECK(error_of(run("Linear", {x, w})[0], want) < 1);
    const Numbers bias = numbers_of(b), residual = numbers_of(r);
    Numbers halves(6 * 24);
    for (int i = 0; i < 6 * 24; ++i) {
      const int row = i / 24, column = i % 24;
      const double gate = want[row * 48 + 24 + column] + bias[24 + column];
      halves[i] = (want[row * 48 + column] + bias[column]) * gate * 0.5 * (1 + std::erf(gate * M_SQRT1_2)) + residual[i];
    }
    const auto y = run("Linear", {x, w, b, r}, [](Attributes& a) { a.set("activation", std::string("geglu")); });
    CHECK(y[0].dtype() == type);
    CHECK(error_of(y[0], halves) < 1);
  }
  // weights of 16 bits below an input of 32, and a product whose sums several blocks share
  const Tensor x = tensor({3, 640}, DType::f32, 1), w = tensor({640, 24}, DType::f16, 2, 0.05f);
  const auto y = run("Linear", {x, w});
  CHECK(y[0].dtype() == DType::f32);
  CHECK(error_of(as_type(y[0], DType::f16), product(numbers_of(as_type(x, DType::f16)), numbers_of(w), 3, 640, 24)) < 1.5);
  CHECK(failure([&] { run("Linear", {x, tensor({30, 4}, DType::f32, 3)}); }).find("weight expects 30 inputs, got 640") != std::string::npos);
}

TEST_CASE("PackedQkv lays three products side by side") {
  for (DType type : kTypes) {
    const Tensor x = tensor({2, 5, 16}, type, 1);
    std::vector<Tensor> inputs{x};
    for (int i = 0; i < 3; ++i) inputs.push_back(tensor({16, 24}, type, 2 + i, 0.3f));
    for (int i = 0; i < 3; ++i) inputs.push_back(tensor({24}, DType::f32, 5 + i));
    Numbers want(10 * 72);
    for (int i = 0; i < 3; ++i) {
      const Numbers part = product(numbers_of(x), numbers_of(inputs[1 + i]), 10, 16, 24), bias = numbers_of(inputs[4 + i]);
      for (int j = 0; j < 240; ++j) want[j / 24 * 72 + i * 24 + j % 24] = part[j] + bias[j % 24];
    }
    const auto y = run("PackedQkv", inputs);
    CHECK(y[0].shape == Shape{2, 5, 72});
    CHECK(error_of(y[0], want) < 1);
  }
}

TEST_CASE("BatchMatMul with either operand transposed, and one for the whole batch") {
  for (DType type : kTypes) {
    const Tensor a = tensor({3, 7, 10}, type, 1), b = tensor({1, 12, 7}, type, 2), bias = tensor({12}, type, 3);
    const auto y = run("BatchMatMul", {a, b, bias}, [](Attributes& at) { at.set("transposeA", true), at.set("transposeB", true); });
    const Numbers p = numbers_of(a), q = numbers_of(b), o = numbers_of(bias);
    Numbers want(3 * 10 * 12);
    for (int i = 0; i < 360; ++i) {
      const int n = i / 120, row = i / 12 % 10, column = i % 12;
      want[i] = o[column];
      for (int k = 0; k < 7; ++k) want[i] += p[(n * 7 + k) * 10 + row] * q[column * 7 + k];
    }
    CHECK(y[0].shape == Shape{3, 10, 12});
    CHECK(error_of(y[0], want) < 1);
  }
}

TEST_CASE("Conv2dFused: enlargement by phases and by repeated pixels, embedding of the timestep, residual, SiLU") {
  const auto attributes = [](double upsample, double stride, std::vector<double> pad) {
    return [=](Attributes& a) {
      a.set("strides", std::vector<double>{stride, stride});
      a.set("pad", pad);
      a.set("activation", std::string("silu"));
      a.set("upsample", upsample);
    };
  };
  struct Case {
    int filter, upsample, stride;
    std::vector<double> pad;
  };
  for (DType type : kTypes) {
    for (const Case& c : {Case{3, 2, 1, {1, 1, 1, 1}}, Case{3, 2, 1, {0, 1, 0, 1}}, Case{3, 1, 2, {0, 1, 0, 1}}, Case{1, 1, 1, {0, 0, 0, 0}}}) {
      const int size = 4 * c.upsample, out = (size + c.pad[0] + c.pad[1] - c.filter) / c.stride + 1;
      const Tensor x = tensor({2, 4, 4, 8}, type, 1), w = tensor({c.filter, c.filter, 8, 16}, type, 2, 0.2f), b = tensor({16}, DType::f32, 3);
      const Tensor r = tensor({2, out, out, 16}, type, 4), t = tensor({2, 16}, type, 5);
      const Numbers p = numbers_of(x), q = numbers_of(w), bias = numbers_of(b), residual = numbers_of(r), embedding = numbers_of(t);
      Numbers want(residual.size());
      for (size_t i = 0; i < want.size(); ++i) {
        const int o = i % 16, ox = i / 16 % out, oy = i / 16 / out % out, n = i / 16 / out / out;
        double sum = bias[o] + embedding[n * 16 + o];
        for (int j = 0; j < c.filter * c.filter * 8; ++j) {
          const int ch = j % 8, y = oy * c.stride - int(c.pad[0]) + j / 8 / c.filter, xx = ox * c.stride - int(c.pad[2]) + j / 8 % c.filter;
          if (y < 0 || y >= size || xx < 0 || xx >= size) continue;
          sum += p[((n * 4 + y / c.upsample) * 4 + xx / c.upsample) * 8 + ch] * q[j * 16 + o];
        }
        want[i] = sum / (1 + std::exp(-sum)) + residual[i];
      }
      CAPTURE(c.filter);
      CAPTURE(c.upsample);
      for (int again = 0; again < 2; ++again) {
        const auto y = run("Conv2dFused", {x, w, b, r, t}, attributes(c.upsample, c.stride, c.pad));
        CHECK(y[0].shape == Shape{2, out, out, 16});
        CHECK(error_of(y[0], want) < 1.2);
      }
    }
  }
}

TEST_CASE("gradients of Conv2D") {
  const auto attributes = [](const char* name, std::vector<double> shape) {
    return [=](Attributes& a) {
      a.set("strides", std::vector<double>{1, 1});
      a.set("pad", std::vector<double>{1, 0, 1, 0});
      a.set(name, shape);
    };
  };
  for (DType type : kTypes) {
    const Tensor x = tensor({1, 5, 5, 3}, type, 1), w = tensor({2, 2, 3, 4}, type, 2), dy = tensor({1, 5, 5, 4}, type, 3);
    const Numbers p = numbers_of(x), q = numbers_of(w), d = numbers_of(dy);
    Numbers dx(p.size(), 0.), dw(q.size(), 0.);
    for (int i = 0; i < 25 * 4 * 3 * 4; ++i) {
      const int o = i % 4, c = i / 4 % 3, tap = i / 12 % 4, pixel = i / 48, y = pixel / 5 - 1 + tap / 2, xx = pixel % 5 - 1 + tap % 2;
      if (y < 0 || xx < 0) continue;
      dx[(y * 5 + xx) * 3 + c] += d[pixel * 4 + o] * q[(tap * 3 + c) * 4 + o];
      dw[(tap * 3 + c) * 4 + o] += d[pixel * 4 + o] * p[(y * 5 + xx) * 3 + c];
    }
    CHECK(error_of(run("Conv2DBackpropInput", {dy, w}, attributes("inputShape", {1, 5, 5, 3}))[0], dx) < 1);
    CHECK(error_of(run("Conv2DBackpropFilter", {x, dy}, attributes("filterShape", {2, 2, 3, 4}))[0], dw) < 1);
  }
}

TEST_CASE("attention of [B,H,N,d], tokens and packed tokens agree, and so do their gradients") {
  const auto attributes = [](Attributes& a) { a.set("scale", 0.25), a.set("heads", 2.); };
  for (DType type : kTypes) {
    for (int d : {5, 40, 300}) {
      CAPTURE(d);
      const Tensor qkv = tensor({2, 9, 6 * d}, type, 1), dy = tensor({2, 9, 2 * d}, type, 2), bias = tensor({1, 1, 9, 9}, DType::f32, 3);
      // the three as tensors of their own
      std::vector<Tensor> parts;
      for (int i = 0; i < 3; ++i) {
        Tensor part = Tensor::empty(type, {2, 9, 2 * d});
        const int64_t from[] = {9 * 6 * d, 6 * d, 1}, to[] = {9 * 2 * d, 2 * d, 1};
        strided_copy(type, part.shape, qkv.data<char>() + i * 2 * d * size_of(type), from, part.mutable_raw(), to);
        parts.push_back(part);
      }
      const auto packed = run("MemoryEfficientAttentionPacked", {qkv, bias}, attributes);
      const auto tokens = run("MemoryEfficientAttention", {parts[0], parts[1], parts[2], bias}, attributes);
      CHECK(numbers_of(packed[0]) == numbers_of(tokens[0]));
      std::vector<Tensor> heads;
      const auto split = [&](const Tensor& x) {
        Tensor y = Tensor::empty(type, {2, 2, 9, d});
        const int64_t from[] = {9 * 2 * d, d, 2 * d, 1}, to[] = {2 * 9 * d, 9 * d, d, 1};
        strided_copy(type, y.shape, x.raw(), from, y.mutable_raw(), to);
        return y;
      };
      for (const Tensor& x : parts) heads.push_back(split(x));
      const auto apart = run("MemoryEfficientAttention", {heads[0], heads[1], heads[2], bias}, attributes);
      CHECK(numbers_of(apart[0]) == numbers_of(split(tokens[0])));
      CHECK(numbers_of(apart[1]) == numbers_of(tokens[1]));
      const auto grads = run("MemoryEfficientAttentionGrad", {dy, parts[0], parts[1], parts[2], tokens[0], tokens[1], bias}, attributes);
      const auto whole = run("MemoryEfficientAttentionPackedGrad", {dy, qkv, packed[0], packed[1], bias}, attributes);
      for (int i = 0; i < 3; ++i) {
        Tensor part = Tensor::empty(type, {2, 9, 2 * d});
        const int64_t from[] = {9 * 6 * d, 6 * d, 1}, to[] = {9 * 2 * d, 2 * d, 1};
        strided_copy(type, part.shape, whole[0].data<char>() + i * 2 * d * size_of(type), from, part.mutable_raw(), to);
        CHECK(numbers_of(grads[i]) == numbers_of(part));
      }
      // weights sum to one: values that are all equal come out as they are
      Tensor ones = Tensor::empty(type, parts[2].shape);
      fill(ones, 3);
      for (double x : numbers_of(run("MemoryEfficientAttention", {parts[0], parts[1], ones}, attributes)[0])) CHECK(x == doctest::Approx(3).epsilon(4e-3));
    }
  }
  const Tensor q = tensor({1, 4, 6}, DType::f32, 1);
  CHECK(failure([&] { run("MemoryEfficientAttention", {q, q, q}, [](Attributes& a) { a.set("scale", 1.), a.set("heads", 4.); }); })
            .find("heads do not divide") != std::string::npos);
}

TEST_CASE("GroupNorm in one pass and in three, LayerNorm, Softmax, TimestepEmbedding") {
  for (DType type : kTypes) {
    for (int pixels : {20, 900}) {
      const Tensor x = tensor({2, pixels, 32}, type, 1), gamma = tensor({32}, type, 2), beta = tensor({32}, DType::f32, 3);
      const auto y = run("GroupNorm", {x, gamma, beta}, [](Attributes& a) { a.set("groups", 2.), a.set("activation", std::string("silu")); });
      const Numbers p = numbers_of(x), g = numbers_of(gamma), b = numbers_of(beta);
      Numbers want(p.size());
      for (int part = 0; part < 4; ++part) {
        double mean = 0, variance = 0;
        const auto at = [&](int i) { return (part / 2 * pixels + i / 16) * 32 + part % 2 * 16 + i % 16; };
        for (int i = 0; i < pixels * 16; ++i) mean += p[at(i)] / (pixels * 16);
        for (int i = 0; i < pixels * 16; ++i) variance += (p[at(i)] - mean) * (p[at(i)] - mean) / (pixels * 16);
        for (int i = 0; i < pixels * 16; ++i) {
          const double v = (p[at(i)] - mean) / std::sqrt(variance + 1e-5) * g[at(i) % 32] + b[at(i) % 32];
          want[at(i)] = v / (1 + std::exp(-v));
        }
      }
      CHECK(error_of(y[0], want) < 1);
      double sum = 0;
      for (double v : numbers_of(run("Softmax", {x})[0])) sum += v;
      CHECK(sum == doctest::Approx(2 * pixels).epsilon(1e-2));
      const Numbers normal = numbers_of(run("LayerNorm", {x, upload_tensor(DType::f32, {32}, std::vector<float>(32, 1.f).data()), upload_tensor(DType::f32, {32}, std::vector<float>(32, 0.f).data())})[0]);
      double mean = 0, square = 0;
      for (int i = 0; i < 32; ++i) mean += normal[i] / 32, square += normal[i] * normal[i] / 32;
      CHECK(std::fabs(mean) < 1e-2);
      CHECK(square == doctest::Approx(1).epsilon(1e-2));
    }
  }
  const float steps[] = {0.f, 7.f};
  const Numbers t = numbers_of(run("TimestepEmbedding", {upload_tensor(DType::f32, {2}, steps)}, [](Attributes& a) { a.set("dim", 6.), a.set("flipSinToCos", true); })[0]);
  CHECK(t[0] == 1);
  CHECK(t[6] == doctest::Approx(std::cos(7.)));
  CHECK(t[9] == doctest::Approx(std::sin(7.)));
}

#include <algorithm>

#include "test/check.h"
#include "cpu/convert.h"
#include "cpu/simd/loops.h"
#include "cpu/strided.h"

using namespace td;
using namespace check;

namespace {

/// Element of a tensor at an index of the broadcast shape.
float at(const Tensor& x, const Shape& result, int64_t index) {
  int64_t offset = 0, step = 1;
  int64_t place[kMaxRank];
  for (int i = result.rank - 1; i >= 0; --i) {
    place[i] = index % result.dims[i];
    index /= result.dims[i];
  }
  for (int i = 1; i <= x.shape.rank; ++i) {
    const int64_t dim = x.shape.dims[x.shape.rank - i];
    offset += (dim == 1 ? 0 : place[result.rank - i]) * step;
    step *= dim;
  }
  return x.data<float>()[offset];
}

Shape random_operand(const Shape& full) {
  Shape shape;
  for (int i = static_cast<int>(random_integer(0, full.rank)); i < full.rank; ++i)
    shape.push(random_integer(0, 2) == 0 ? 1 : full.dims[i]);
  return shape;
}

}  // namespace

TEST_CASE("binary operations broadcast") {
  for (int round = 0; round < 200; ++round) {
    Shape full;
    const int64_t rank = random_integer(0, 5);
    for (int64_t i = 0; i < rank; ++i) full.push(random_integer(1, 7));
    const Tensor a = random_tensor(random_operand(full)), b = random_tensor(random_operand(full));
    const Shape shape = broadcast_shape(a.shape, b.shape);
    const Tensor sum = run("Add", {a, b})[0], larger = run("Greater", {a, b})[0];
    CHECK(sum.shape == shape);
    std::vector<float> expected(shape.elements()), bigger(shape.elements());
    for (int64_t i = 0; i < shape.elements(); ++i) {
      expected[i] = at(a, shape, i) + at(b, shape, i);
      bigger[i] = at(a, shape, i) > at(b, shape, i);
    }
    CHECK_CLOSE(floats(sum), expected, 1e-7);
    CHECK(floats(larger) == bigger);
  }
  CHECK(failure([] { run("Add", {random_tensor({2, 3}), random_tensor({4})}); }).find("[Add] shapes [2,3] and [4]") == 0);
}

TEST_CASE("functions are precise") {
  Tensor x = Tensor::empty(DType::f32, {40001});
  for (int i = 0; i <= 40000; ++i) x.mutable_data<float>()[i] = static_cast<float>(i - 20000) * 0.0025f;
  const auto compare = [&](const char* kernel, double (*exact)(double), double bound) {
    const Tensor y = run(kernel, {x})[0];
    double worst = 0;
    for (int64_t i = 0; i < x.elements(); ++i) {
      const double expected = exact(x.data<float>()[i]);
      const double error = std::fabs(y.data<float>()[i] - expected) / std::max(std::fabs(expected), 1e-30);
      if (std::fabs(expected) > 1e-30) worst = std::max(worst, error);
    }
    CHECK_MESSAGE(worst <= bound, kernel);
  };
  compare("Exp", std::exp, 3e-7);
  compare("Tanh", std::tanh, 3e-7);
  compare("Erf", std::erf, 5e-7);
  compare("Sigmoid", [](double v) { return 1 / (1 + std::exp(-v)); }, 4e-7);
  compare("Silu", [](double v) { return v / (1 + std::exp(-v)); }, 4e-7);
}

/// Numbers whose powers of e are beyond float32 without their maximum; rows of one number and of several tiles.
TEST_CASE("softmax equals the definition") {
  for (int64_t n : {1, 3, 65, 2500}) {
    Tensor x = random_tensor({4, n}, DType::f32, 3.0f);
    for (int64_t i = 0; i < x.elements(); ++i) x.mutable_data<float>()[i] += i < 2 * n ? 200.0f : -200.0f;
    std::vector<float> expected(x.elements()), logarithms(x.elements());
    for (int64_t row = 0; row < 4; ++row) {
      const float* in = x.data<float>() + row * n;
      const double top = *std::max_element(in, in + n);
      double sum = 0;
      for (int64_t i = 0; i < n; ++i) sum += std::exp(in[i] - top);
      for (int64_t i = 0; i < n; ++i) {
        expected[row * n + i] = static_cast<float>(std::exp(in[i] - top) / sum);
        logarithms[row * n + i] = static_cast<float>(in[i] - top - std::log(sum));
      }
    }
    CHECK_CLOSE(floats(run("Softmax", {x})[0]), expected, 1e-6);
    CHECK_CLOSE(floats(run("LogSoftmax", {x})[0]), logarithms, 1e-5);
  }
}

TEST_CASE("functions pass on what is not finite") {
  Tensor x = Tensor::empty(DType::f32, {3});
  x.mutable_data<float>()[0] = NAN;
  x.mutable_data<float>()[1] = INFINITY;
  x.mutable_data<float>()[2] = -INFINITY;
  const auto values = [&](const char* kernel) { return floats(run(kernel, {x})[0]); };
  CHECK((std::isnan(values("Exp")[0]) && values("Exp")[1] == INFINITY && values("Exp")[2] == 0));
  CHECK((std::isnan(values("Tanh")[0]) && values("Tanh")[1] == 1 && values("Tanh")[2] == -1));
  CHECK((std::isnan(values("Sigmoid")[0]) && values("Sigmoid")[1] == 1 && values("Sigmoid")[2] == 0));
  CHECK((std::isnan(values("Erf")[0]) && values("Erf")[1] == 1 && values("Erf")[2] == -1));
  CHECK((std::isnan(values("Silu")[0]) && values("Silu")[1] == INFINITY && std::isnan(values("Silu")[2])));
  CHECK((std::isnan(values("Relu")[0]) && std::isnan(values("Gelu")[0])));
}

TEST_CASE("geglu rows are as precise as their type") {
  const int64_t inner = 24001;
  std::vector<float> x(2 * inner, 1.0f);
  for (int64_t i = 0; i < inner; ++i) x[inner + i] = static_cast<float>(i - 12000) * 1e-3f;
  x[inner] = NAN;
  x[inner + 1] = INFINITY;
  x[inner - 1] = INFINITY;
  const auto gelu = [](double v) { return v * 0.5 * std::erfc(-v / std::sqrt(2.0)); };
  // Beside the rounding of the result: float32 is off where it cancels, bfloat16 by its polynomial.
  const std::pair<DType, std::pair<double, double>> bounds[] = {
      {DType::f32, {1e-6, 3e-7}}, {DType::bf16, {1.7e-5, 1.0 / 256}}, {DType::f16, {1e-6, 1.0 / 2048}}};
  for (const auto& [type, bound] : bounds) {
    Tensor y = Tensor::empty(type, {inner});
    simd::loops().geglu_row(type, x.data(), nullptr, y.mutable_raw(), inner);
    const std::vector<float> values = floats(y);
    CHECK((std::isnan(values[0]) && values[1] == INFINITY && values[inner - 1] == INFINITY));
    double worst = 0;
    for (int64_t i = 2; i < inner - 1; ++i) {
      const double expected = gelu(x[inner + i]);
      worst = std::max(worst, std::fabs(values[i] - expected) / (bound.first + bound.second * std::fabs(expected)));
    }
    CHECK_MESSAGE(worst <= 1, name_of(type));
  }
}

TEST_CASE("halves round to nearest even") {
  for (DType type : {DType::bf16, DType::f16}) {
    // Every 16-bit pattern survives the way to float32 and back.
    Tensor all = Tensor::empty(type, {65536});
    for (int i = 0; i < 65536; ++i) all.mutable_data<uint16_t>()[i] = static_cast<uint16_t>(i);
    const Tensor wide = as_type(all, DType::f32), back = as_type(wide, type);
    int wrong = 0;
    for (int i = 0; i < 65536; ++i) {
      const float value = wide.data<float>()[i];
      wrong += std::isnan(value) ? !std::isnan(as_type(back, DType::f32).data<float>()[i] * 0 + value)
                                 : back.data<uint16_t>()[i] != all.data<uint16_t>()[i];
      if (i > 70 && std::isnan(value)) break;
    }
    CHECK(wrong == 0);
  }
  Tensor x = Tensor::empty(DType::f32, {4});
  const float values[] = {1.00390625f, 1.01171875f, 65520.0f, 6.1e-8f};
  std::copy(values, values + 4, x.mutable_data<float>());
  CHECK(floats(as_type(x, DType::bf16))[0] == 1.0f);
  CHECK(floats(as_type(x, DType::bf16))[1] == 1.015625f);
  CHECK(std::isinf(floats(as_type(x, DType::f16))[2]));
  CHECK(floats(as_type(x, DType::f16))[3] == 5.9604644775390625e-8f);
}

TEST_CASE("copies with any strides") {
  for (int round = 0; round < 300; ++round) {
    const int rank = static_cast<int>(random_integer(1, 5));
    Shape shape;
    std::vector<double> permutation;
    for (int i = 0; i < rank; ++i) {
      shape.push(random_integer(1, i == 0 ? 40 : 9));
      permutation.push_back(i);
    }
    std::shuffle(permutation.begin(), permutation.end(), generator());
    for (DType type : {DType::f32, DType::bf16, DType::boolean}) {
      const Tensor x = as_type(random_tensor(shape), type);
      const Tensor y = run("Transpose", {x}, [&](Attributes& a) { a.set("perm", permutation); })[0];
      const std::vector<float> in = floats(x), out = floats(y);
      int64_t strides[kMaxRank];
      contiguous_strides(shape, strides);
      bool equal = true;
      for (int64_t i = 0; i < y.elements(); ++i) {
        int64_t rest = i, offset = 0;
        for (int axis = rank - 1; axis >= 0; --axis) {
          offset += rest % y.shape.dims[axis] * strides[static_cast<int>(permutation[axis])];
          rest /= y.shape.dims[axis];
        }
        equal = equal && out[i] == in[offset];
      }
      CHECK(equal);
    }
  }
}

TEST_CASE("sums along any axes") {
  for (int round = 0; round < 100; ++round) {
    const int rank = static_cast<int>(random_integer(1, 4));
    Shape shape, result;
    std::vector<double> axes;
    for (int i = 0; i < rank; ++i) {
      shape.push(random_integer(1, 20));
      if (random_integer(0, 1)) axes.push_back(i);
      else result.push(shape.dims[i]);
    }
    const Tensor x = random_tensor(shape);
    std::vector<float> expected(result.elements());
    std::vector<double> sums(result.elements());
    for (int64_t i = 0; i < x.elements(); ++i) {
      int64_t rest = i, to = 0, step = 1;
      for (int axis = rank - 1; axis >= 0; --axis) {
        const int64_t place = rest % shape.dims[axis];
        rest /= shape.dims[axis];
        if (std::find(axes.begin(), axes.end(), axis) != axes.end()) continue;
        to += place * step;
        step *= shape.dims[axis];
      }
      sums[to] += x.data<float>()[i];
    }
    std::copy(sums.begin(), sums.end(), expected.begin());
    const Tensor y = run("Sum", {x}, [&](Attributes& a) { a.set("axis", axes); })[0];
    CHECK(y.shape == result);
    CHECK_CLOSE(floats(y), expected, 2e-6);
  }
}

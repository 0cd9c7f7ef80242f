// Kernels whose threads meet, and those with tails, under every schedule that the emulator knows.
#include <doctest/doctest.h>

#include "cuda/dispatch.h"
#include "cuda/kernels.h"
#include "schedules.h"

using namespace td;
using namespace td::cuda;

namespace {

Tensor run(const char* name, std::vector<Tensor> inputs, std::vector<std::pair<const char*, Attributes::Value>> attributes = {}, size_t output = 0) {
  Registry& registry = Registry::instance();
  if (registry.find("TopK") < 0) register_movement(registry), register_reduction(registry), register_indexing(registry), register_resize(registry);
  Call call;
  call.inputs = std::move(inputs);
  for (auto& [key, value] : attributes) call.attributes.set(key, value);
  registry.run(registry.find(name), call);
  return call.outputs.at(output);
}

template <class T>
std::vector<T> fetched(const Tensor& x) {
  std::vector<T> result(x.elements());
  fetch(x.raw(), result.data(), x.bytes());
  return result;
}

/// Small whole numbers, exact in every sum.
std::vector<float> whole_numbers(int64_t count, int period = 17) {
  std::vector<float> result(count);
  for (int64_t i = 0; i < count; ++i) result[i] = float(i * 7 % period - period / 2);
  return result;
}
Tensor tensor(const Shape& shape, const std::vector<float>& numbers) { return upload_tensor(DType::f32, shape, numbers.data()); }

}  // namespace

TEST_CASE("matrices are transposed in squares, with tails, in a batch, for numbers of every size") {
  for (const auto& [rows, columns] : {std::pair<int, int>{70, 45}, {32, 64}, {8, 129}, {9, 8}}) {
    std::vector<float> numbers(3 * rows * columns);
    for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = float(i % 120);
    for (DType type : {DType::f32, DType::f16, DType::i32}) {
      test::for_each_schedule([&, rows = rows, columns = columns] {
        const Tensor x = as_type(tensor({3, rows, columns}, numbers), type);
        const std::vector<float> y = fetched<float>(as_type(run("Transpose", {x}, {{"perm", std::vector<double>{0, 2, 1}}}), DType::f32));
        bool same = true;
        for (int b = 0; b < 3; ++b) {
          for (int c = 0; c < columns; ++c) {
            for (int r = 0; r < rows; ++r) same = same && y[(b * columns + c) * rows + r] == numbers[(b * rows + r) * columns + c];
          }
        }
        CHECK(same);
      });
    }
  }
}

TEST_CASE("rows and columns are reduced by many threads, and by many blocks where they are long") {
  for (const int n : {1, 31, 33, 1000, 40000}) {
    const std::vector<float> numbers = whole_numbers(2 * n);
    const Tensor rows = tensor({2, n}, numbers);
    double sums[2] = {}, most[2] = {-1e9, -1e9};
    for (int i = 0; i < 2 * n; ++i) {
      sums[i / n] += numbers[i];
      most[i / n] = std::max<double>(most[i / n], numbers[i]);
    }
    const std::vector<double> last{1}, first{0};
    test::for_each_schedule([&] {
      CAPTURE(n);
      const Tensor columns = run("Transpose", {rows}, {{"perm", std::vector<double>{1, 0}}});
      for (int r = 0; r < 2; ++r) {
        CHECK(fetched<float>(run("Sum", {rows}, {{"axis", last}}))[r] == sums[r]);
        CHECK(fetched<float>(run("Max", {rows}, {{"axis", last}}))[r] == most[r]);
        CHECK(fetched<float>(run("Sum", {columns}, {{"axis", first}}))[r] == sums[r]);
        CHECK(fetched<float>(run("Max", {columns}, {{"axis", first}}))[r] == most[r]);
      }
    });
  }
}

TEST_CASE("the first of equal numbers is the largest, whichever lane holds it") {
  std::vector<float> numbers = whole_numbers(300, 50);
  for (int place : {0, 1, 31, 32, 33, 150, 299}) {
    std::vector<float> given = numbers;
    for (int i = place; i < 300; i += 31) given[i] = 1000;
    test::for_each_schedule([&] { CHECK(fetched<int32_t>(run("ArgMax", {tensor({300}, given)}, {{"axis", std::vector<double>{0}}}))[0] == place); });
  }
  numbers[0] = NAN;
  CHECK(fetched<int32_t>(run("ArgMin", {tensor({300}, numbers)}, {{"axis", std::vector<double>{0}}}))[0] == 0);
}

TEST_CASE("the k largest in their order, equal ones by their place, NaN last") {
  const std::vector<float> numbers{3, NAN, 7, 7, -1, 3, INFINITY, 0};
  test::for_each_schedule([&] {
    const Tensor x = tensor({8}, numbers);
    CHECK(fetched<int32_t>(run("TopK", {x}, {{"k", 8.0}}, 1)) == std::vector<int32_t>{6, 2, 3, 0, 5, 7, 4, 1});
    CHECK(fetched<float>(run("TopK", {x}, {{"k", 3.0}})) == std::vector<float>{INFINITY, 7, 7});
  });
}

TEST_CASE("the gradient of nearest enlargement gathers what the enlargement spread, at every ratio") {
  for (const auto& [in, out] : {std::pair<int, int>{4, 8}, {5, 13}, {7, 3}, {1, 6}, {6, 6}, {3, 100}}) {
    for (int mode = 0; mode < 3; ++mode) {
      const std::vector<std::pair<const char*, Attributes::Value>> how{
          {"size", std::vector<double>{double(out), double(out)}}, {"alignCorners", mode == 1}, {"halfPixelCenters", mode == 2}};
      CAPTURE(in);
      CAPTURE(out);
      CAPTURE(mode);
      const std::vector<float> numbers = whole_numbers(in * in), dy = whole_numbers(out * out);
      const Tensor x = tensor({1, in, in, 1}, numbers);
      const std::vector<float> y = fetched<float>(run("ResizeNearestNeighbor", {x}, how));
      const std::vector<float> dx = fetched<float>(run("ResizeNearestNeighborGrad", {x, tensor({1, out, out, 1}, dy)}, how));
      double forward = 0, backward = 0;  // <resize(x), dy> = <x, gradient(dy)>
      for (int i = 0; i < out * out; ++i) forward += double(y[i]) * dy[i];
      for (int i = 0; i < in * in; ++i) backward += double(numbers[i]) * dx[i];
      CHECK(forward == backward);
    }
  }
}

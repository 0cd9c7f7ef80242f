#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdlib>

#include "core/device.h"
#include "cpu/convert.h"
#include "test/check.h"

namespace check {

std::mt19937& generator() {
  // Another seed tries other inputs: TFJS_DIFFUSERS_TEST_SEED=8 build/cmake/native_tests
  const char* seed = std::getenv("TFJS_DIFFUSERS_TEST_SEED");
  static std::mt19937 instance(seed ? static_cast<uint32_t>(std::strtoul(seed, nullptr, 10)) : 7);
  return instance;
}

int64_t random_integer(int64_t from, int64_t to) { return std::uniform_int_distribution<int64_t>(from, to)(generator()); }

td::Tensor random_tensor(const td::Shape& shape, td::DType type, float scale) {
  td::Tensor x = td::Tensor::empty(td::DType::f32, shape);
  std::normal_distribution<float> normal(0.0f, scale);
  for (int64_t i = 0; i < x.elements(); ++i) x.mutable_data<float>()[i] = normal(generator());
  return td::as_type(x, type);
}

std::vector<float> floats(const td::Tensor& tensor) {
  const td::Tensor x = td::as_type(tensor, td::DType::f32);
  return {x.data<float>(), x.data<float>() + x.elements()};
}

double relative_error(const std::vector<float>& actual, const std::vector<float>& expected) {
  if (actual.size() != expected.size()) return INFINITY;
  double difference = 0, norm = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    difference += std::pow(static_cast<double>(actual[i]) - expected[i], 2);
    norm += std::pow(static_cast<double>(expected[i]), 2);
  }
  return std::sqrt(norm == 0 ? difference : difference / norm);
}

std::vector<td::Tensor> run(const char* kernel, const std::vector<td::Tensor>& inputs,
                            const std::function<void(td::Attributes&)>& set) {
  td::Call call;
  call.inputs = inputs;
  set(call.attributes);
  const td::Registry& registry = td::Registry::instance();
  registry.run(registry.find(kernel), call);
  return call.outputs;
}

std::string failure(const std::function<void()>& work) {
  try {
    work();
  } catch (const td::KernelError& error) {
    return error.what();
  } catch (const td::OutOfMemory& error) {
    return error.what();
  }
  return "";
}

}  // namespace check

int main(int argc, char** argv) {
  td::device().register_kernels(td::Registry::instance());
  return doctest::Context(argc, argv).run();
}

#include <cmath>

#include "cuda/dispatch.h"
#include "cuda/kernels.h"

namespace td::cuda {
namespace {

DType logical(const std::string& name) {
  if (name == "float32") return DType::f32;
  if (name == "int32") return DType::i32;
  if (name == "bool") return DType::boolean;
  fail("does not know dtype ", name);
}

void fill_kernel(Call& call) {
  Tensor y = Tensor::empty(logical(call.attributes.text("dtype")), call.attributes.shape("shape"));
  const double value = call.attributes.number("value");
  require(y.dtype() != DType::i32 || std::isfinite(value), "int32 cannot hold ", value);
  fill(y, value);
  call.outputs.push_back(y);
}

template <int value>
void filled_like(Call& call) {
  fill(call.output(call.input(0).dtype(), call.input(0).shape), value);
}

template <class T>
Tensor range_of(DType type, double start, double step, int64_t count) {
  std::vector<T> numbers(count);
  double value = start;
  for (T& number : numbers) {
    value = number = static_cast<T>(value);
    value += step;
  }
  return upload_tensor(type, {count}, numbers.data());
}

/// start, start + step, ... below stop (above it with a negative step), each from the one before, as tfjs's own kernels do: short and
/// sequential, so the host makes it.
void range(Call& call) {
  const double start = call.attributes.number("start"), stop = call.attributes.number("stop");
  double step = call.attributes.number("step", 1);
  const DType type = logical(call.attributes.text("dtype", "float32"));
  const bool empty = start == stop || (start < stop && step < 0) || (stop < start && step > 1);
  const double count = empty ? 0 : std::fabs(std::ceil((stop - start) / step));
  require(std::isfinite(start) && std::isfinite(step) && count < (1 << 30), "cannot hold the numbers from ", start, " to ", stop,
          " in steps of ", step);
  require(type != DType::i32 || (std::fabs(start) < 2147483648.0 && std::fabs(stop) < 2147483648.0), "int32 cannot hold ", start,
          " to ", stop);
  if (stop < start && step == 1) step = -1;
  const int64_t length = static_cast<int64_t>(count);
  const Tensor y = type == DType::i32 ? range_of<int32_t>(type, start, step, length) : range_of<float>(DType::f32, start, step, length);
  call.outputs.push_back(as_type(y, type));
}

}  // namespace

void register_creation(Registry& registry) {
  registry.add("Fill", fill_kernel);
  registry.add("Range", range);
  registry.add("ZerosLike", filled_like<0>);
  registry.add("OnesLike", filled_like<1>);
}

}  // namespace td::cuda

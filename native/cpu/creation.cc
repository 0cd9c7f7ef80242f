#include <cmath>
#include <cstring>

#include "core/kernel.h"
#include "cpu/convert.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace td {
namespace {

void fill_with(Tensor& y, double value) {
  if (value == 0.0 && !std::signbit(value)) {
    char* out = y.mutable_data<char>();
    parallel_for(static_cast<int64_t>(y.bytes()), kSerial * 16,
                 [&](int64_t begin, int64_t end) { std::memset(out + begin, 0, end - begin); });
    return;
  }
  if (y.dtype() == DType::i32) {
    std::fill_n(y.mutable_data<int32_t>(), y.elements(), static_cast<int32_t>(static_cast<int64_t>(value)));
  } else if (y.dtype() == DType::boolean) {
    std::fill_n(y.mutable_data<uint8_t>(), y.elements(), value != 0.0);
  } else if (y.dtype() == DType::f32) {
    float* out = y.mutable_data<float>();
    const float v = static_cast<float>(value);
    parallel_for(y.elements(), kSerial * 4, [&](int64_t begin, int64_t end) { std::fill(out + begin, out + end, v); });
  } else {
    const float v = static_cast<float>(value);
    uint16_t bits;
    convert(DType::f32, &v, y.dtype(), &bits, 1);
    std::fill_n(y.mutable_data<uint16_t>(), y.elements(), bits);
  }
}

DType logical(const std::string& name) {
  if (name == "float32") return DType::f32;
  if (name == "int32") return DType::i32;
  if (name == "bool") return DType::boolean;
  fail("does not know dtype ", name);
}

void fill(Call& call) {
  Tensor y = Tensor::empty(logical(call.attributes.text("dtype")), call.attributes.shape("shape"));
  const double value = call.attributes.number("value");
  require(y.dtype() != DType::i32 || std::isfinite(value), "int32 cannot hold ", value);
  fill_with(y, value);
  call.outputs.push_back(y);
}

void zeros_like(Call& call) { fill_with(call.output(call.input(0).dtype(), call.input(0).shape), 0); }
void ones_like(Call& call) { fill_with(call.output(call.input(0).dtype(), call.input(0).shape), 1); }

/// start, start + step, ... below stop (above it with a negative step), each from the one before, as tfjs's own kernels do.
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
  Tensor y = Tensor::empty(type == DType::i32 ? type : DType::f32, {static_cast<int64_t>(count)});
  double value = start;
  for (int64_t i = 0; i < y.elements(); ++i, value += step) {
    if (type == DType::i32) {
      value = y.mutable_data<int32_t>()[i] = static_cast<int32_t>(value);
    } else {
      value = y.mutable_data<float>()[i] = static_cast<float>(value);
    }
  }
  call.outputs.push_back(type == DType::boolean ? as_type(y, type) : y);
}

/// diffusers/models/embeddings.py, get_timestep_embedding
void timestep_embedding(Call& call) {
  const Tensor timesteps = as_type(call.input(0), DType::f32);
  require(timesteps.shape.rank == 1, "expects timesteps [batch]");
  const int64_t dim = call.attributes.integer("dim"), half = dim / 2;
  require(dim > 0 && dim < (1 << 24), "dim must be positive, got ", dim);
  const bool flip = call.attributes.flag("flipSinToCos");
  const double shift = call.attributes.number("downscaleFreqShift", 1), period = call.attributes.number("maxPeriod", 10000);
  const float scale = static_cast<float>(call.attributes.number("scale", 1));
  Tensor& y = call.output(DType::f32, {timesteps.shape[0], dim});
  float* out = y.mutable_data<float>();
  for (int64_t row = 0; row < timesteps.shape[0]; ++row, out += dim) {
    if (dim % 2) out[dim - 1] = 0.0f;
    for (int64_t i = 0; i < half; ++i) {
      const float exponent = static_cast<float>(static_cast<float>(-std::log(period) * i) / (half - shift));
      const float frequency = static_cast<float>(std::exp(static_cast<double>(exponent)));
      const float angle = timesteps.data<float>()[row] * frequency * scale;
      out[flip ? half + i : i] = std::sin(angle);
      out[flip ? i : half + i] = std::cos(angle);
    }
  }
}

}  // namespace

void register_creation(Registry& registry) {
  registry.add("Fill", fill);
  registry.add("Range", range);
  registry.add("ZerosLike", zeros_like);
  registry.add("OnesLike", ones_like);
  registry.add("TimestepEmbedding", timestep_embedding);
}

}  // namespace td

#include <cmath>
#include <cstring>

#include "core/kernel.h"
#include "cpu/convert.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/simd/loops.h"

namespace td {
namespace {

const float* check_affine(const Tensor& parameter, const char* name, int64_t channels) {
  require(is_float(parameter.dtype()) && parameter.elements() == channels, name, " needs ", channels, " numbers");
  return parameter.data<float>();
}

/// Two passes over the pixels: moments of every channel about its first pixel, joined per group in double precision, then
/// scale, offset and SiLU.
void group_norm(Call& call) {
  enum : size_t { kX, kGamma, kBeta };
  const Tensor& x = call.input(kX);
  require(is_float(x.dtype()) && x.shape.rank >= 2, "expects x [batch, ..., channels] of dtype float32");
  const int64_t channels = x.shape[-1], batch = x.shape[0], groups = call.attributes.integer("groups");
  require(groups > 0 && channels % groups == 0, groups, " groups do not divide ", channels, " channels");
  const double epsilon = call.attributes.number("epsilon", 1e-5);
  const std::string activation = call.attributes.text("activation", "linear");
  require(activation == "linear" || activation == "silu", "activation must be linear or silu, got ", activation);
  const Tensor gamma = as_type(call.input(kGamma), DType::f32), beta = as_type(call.input(kBeta), DType::f32);
  const float *g = check_affine(gamma, "gamma", channels), *b = check_affine(beta, "beta", channels);
  Tensor& y = call.output(x.dtype(), x.shape);
  if (x.elements() == 0) return;
  const int64_t pixels = x.elements() / batch / channels, size = size_of(x.dtype());
  const simd::Loops& loops = simd::loops();
  const DType type = x.dtype();
  const char* in = x.data<char>();
  char* out = y.mutable_data<char>();

  const int64_t rows = std::min<int64_t>(256, std::max<int64_t>(1, kSerial / channels));
  const int64_t pieces = (pixels + rows - 1) / rows;
  Buffer moments(static_cast<size_t>(batch * pieces * channels) * 2 * sizeof(float));
  Buffer table(static_cast<size_t>(batch * channels) * 3 * sizeof(float));
  float* sums = static_cast<float*>(moments.data());
  float* shifts = static_cast<float*>(table.data());
  float *scales = shifts + batch * channels, *offsets = scales + batch * channels;
  for (int64_t n = 0; n < batch; ++n) loops.to_f32(type, in + n * pixels * channels * size, shifts + n * channels, channels);
  // A shift that is not finite would hide which numbers are.
  for (int64_t i = 0; i < batch * channels; ++i)
    if (!std::isfinite(shifts[i])) shifts[i] = 0.0f;
  parallel_for(batch * pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t n = item / pieces, first = item % pieces * rows, count = std::min(rows, pixels - first);
      float* sum = sums + item * 2 * channels;
      std::memset(sum, 0, 2 * channels * sizeof(float));
      loops.channel_moments(type, in + (n * pixels + first) * channels * size, count, channels, shifts + n * channels, sum,
                            sum + channels);
    }
  });
  const int64_t width = channels / groups;
  parallel_for(batch * groups, std::max<int64_t>(1, kSerial / (width * pieces)), [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t n = item / groups, first = item % groups * width;
      double mean = 0;
      const auto channel = [&](int64_t c, double* average, double* spread) {
        double sum = 0, square = 0;
        for (int64_t piece = 0; piece < pieces; ++piece) {
          const float* from = sums + (n * pieces + piece) * 2 * channels;
          sum += from[c];
          square += from[channels + c];
        }
        const double shifted = sum / pixels;
        *average = shifts[n * channels + c] + shifted;
        *spread = square - sum * shifted;
      };
      double average, spread, variance = 0;
      for (int64_t c = first; c < first + width; ++c) {
        channel(c, &average, &spread);
        mean += average / width;
      }
      for (int64_t c = first; c < first + width; ++c) {
        channel(c, &average, &spread);
        variance += spread / pixels + (average - mean) * (average - mean);
      }
      const double scale = 1.0 / std::sqrt(variance / width + epsilon);
      for (int64_t c = first; c < first + width; ++c) {
        scales[n * channels + c] = static_cast<float>(g[c] * scale);
        offsets[n * channels + c] = static_cast<float>(b[c] - mean * g[c] * scale);
      }
    }
  });
  const bool silu = activation == "silu";
  parallel_for(batch * pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t n = item / pieces, first = item % pieces * rows, count = std::min(rows, pixels - first);
      const int64_t at = (n * pixels + first) * channels * size;
      loops.channel_affine(type, in + at, out + at, count, channels, scales + n * channels, offsets + n * channels, silu);
    }
  });
}

/// Rows of the last axis, each by `normalize(x, y, channels, scratch)`.
template <typename Normalize>
void normalize_rows(const Tensor& x, Tensor& y, const Normalize& normalize) {
  if (x.elements() == 0) return;
  const int64_t channels = x.shape[-1];
  const size_t bytes = channels * size_of(x.dtype());
  const char* in = x.data<char>();
  char* out = y.mutable_data<char>();
  Buffer scratch(static_cast<size_t>(omp_get_max_threads()) * channels * sizeof(float));
  parallel_for(x.elements() / channels, std::max<int64_t>(1, kSerial / channels), [&](int64_t begin, int64_t end) {
    float* row = static_cast<float*>(scratch.data()) + omp_get_thread_num() * channels;
    for (int64_t i = begin; i < end; ++i) normalize(in + i * bytes, out + i * bytes, channels, row);
  });
}

const Tensor& check_rows(const Tensor& x) {
  require(is_float(x.dtype()) && x.shape.rank >= 1, "expects x [..., channels] of dtype float32");
  return x;
}

void layer_norm(Call& call) {
  enum : size_t { kX, kGamma, kBeta };
  const Tensor& x = check_rows(call.input(kX));
  const float epsilon = static_cast<float>(call.attributes.number("epsilon", 1e-5));
  const Tensor gamma = as_type(call.input(kGamma), DType::f32), beta = as_type(call.input(kBeta), DType::f32);
  const float *g = check_affine(gamma, "gamma", x.shape[-1]), *b = check_affine(beta, "beta", x.shape[-1]);
  const simd::Loops& loops = simd::loops();
  normalize_rows(x, call.output(x.dtype(), x.shape), [&](const char* in, char* out, int64_t channels, float* row) {
    loops.layer_norm_row(x.dtype(), in, g, b, out, channels, epsilon, row);
  });
}

/// Gamma may be absent.
void rms_norm(Call& call) {
  enum : size_t { kX, kGamma };
  const Tensor& x = check_rows(call.input(kX));
  const float epsilon = static_cast<float>(call.attributes.number("epsilon", 1e-6));
  const Tensor& given = call.optional(kGamma);
  const Tensor gamma = given ? as_type(given, DType::f32) : given;
  const float* g = gamma ? check_affine(gamma, "gamma", x.shape[-1]) : nullptr;
  const simd::Loops& loops = simd::loops();
  normalize_rows(x, call.output(x.dtype(), x.shape), [&](const char* in, char* out, int64_t channels, float* row) {
    loops.rms_norm_row(x.dtype(), in, g, out, channels, epsilon, row);
  });
}

}  // namespace

void register_normalization(Registry& registry) {
  registry.add("GroupNorm", group_norm);
  registry.add("LayerNorm", layer_norm);
  registry.add("RmsNorm", rms_norm);
}

}  // namespace td

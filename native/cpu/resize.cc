#include <cmath>
#include <cstring>

#include "core/kernel.h"
#include "cpu/convert.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/simd/loops.h"

namespace td {
namespace {

struct Resize {
  int64_t batch, in_height, in_width, out_height, out_width, channels;
  bool align, half_pixel;
  float height_scale, width_scale;

  Resize(const Shape& small, int64_t height, int64_t width, const Attributes& attributes)
      : batch(small[0]), in_height(small[1]), in_width(small[2]), out_height(height), out_width(width), channels(small[3]),
        align(attributes.flag("alignCorners")), half_pixel(attributes.flag("halfPixelCenters")) {
    height_scale = scale(in_height, out_height);
    width_scale = scale(in_width, out_width);
  }
  float scale(int64_t in, int64_t out) const {
    return align && out > 1 ? static_cast<float>(in - 1) / static_cast<float>(out - 1)
                            : static_cast<float>(in) / static_cast<float>(out);
  }
  int64_t nearest(int64_t at, float scale, int64_t limit) const {
    const float place = half_pixel ? scale * (static_cast<float>(at) + 0.5f) : scale * static_cast<float>(at);
    const int64_t index = static_cast<int64_t>(align ? std::round(place) : std::floor(place));
    return std::min(limit - 1, half_pixel ? std::max<int64_t>(0, index) : index);
  }
};

std::vector<int64_t> size_of_result(const Call& call) {
  const std::vector<int64_t> size = call.attributes.integers("size");
  require(size.size() == 2 && size[0] > 0 && size[1] > 0, "size must be [height, width]");
  return size;
}

void resize_nearest(Call& call) {
  const Tensor& x = call.input(0);
  require(x.shape.rank == 4, "expects images [batch, height, width, channels]");
  const std::vector<int64_t> size = size_of_result(call);
  const Resize r(x.shape, size[0], size[1], call.attributes);
  Tensor& y = call.output(x.dtype(), {r.batch, r.out_height, r.out_width, r.channels});
  if (y.elements() == 0) return;
  require(x.elements() > 0 || y.elements() == 0, "cannot enlarge an empty image");
  const size_t bytes = r.channels * size_of(x.dtype());
  const char* in = x.data<char>();
  char* out = y.mutable_data<char>();
  parallel_for(r.batch * r.out_height, std::max<int64_t>(1, kSerial / std::max<int64_t>(1, r.out_width * r.channels)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t row = begin; row < end; ++row) {
                   const int64_t source = r.nearest(row % r.out_height, r.height_scale, r.in_height);
                   const char* from = in + (row / r.out_height * r.in_height + source) * r.in_width * bytes;
                   char* to = out + row * r.out_width * bytes;
                   for (int64_t i = 0; i < r.out_width; ++i, to += bytes)
                     std::memcpy(to, from + r.nearest(i, r.width_scale, r.in_width) * bytes, bytes);
                 }
               });
}

/// inputs images, dy
void resize_nearest_gradient(Call& call) {
  const Tensor &images = call.input(0), dy = as_type(call.input(1), DType::f32);
  require(images.shape.rank == 4 && dy.shape.rank == 4, "expects images and dy of rank 4");
  require(dy.shape[0] == images.shape[0] && dy.shape[3] == images.shape[3], "dy ", dy.shape, " differs from images ",
          images.shape, " in batch or channels");
  require(images.elements() > 0 || dy.elements() == 0, "cannot enlarge an empty image");
  const Resize r(images.shape, dy.shape[1], dy.shape[2], call.attributes);
  const simd::Loops& loops = simd::loops();
  Tensor dx = Tensor::empty(DType::f32, images.shape);
  float* out = dx.mutable_data<float>();
  const float* in = dy.data<float>();
  std::memset(out, 0, dx.bytes());
  parallel_for(r.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin * r.out_height; row < end * r.out_height; ++row) {
      const int64_t target = r.nearest(row % r.out_height, r.height_scale, r.in_height);
      float* to = out + (row / r.out_height * r.in_height + target) * r.in_width * r.channels;
      for (int64_t i = 0; i < r.out_width; ++i)
        loops.reduce_into(simd::Reduce::sum, in + (row * r.out_width + i) * r.channels,
                          to + r.nearest(i, r.width_scale, r.in_width) * r.channels, r.channels);
    }
  });
  call.outputs.push_back(as_type(dx, call.input(1).dtype()));
}

struct Blend {
  int64_t low, high;
  float weight;
};

Blend blend(const Resize& r, int64_t at, float scale, int64_t limit) {
  float place = r.half_pixel ? scale * (static_cast<float>(at) + 0.5f) - 0.5f : scale * static_cast<float>(at);
  place = std::max(place, 0.0f);
  const int64_t low = std::min(limit - 1, static_cast<int64_t>(std::floor(place)));
  const int64_t high = std::min(limit - 1, static_cast<int64_t>(std::ceil(place)));
  return {low, high, place - static_cast<float>(low)};
}

void resize_bilinear(Call& call) {
  const Tensor x = as_type(call.input(0), DType::f32);
  require(x.shape.rank == 4, "expects images [batch, height, width, channels]");
  const std::vector<int64_t> size = size_of_result(call);
  const Resize r(x.shape, size[0], size[1], call.attributes);
  Tensor y = Tensor::empty(DType::f32, {r.batch, r.out_height, r.out_width, r.channels});
  if (y.elements() == 0) {
    call.outputs.push_back(y);
    return;
  }
  require(x.elements() > 0 || y.elements() == 0, "cannot enlarge an empty image");
  const float* in = x.data<float>();
  float* out = y.mutable_data<float>();
  parallel_for(r.batch * r.out_height, std::max<int64_t>(1, kSerial / std::max<int64_t>(1, r.out_width * r.channels)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t row = begin; row < end; ++row) {
                   const Blend v = blend(r, row % r.out_height, r.height_scale, r.in_height);
                   const float* image = in + row / r.out_height * r.in_height * r.in_width * r.channels;
                   const float* above = image + v.low * r.in_width * r.channels;
                   const float* below = image + v.high * r.in_width * r.channels;
                   float* to = out + row * r.out_width * r.channels;
                   for (int64_t i = 0; i < r.out_width; ++i, to += r.channels) {
                     const Blend h = blend(r, i, r.width_scale, r.in_width);
                     for (int64_t c = 0; c < r.channels; ++c) {
                       const float top_left = above[h.low * r.channels + c], top_right = above[h.high * r.channels + c];
                       const float low_left = below[h.low * r.channels + c], low_right = below[h.high * r.channels + c];
                       const float top = top_left + (top_right - top_left) * h.weight;
                       const float low = low_left + (low_right - low_left) * h.weight;
                       to[c] = top + (low - top) * v.weight;
                     }
                   }
                 }
               });
  call.outputs.push_back(is_float(call.input(0).dtype()) ? as_type(y, call.input(0).dtype()) : y);
}

}  // namespace

void register_resize(Registry& registry) {
  registry.add("ResizeNearestNeighbor", resize_nearest);
  registry.add("ResizeNearestNeighborGrad", resize_nearest_gradient);
  registry.add("ResizeBilinear", resize_bilinear);
}

}  // namespace td

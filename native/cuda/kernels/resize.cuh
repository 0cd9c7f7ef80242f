// Images [batch, height, width, channels] made larger or smaller.
#pragma once
#include "strided.cuh"

namespace td::cuda {

/// How one axis of the small grid lies under the large one.
struct ResizeAxis {
  int64_t in, out;
  float scale;
  bool align, half_pixel;

  __device__ __forceinline__ int64_t nearest(int64_t at) const {
    const float place = half_pixel ? scale * (float(at) + 0.5f) : scale * float(at);
    const int64_t index = int64_t(align ? roundf(place) : floorf(place));
    return min(in - 1, half_pixel ? max(int64_t(0), index) : index);
  }
};
struct Blend {
  int64_t low, high;
  float weight;
};
__device__ __forceinline__ Blend blend(const ResizeAxis& axis, int64_t at) {
  float place = axis.half_pixel ? axis.scale * (float(at) + 0.5f) - 0.5f : axis.scale * float(at);
  place = fmaxf(place, 0.f);
  const int64_t low = min(axis.in - 1, int64_t(floorf(place))), high = min(axis.in - 1, int64_t(ceilf(place)));
  return {low, high, place - float(low)};
}

template <class Bits>
__global__ void resize_nearest_kernel(const Bits* x, Bits* y, int64_t n, ResizeAxis height, ResizeAxis width, int64_t channels) {
  const int64_t i = global_thread();
  if (i >= n) return;
  const int64_t c = i % channels, column = i / channels % width.out, row = i / channels / width.out % height.out;
  const int64_t image = i / channels / width.out / height.out;
  y[i] = x[((image * height.in + height.nearest(row)) * width.in + width.nearest(column)) * channels + c];
}

/// The range of places of the large grid that may fall on `at`.
struct Window {
  int64_t first, last;
};
__device__ __forceinline__ Window window_of(const ResizeAxis& axis, int64_t at) {
  const float center = float(at) / axis.scale, reach = 1.f / axis.scale + 2.f;
  // The last place of the small grid also takes what would fall beyond it.
  const int64_t last = at == axis.in - 1 ? axis.out - 1 : min(axis.out - 1, int64_t(center + reach));
  return {max(int64_t(0), int64_t(center - reach)), last};
}
/// A thread sums what falls on its number, in a fixed order.
__global__ void resize_nearest_gradient_kernel(const float* dy, float* dx, int64_t n, ResizeAxis height, ResizeAxis width, int64_t channels) {
  const int64_t i = global_thread();
  if (i >= n) return;
  const int64_t c = i % channels, column = i / channels % width.in, row = i / channels / width.in % height.in;
  const int64_t image = i / channels / width.in / height.in;
  const Window rows = window_of(height, row), columns = window_of(width, column);
  float sum = 0.f;
  for (int64_t h = rows.first; h <= rows.last; ++h) {
    if (height.nearest(h) != row) continue;
    for (int64_t w = columns.first; w <= columns.last; ++w) {
      if (width.nearest(w) == column) sum += dy[((image * height.out + h) * width.out + w) * channels + c];
    }
  }
  dx[i] = sum;
}

__global__ void resize_bilinear_kernel(const float* x, float* y, int64_t n, ResizeAxis height, ResizeAxis width, int64_t channels) {
  const int64_t i = global_thread();
  if (i >= n) return;
  const int64_t c = i % channels, column = i / channels % width.out, row = i / channels / width.out % height.out;
  const float* image = x + i / channels / width.out / height.out * height.in * width.in * channels + c;
  const Blend v = blend(height, row), h = blend(width, column);
  const auto at = [&](int64_t a, int64_t b) { return image[(a * width.in + b) * channels]; };
  const float top = at(v.low, h.low) + (at(v.low, h.high) - at(v.low, h.low)) * h.weight;
  const float low = at(v.high, h.low) + (at(v.high, h.high) - at(v.high, h.low)) * h.weight;
  y[i] = top + (low - top) * v.weight;
}

}  // namespace td::cuda

// Convolutions of N,H,W,C images with H,W,I,O filters as matrix products whose operands are gathered while they are loaded (implicit
// GEMM): forward, gradient of the input, gradient of the filter. Nothing is unrolled in memory, and filters stay as they are.
#pragma once
#include "product_float32.cuh"

namespace td::cuda {

struct ConvolutionShape {
  int batch, height, width, in;  // of the input; as enlarged
  int out_height, out_width, out;
  int filter_height, filter_width, stride_h, stride_w, dilation_h, dilation_w, top, left;
  int enlarge;  // binary logarithm of the factor by which pixels of the input repeat
};

struct ConvolutionArguments {
  const void *image, *filter;  // input and filter; dy and filter; input and dy
  bool image_aligned, filter_aligned;
  ConvolutionShape shape;
  bool phases;  // four filters of 2 x 2, one for each place in the squares of an output of twice the size
  Epilogue epilogue;
  Partial partial;
};

/// Steps along k go through the taps of the filter and, within a tap, the channels.
struct TapStep {
  int y, x, tap, channel;
};
__device__ __forceinline__ TapStep tap_step(const ConvolutionShape& s, int channels, int i, int size) {
  const int chunks = (channels + size - 1) / size, tap = i / chunks;
  return {tap / s.filter_width * s.dilation_h, tap % s.filter_width * s.dilation_w, tap, i % chunks * size};
}

template <class T>
constexpr int kVectorOf = 16 / sizeof(typename Stored<T>::type);

/// Forward, A: line = output pixel, k = channels of the input below a tap.
template <class T>
struct InputPixels {
  static constexpr bool kInnerK = true;
  using Number = typename Stored<T>::type;
  using Step = TapStep;
  struct Line {
    const Number* image;
    int y, x;
  };
  const Number* data;
  ConvolutionShape s;
  bool aligned;

  __device__ __forceinline__ Line line(int m) const {
    const int area = s.out_height * s.out_width, image = m / area, rest = m % area;
    if (image >= s.batch) return {data, -(1 << 28), 0};
    const int64_t size = int64_t(s.height >> s.enlarge) * (s.width >> s.enlarge) * s.in;
    return {data + image * size, rest / s.out_width * s.stride_h - s.top, rest % s.out_width * s.stride_w - s.left};
  }
  __device__ __forceinline__ Span at(const Line& line, const TapStep& step, int k) const {
    const int y = line.y + step.y, x = line.x + step.x, channel = step.channel + k;
    if (y < 0 || y >= s.height || x < 0 || x >= s.width || channel >= s.in) return {data, 0};
    const int64_t pixel = int64_t(y >> s.enlarge) * (s.width >> s.enlarge) + (x >> s.enlarge);
    return {line.image + pixel * s.in + channel, min(s.in - channel, kVectorOf<T>)};
  }
};

/// Gradient of the input, A: line = input pixel, k = channels of dy at the output pixel that saw it through a tap.
template <class T>
struct OutputPixels {
  static constexpr bool kInnerK = true;
  using Number = typename Stored<T>::type;
  using Step = TapStep;
  struct Line {
    const Number* image;
    int y, x;
  };
  const Number* data;
  ConvolutionShape s;
  bool aligned;

  __device__ __forceinline__ Line line(int m) const {
    const int area = s.height * s.width, image = m / area, rest = m % area;
    if (image >= s.batch) return {data, -(1 << 28), 0};
    return {data + int64_t(image) * s.out_height * s.out_width * s.out, rest / s.width + s.top, rest % s.width + s.left};
  }
  __device__ __forceinline__ Span at(const Line& line, const TapStep& step, int k) const {
    const int y = line.y - step.y, x = line.x - step.x, channel = step.channel + k;
    if (y < 0 || x < 0 || y % s.stride_h || x % s.stride_w || channel >= s.out) return {data, 0};
    if (y / s.stride_h >= s.out_height || x / s.stride_w >= s.out_width) return {data, 0};
    const int64_t pixel = int64_t(y / s.stride_h) * s.out_width + x / s.stride_w;
    return {line.image + pixel * s.out + channel, min(s.out - channel, kVectorOf<T>)};
  }
};

/// Forward, B: line = output channels; a row of k is one tap and input channel of the filter.
template <class T>
struct FilterColumns {
  static constexpr bool kInnerK = false;
  using Number = typename Stored<T>::type;
  using Step = TapStep;
  using Line = int;
  const Number* data;
  ConvolutionShape s;
  bool aligned;

  __device__ __forceinline__ Line line(int n) const { return n; }
  __device__ __forceinline__ Span at(int n, const TapStep& step, int k) const {
    const int channel = step.channel + k;
    if (n >= s.out || channel >= s.in) return {data, 0};
    return {data + (int64_t(step.tap) * s.in + channel) * s.out + n, min(s.out - n, kVectorOf<T>)};
  }
};

/// Gradient of the input, B: line = input channel, k = output channels.
template <class T>
struct FilterRows {
  static constexpr bool kInnerK = true;
  using Number = typename Stored<T>::type;
  using Step = TapStep;
  using Line = int;
  const Number* data;
  ConvolutionShape s;
  bool aligned;

  __device__ __forceinline__ Line line(int n) const { return n; }
  __device__ __forceinline__ Span at(int n, const TapStep& step, int k) const {
    const int channel = step.channel + k;
    if (n >= s.in || channel >= s.out) return {data, 0};
    return {data + (int64_t(step.tap) * s.in + n) * s.out + channel, min(s.out - channel, kVectorOf<T>)};
  }
};

/// Gradient of the filter, A: line = tap and input channel, the channels of a tap filled up to whole vectors; k = output pixels.
template <class T>
struct TapChannels {
  static constexpr bool kInnerK = false;
  using Number = typename Stored<T>::type;
  using Step = int;  // the first pixel
  struct Line {
    const Number* from;
    int y, x, valid;
  };
  const Number* data;
  ConvolutionShape s;
  bool aligned;

  static __device__ __forceinline__ int filled(int channels) { return (channels + kVectorOf<T> - 1) / kVectorOf<T> * kVectorOf<T>; }
  __device__ __forceinline__ Line line(int m) const {
    const int tap = m / filled(s.in), channel = m % filled(s.in), y = tap / s.filter_width, x = tap % s.filter_width;
    if (y >= s.filter_height) return {data, 0, 0, 0};
    return {data + channel, y * s.dilation_h - s.top, x * s.dilation_w - s.left, min(s.in - channel, kVectorOf<T>)};
  }
  __device__ __forceinline__ Span at(const Line& line, int first, int k) const {
    const int area = s.out_height * s.out_width, image = (first + k) / area, rest = (first + k) % area;
    const int y = rest / s.out_width * s.stride_h + line.y, x = rest % s.out_width * s.stride_w + line.x;
    if (image >= s.batch || y < 0 || y >= s.height || x < 0 || x >= s.width) return {data, 0};
    return {line.from + ((int64_t(image) * s.height + y) * s.width + x) * s.in, line.valid};
  }
};

/// Gradient of the filter, B: line = output channels, k = output pixels.
template <class T>
struct OutputChannels {
  static constexpr bool kInnerK = false;
  using Number = typename Stored<T>::type;
  using Step = int;
  using Line = int;
  const Number* data;
  ConvolutionShape s;
  bool aligned;

  __device__ __forceinline__ Line line(int n) const { return n; }
  __device__ __forceinline__ Span at(int n, int first, int k) const {
    if (n >= s.out || first + k >= s.batch * s.out_height * s.out_width) return {data, 0};
    return {data + int64_t(first + k) * s.out + n, min(s.out - n, kVectorOf<T>)};
  }
};

/// out[n, y, x, o] = sum of input[n, y s - top + i d, x s - left + j d, c] filter[i, j, c, o] over i, j, c.
template <class T>
struct ConvolutionForward {
  using Arguments = ConvolutionArguments;
  using A = InputPixels<T>;
  using B = FilterColumns<T>;
  A a;
  B b;
  Epilogue epilogue;
  ConvolutionShape s;
  int rows, phase;

  __device__ __forceinline__ ConvolutionForward(const Arguments& p, int batch) : epilogue(p.epilogue), s(p.shape), phase(p.phases ? batch : -1) {
    using Number = typename Stored<T>::type;
    int64_t filter = 0;
    if (phase >= 0) {
      s.top = 1 - phase / 2;
      s.left = 1 - phase % 2;
      filter = int64_t(phase) * 4 * s.in * s.out;
    }
    a = {static_cast<const Number*>(p.image), s, p.image_aligned};
    b = {static_cast<const Number*>(p.filter) + filter, s, p.filter_aligned};
    rows = s.batch * s.out_height * s.out_width;
  }
  __device__ __forceinline__ int steps(int size) const { return s.filter_height * s.filter_width * ((s.in + size - 1) / size); }
  __device__ __forceinline__ TapStep step(int i, int size) const { return tap_step(s, s.in, i, size); }
  __device__ __forceinline__ int64_t row(int m) const {
    if (m >= rows) return -1;
    if (phase < 0) return m;
    const int y = m / s.out_width, x = m % s.out_width;  // y counts the rows of all images
    return (int64_t(2 * y) + phase / 2) * 2 * s.out_width + 2 * x + phase % 2;
  }
};

template <class T>
struct ConvolutionInputGradient {
  using Arguments = ConvolutionArguments;
  using A = OutputPixels<T>;
  using B = FilterRows<T>;
  A a;
  B b;
  Epilogue epilogue;
  ConvolutionShape s;
  int rows;

  __device__ __forceinline__ ConvolutionInputGradient(const Arguments& p, int) : epilogue(p.epilogue), s(p.shape) {
    using Number = typename Stored<T>::type;
    a = {static_cast<const Number*>(p.image), s, p.image_aligned};
    b = {static_cast<const Number*>(p.filter), s, p.filter_aligned};
    rows = s.batch * s.height * s.width;
  }
  __device__ __forceinline__ int steps(int size) const { return s.filter_height * s.filter_width * ((s.out + size - 1) / size); }
  __device__ __forceinline__ TapStep step(int i, int size) const { return tap_step(s, s.out, i, size); }
  __device__ __forceinline__ int64_t row(int m) const { return m < rows ? m : -1; }
};

template <class T>
struct ConvolutionFilterGradient {
  using Arguments = ConvolutionArguments;
  using A = TapChannels<T>;
  using B = OutputChannels<T>;
  A a;
  B b;
  Epilogue epilogue;
  ConvolutionShape s;
  int rows;

  __device__ __forceinline__ ConvolutionFilterGradient(const Arguments& p, int) : epilogue(p.epilogue), s(p.shape) {
    using Number = typename Stored<T>::type;
    a = {static_cast<const Number*>(p.image), s, p.image_aligned};
    b = {static_cast<const Number*>(p.filter), s, p.filter_aligned};
    rows = s.filter_height * s.filter_width * A::filled(s.in);
  }
  __device__ __forceinline__ int steps(int size) const { return (s.batch * s.out_height * s.out_width + size - 1) / size; }
  __device__ __forceinline__ int step(int i, int size) const { return i * size; }
  __device__ __forceinline__ int64_t row(int m) const {
    const int tap = m / A::filled(s.in), channel = m % A::filled(s.in);
    return m < rows && channel < s.in ? int64_t(tap) * s.in + channel : -1;
  }
};

/// The 3 x 3 filter [9, count] after nearest-2x enlargement as four filters of 2 x 2 on the small image, [4, 2, 2, count]: output row
/// 2i + p sees rows i - 1 + p and i + p only, and the middle tap falls on one of them.
template <class T>
__global__ void __launch_bounds__(256) phase_filters_kernel(const typename Stored<T>::type* filter, typename Stored<T>::type* out, int64_t count) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int p = blockIdx.y / 8, q = blockIdx.y / 4 % 2, a = blockIdx.y / 2 % 2, b = blockIdx.y % 2;
  const int top = a == 0 ? 0 : 1 + p, bottom = a == 0 ? p : 2, left = b == 0 ? 0 : 1 + q, right = b == 0 ? q : 2;
  float sum = 0.f;
  for (int y = top; y <= bottom; ++y) {
    for (int x = left; x <= right; ++x) sum += Stored<T>::load(filter, (y * 3 + x) * count + i);
  }
  Stored<T>::store(out, blockIdx.y * count + i, sum);
}

}  // namespace td::cuda

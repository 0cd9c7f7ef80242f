// Group and layer normalisation, softmax, and the embedding of timesteps. Statistics are float32.
#pragma once
#include "epilogue.cuh"

namespace td::cuda {

/// x [batch, pixels, channels]; gamma and beta have a number per channel.
struct GroupNormArguments {
  const void* x;
  void* y;
  Offsets gamma, beta;
  int batch, pixels, channels, groups;
  float epsilon;
  bool silu;
  bool aligned;    // the channels of every pixel begin at a multiple of 16 bytes
  float* moments;  // [batch, pieces, channels, 2]
  float* affine;   // [batch, channels, 2]
  int pieces;      // of the pixels

  __device__ int width() const { return channels / groups; }
};

template <class T>
constexpr int kVector = 16 / sizeof(typename Stored<T>::type);

/// Numbers side by side as float32, those beyond `valid` zero.
template <class T>
__device__ __forceinline__ void load_vector(const typename Stored<T>::type* from, int valid, bool aligned, float (&v)[kVector<T>]) {
  if (aligned && valid == kVector<T>) return Packed<T, kVector<T>>::load(from, v);
#pragma unroll
  for (int i = 0; i < kVector<T>; ++i) v[i] = i < valid ? Stored<T>::load(from, i) : 0.f;
}
template <class T>
__device__ __forceinline__ void store_vector(typename Stored<T>::type* to, int valid, bool aligned, const float (&v)[kVector<T>]) {
  if (aligned && valid == kVector<T>) return Packed<T, kVector<T>>::store(to, v);
#pragma unroll
  for (int i = 0; i < kVector<T>; ++i) {
    if (i < valid) Stored<T>::store(to, i, v[i]);
  }
}

/// The sum over the threads of a block; every thread gets it. `scratch` holds a number per warp.
__device__ __forceinline__ float block_sum(float x, float* scratch) {
  x = warp_sum(x);
  __syncthreads();  // everyone has read the last sum
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0.f;
  for (int w = 0; w < int(blockDim.x) / 32; ++w) sum += scratch[w];
  return sum;
}

/// Sums are taken about one number of the group, so that a large mean costs no digits. One that is not finite would hide which are.
template <class T>
__device__ __forceinline__ float group_shift(const GroupNormArguments& p, int image, int group) {
  const float x = Stored<T>::load(static_cast<const typename Stored<T>::type*>(p.x), int64_t(image) * p.pixels * p.channels + group * p.width());
  return fabsf(x) < infinity() ? x : 0.f;
}

/// First of three: sums and sums of squares of every channel over one piece of the pixels. Threads own vectors of channels.
template <class T>
__global__ void __launch_bounds__(256) group_moments_kernel(const __grid_constant__ GroupNormArguments p) {
  using Number = typename Stored<T>::type;
  constexpr int V = kVector<T>;
  const int channel = (blockIdx.y * blockDim.x + threadIdx.x) * V, valid = min(p.channels - channel, V);
  const int piece = blockIdx.x % p.pieces, image = blockIdx.x / p.pieces;
  if (valid <= 0) return;
  const int each = (p.pixels + p.pieces - 1) / p.pieces, end = min((piece + 1) * each, p.pixels);
  float shift[V], sum[V], square[V];
#pragma unroll
  for (int i = 0; i < V; ++i) {
    shift[i] = group_shift<T>(p, image, min(channel + i, p.channels - 1) / p.width());
    sum[i] = square[i] = 0.f;
  }
  const Number* from = static_cast<const Number*>(p.x) + int64_t(image) * p.pixels * p.channels + channel;
  for (int pixel = piece * each; pixel < end; ++pixel) {
    float v[V];
    load_vector<T>(from + int64_t(pixel) * p.channels, valid, p.aligned, v);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float d = v[i] - shift[i];
      sum[i] += d;
      square[i] += d * d;
    }
  }
  float* to = p.moments + ((int64_t(image) * p.pieces + piece) * p.channels + channel) * 2;
  for (int i = 0; i < valid; ++i) {
    to[2 * i] = sum[i];
    to[2 * i + 1] = square[i];
  }
}

/// Second: scale and offset of every channel, one block per group of an image.
template <class T>
__global__ void __launch_bounds__(128) group_affine_kernel(const __grid_constant__ GroupNormArguments p) {
  TD_SHARED(float, scratch, 4);
  const int group = blockIdx.x % p.groups, image = blockIdx.x / p.groups, width = p.width(), first = group * width;
  const float* moments = p.moments + int64_t(image) * p.pieces * p.channels * 2;
  float sum = 0.f, square = 0.f;
  for (int i = threadIdx.x; i < p.pieces * width; i += blockDim.x) {
    const float* at = moments + (int64_t(i / width) * p.channels + first + i % width) * 2;
    sum += at[0];
    square += at[1];
  }
  sum = block_sum(sum, scratch);
  square = block_sum(square, scratch);
  const float count = float(p.pixels) * width, shifted = sum / count, mean = group_shift<T>(p, image, group) + shifted;
  const float variance = square / count - shifted * shifted;
  const float inverse = 1.f / sqrtf((variance < 0.f ? 0.f : variance) + p.epsilon);  // not a number stays one
  for (int c = first + threadIdx.x; c < first + width; c += blockDim.x) {
    const float scale = load_offset<T>(p.gamma, c) * inverse;
    p.affine[(int64_t(image) * p.channels + c) * 2] = scale;
    p.affine[(int64_t(image) * p.channels + c) * 2 + 1] = load_offset<T>(p.beta, c) - mean * scale;
  }
}

/// Third: y = silu(x scale + offset).
template <class T>
__global__ void __launch_bounds__(256) group_apply_kernel(const __grid_constant__ GroupNormArguments p) {
  using Number = typename Stored<T>::type;
  constexpr int V = kVector<T>;
  const int vectors = (p.channels + V - 1) / V;
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, pixel = i / vectors;
  if (pixel >= int64_t(p.batch) * p.pixels) return;
  const int channel = static_cast<int>(i % vectors) * V, valid = min(p.channels - channel, V);
  const int64_t at = pixel * p.channels + channel;
  const float* affine = p.affine + (pixel / p.pixels * p.channels + channel) * 2;
  float v[V];
  load_vector<T>(static_cast<const Number*>(p.x) + at, valid, p.aligned, v);
  for (int j = 0; j < valid; ++j) {
    v[j] = v[j] * affine[2 * j] + affine[2 * j + 1];
    if (p.silu) v[j] *= sigmoid(v[j]);
  }
  store_vector<T>(static_cast<Number*>(p.y) + at, valid, p.aligned, v);
}

/// All in one where a group fits shared memory: one block per group of an image, mean and variance one after the other.
template <class T>
__global__ void __launch_bounds__(256) group_norm_kernel(const __grid_constant__ GroupNormArguments p) {
  using Number = typename Stored<T>::type;
  TD_DYNAMIC_SHARED(shared);
  TD_SHARED(float, scratch, 8);
  float* const values = reinterpret_cast<float*>(shared);
  const int group = blockIdx.x % p.groups, image = blockIdx.x / p.groups, width = p.width(), count = p.pixels * width;
  const int64_t first = int64_t(image) * p.pixels * p.channels + group * width;
  const Number* x = static_cast<const Number*>(p.x) + first;
  float sum = 0.f, square = 0.f;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    values[i] = Stored<T>::load(x, int64_t(i / width) * p.channels + i % width);
    sum += values[i];
  }
  const float mean = block_sum(sum, scratch) / count;
  for (int i = threadIdx.x; i < count; i += blockDim.x) square += (values[i] - mean) * (values[i] - mean);
  const float inverse = 1.f / sqrtf(block_sum(square, scratch) / count + p.epsilon);
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const int c = group * width + i % width;
    float y = (values[i] - mean) * inverse * load_offset<T>(p.gamma, c) + load_offset<T>(p.beta, c);
    if (p.silu) y *= sigmoid(y);
    Stored<T>::store(static_cast<Number*>(p.y) + first, int64_t(i / width) * p.channels + i % width, y);
  }
}

struct RowsArguments {
  const void* x;
  void* y;
  Offsets gamma, beta;
  int rows, columns;
  float epsilon;
  bool aligned;
};

/// Calls f(column, valid, numbers) for the vectors of one row that belong to this lane.
template <class T, class F>
__device__ __forceinline__ void for_row(const RowsArguments& p, int row, const F& f) {
  constexpr int V = kVector<T>;
  const typename Stored<T>::type* from = static_cast<const typename Stored<T>::type*>(p.x) + int64_t(row) * p.columns;
  for (int column = threadIdx.x % 32 * V; column < p.columns; column += 32 * V) {
    float v[V];
    const int valid = min(p.columns - column, V);
    load_vector<T>(from + column, valid, p.aligned, v);
    f(column, valid, v);
  }
}

/// (x - mean) / sqrt(variance + epsilon) gamma + beta, one warp per row.
template <class T>
__global__ void __launch_bounds__(128) layer_norm_kernel(const __grid_constant__ RowsArguments p) {
  constexpr int V = kVector<T>;
  const int row = blockIdx.x * 4 + threadIdx.x / 32;
  if (row >= p.rows) return;
  float sum = 0.f, square = 0.f;
  for_row<T>(p, row, [&](int, int, float (&v)[V]) {
    for (int i = 0; i < V; ++i) sum += v[i];
  });
  const float mean = warp_sum(sum) / p.columns;
  for_row<T>(p, row, [&](int, int valid, float (&v)[V]) {
    for (int i = 0; i < valid; ++i) square += (v[i] - mean) * (v[i] - mean);
  });
  const float inverse = 1.f / sqrtf(warp_sum(square) / p.columns + p.epsilon);
  typename Stored<T>::type* to = static_cast<typename Stored<T>::type*>(p.y) + int64_t(row) * p.columns;
  for_row<T>(p, row, [&](int column, int valid, float (&v)[V]) {
    for (int i = 0; i < valid; ++i) v[i] = (v[i] - mean) * inverse * load_offset<T>(p.gamma, column + i) + load_offset<T>(p.beta, column + i);
    store_vector<T>(to + column, valid, p.aligned, v);
  });
}

/// x / sqrt(mean of x^2 + epsilon) gamma, one warp per row; gamma may be absent.
template <class T>
__global__ void __launch_bounds__(128) rms_norm_kernel(const __grid_constant__ RowsArguments p) {
  constexpr int V = kVector<T>;
  const int row = blockIdx.x * 4 + threadIdx.x / 32;
  if (row >= p.rows) return;
  float square = 0.f;
  for_row<T>(p, row, [&](int, int valid, float (&v)[V]) {
    for (int i = 0; i < valid; ++i) square += v[i] * v[i];
  });
  const float inverse = 1.f / sqrtf(warp_sum(square) / p.columns + p.epsilon);
  typename Stored<T>::type* to = static_cast<typename Stored<T>::type*>(p.y) + int64_t(row) * p.columns;
  for_row<T>(p, row, [&](int column, int valid, float (&v)[V]) {
    for (int i = 0; i < valid; ++i) v[i] *= p.gamma.data ? inverse * load_offset<T>(p.gamma, column + i) : inverse;
    store_vector<T>(to + column, valid, p.aligned, v);
  });
}

/// softmax, or its logarithm, of every row; one warp per row.
template <class T, bool Logarithm>
__global__ void __launch_bounds__(128) softmax_kernel(const __grid_constant__ RowsArguments p) {
  constexpr int V = kVector<T>;
  const int row = blockIdx.x * 4 + threadIdx.x / 32;
  if (row >= p.rows) return;
  float top = -infinity(), sum = 0.f;
  for_row<T>(p, row, [&](int, int valid, float (&v)[V]) {
    for (int i = 0; i < valid; ++i) top = fmaxf(top, v[i]);
  });
  top = warp_max(top);
  for_row<T>(p, row, [&](int, int valid, float (&v)[V]) {
    for (int i = 0; i < valid; ++i) sum += expf(v[i] - top);
  });
  sum = warp_sum(sum);
  const float inverse = 1.f / sum, logarithm = logf(sum);
  typename Stored<T>::type* to = static_cast<typename Stored<T>::type*>(p.y) + int64_t(row) * p.columns;
  for_row<T>(p, row, [&](int column, int valid, float (&v)[V]) {
    for (int i = 0; i < valid; ++i) v[i] = Logarithm ? v[i] - top - logarithm : expf(v[i] - top) * inverse;
    store_vector<T>(to + column, valid, p.aligned, v);
  });
}

/// diffusers/models/embeddings.py, get_timestep_embedding: sin and cos of timestep * exp(-ln(period) i / (half - shift)) * scale.
struct TimestepArguments {
  const float* timesteps;
  float* y;  // [count, dim]
  int count, dim;
  double log_period, shift;
  float scale;
  bool cosines_first;
};
__global__ void __launch_bounds__(256) timestep_embedding_kernel(const __grid_constant__ TimestepArguments p) {
  const int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= int64_t(p.count) * p.dim) return;
  const int column = static_cast<int>(at % p.dim), half = p.dim / 2, i = column % (half > 0 ? half : 1);
  if (column >= 2 * half) {
    p.y[at] = 0.f;
    return;
  }
  const float exponent = float(float(-p.log_period * i) / (half - p.shift));  // rounded as Python does it
  const float angle = p.timesteps[at / p.dim] * float(exp(double(exponent))) * p.scale;
  p.y[at] = (column < half) == p.cosines_first ? cosf(angle) : sinf(angle);
}

}  // namespace td::cuda

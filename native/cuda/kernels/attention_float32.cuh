// Attention forward in exact float32 on the ordinary cores, for numbers of any type and heads of any size: 64 queries by 64 keys at a
// time, each thread 4 x 4 scores, then 4 queries by Columns / 16 channels of the output. Heads of more than Columns channels take
// several blocks, each of which computes the scores again.
#pragma once
#include "attention.cuh"

namespace td::cuda {

constexpr int kFloatSide = 64, kFloatStride = kFloatSide + 4, kFloatDepth = 16;

/// Lines [first, first + 64) of 16 channels from `channel` on, transposed: to[channel][line]. What is missing is zero.
template <class T>
__device__ __forceinline__ void load_transposed(float* to, const typename Stored<T>::type* from, int64_t stride, int first, int rows, int channel, int size) {
  for (int i = threadIdx.x; i < kFloatSide * kFloatDepth; i += 256) {
    const int line = i / kFloatDepth, c = i % kFloatDepth;
    const bool inside = first + line < rows && channel + c < size;
    to[c * kFloatStride + line] = inside ? Stored<T>::load(from, (first + line) * stride + channel + c) : 0.f;
  }
}
/// 16 lines of Columns channels from `channel` on, as they are.
template <class T, int Columns>
__device__ __forceinline__ void load_lines(float* to, const typename Stored<T>::type* from, int64_t stride, int first, int rows, int channel, int size) {
  for (int i = threadIdx.x; i < kFloatDepth * Columns; i += 256) {
    const int line = i / Columns, c = i % Columns;
    const bool inside = first + line < rows && channel + c < size;
    to[line * (Columns + 4) + c] = inside ? Stored<T>::load(from, (first + line) * stride + channel + c) : 0.f;
  }
}

/// s[i][j] = x[4 y + i] . w[4 x + j] over all channels, both tensors of 64 lines.
template <class T>
__device__ __forceinline__ void float_scores(float (&s)[4][4], float* memory, const typename Stored<T>::type* x, int64_t x_stride, int x_first, int x_rows,
                                             const typename Stored<T>::type* w, int64_t w_stride, int w_first, int w_rows, int size) {
  const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
  float *tile_x = memory, *tile_w = memory + kFloatDepth * kFloatStride;
#pragma unroll
  for (int i = 0; i < 4; ++i) s[i][0] = s[i][1] = s[i][2] = s[i][3] = 0.f;
  for (int channel = 0; channel < size; channel += kFloatDepth) {
    __syncthreads();  // everyone has left the last channels
    load_transposed<T>(tile_x, x, x_stride, x_first, x_rows, channel, size);
    load_transposed<T>(tile_w, w, w_stride, w_first, w_rows, channel, size);
    __syncthreads();
#pragma unroll
    for (int c = 0; c < kFloatDepth; ++c) {
      float a[4], b[4];
      Packed<float, 4>::load(tile_x + c * kFloatStride + row, a);
      Packed<float, 4>::load(tile_w + c * kFloatStride + column, b);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) s[i][j] += a[i] * b[j];
      }
    }
  }
}

/// o[i][j] += sum over 64 lines l of weights[l][4 y + i] * v[l][channel of j]; weights lie in shared memory, by line.
template <class T, int Columns>
__device__ __forceinline__ void float_accumulate(float (&o)[4][Columns / 16], const float* weights, float* memory, const typename Stored<T>::type* v,
                                                 int64_t stride, int first, int rows, int channel, int size) {
  const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
  for (int l0 = 0; l0 < kFloatSide; l0 += kFloatDepth) {
    __syncthreads();  // the weights are there, and everyone has left the last lines
    load_lines<T, Columns>(memory, v, stride, first + l0, rows, channel, size);
    __syncthreads();
#pragma unroll
    for (int l = 0; l < kFloatDepth; ++l) {
      float a[4];
      Packed<float, 4>::load(weights + (l0 + l) * kFloatStride + row, a);
#pragma unroll
      for (int q = 0; q < Columns / 64; ++q) {
        float b[4];
        Packed<float, 4>::load(memory + l * (Columns + 4) + q * 64 + column, b);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) o[i][q * 4 + j] += a[i] * b[j];
        }
      }
    }
  }
}

/// 4 rows of a result, the thread's channels.
template <class T, int Columns>
__device__ __forceinline__ void float_write(const float (&o)[4][Columns / 16], const float (&factor)[4], typename Stored<T>::type* out, int64_t stride,
                                            int first, int rows, int channel, int size) {
  const int row = first + threadIdx.x / 16 * 4, column = channel + threadIdx.x % 16 * 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (row + i >= rows) continue;
#pragma unroll
    for (int j = 0; j < Columns / 16; ++j) {
      const int c = column + j / 4 * 64 + j % 4;
      if (c < size) Stored<T>::store(out, (row + i) * stride + c, o[i][j] * factor[i]);
    }
  }
}

/// Weights of the thread's 4 x 4 scores by line (keys, for queries along the rows).
__device__ __forceinline__ void float_share(float* weights, const float (&s)[4][4]) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float column[4] = {s[0][j], s[1][j], s[2][j], s[3][j]};
    Packed<float, 4>::store(weights + (threadIdx.x % 16 * 4 + j) * kFloatStride + threadIdx.x / 16 * 4, column);
  }
}

template <int Columns>
constexpr int kFloatAttentionShared = 4 * (2 * kFloatDepth * kFloatStride + kFloatSide * kFloatStride + kFloatDepth * (Columns + 4));

template <class T, int Columns>
struct AttentionFloat {
  static constexpr int kThreads = 256, kRows = kFloatSide, kKeys = kFloatSide, kShared = kFloatAttentionShared<Columns>;
  using Number = typename Stored<T>::type;

  /// Scaled scores with bias, as natural logarithms; -inf where a key is masked.
  static __device__ __forceinline__ void finish_scores(const AttentionArguments& p, float (&s)[4][4], int batch, int head, int query, int key) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        s[i][j] *= p.scale;
        if (key + j >= p.keys || (p.causal && key + j > query + i)) s[i][j] = -infinity();
        else if (p.bias.data && query + i < p.queries)
          s[i][j] += p.bias.data[batch * p.bias.batch + head * p.bias.head + (query + i) * p.bias.query + (key + j) * p.bias.key];
      }
    }
  }

  static __device__ __forceinline__ void run(const AttentionArguments& p, unsigned char* shared) {
    float* const memory = reinterpret_cast<float*>(shared);
    float* const weights = memory + 2 * kFloatDepth * kFloatStride;
    float* const lines = weights + kFloatSide * kFloatStride;
    const BlockPlace block(p.queries, kRows, p.heads);
    const int batch = block.batch, head = block.head, first = block.first, channel = blockIdx.y * Columns;
    const int query = first + threadIdx.x / 16 * 4;
    const Number *q = rows_of<T>(p.q, batch, head), *k = rows_of<T>(p.k, batch, head), *v = rows_of<T>(p.v, batch, head);
    float o[4][Columns / 16], top[4], sum[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < Columns / 16; ++j) o[i][j] = 0.f;
      top[i] = -infinity();
      sum[i] = 0.f;
    }
    const int seen = p.causal ? min(p.keys, first + kRows) : p.keys;
    for (int key0 = 0; key0 < seen; key0 += kKeys) {
      float s[4][4];
      float_scores<T>(s, memory, q, p.q.strides.token, first, p.queries, k, p.k.strides.token, key0, p.keys, p.head_size);
      finish_scores(p, s, batch, head, query, key0 + threadIdx.x % 16 * 4);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float t = fmaxf(fmaxf(s[i][0], s[i][1]), fmaxf(s[i][2], s[i][3]));
        for (int d = 8; d > 0; d /= 2) t = fmaxf(t, __shfl_xor_sync(0xffffffffu, t, d));
        t = fmaxf(t, top[i]);
        const float shift = t == -infinity() ? 0.f : t;  // a row whose keys are all masked
        const float shrink = expf(top[i] - shift);
        top[i] = t;
        float total = 0.f;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          s[i][j] = expf(s[i][j] - shift);
          total += s[i][j];
        }
        for (int d = 8; d > 0; d /= 2) total += __shfl_xor_sync(0xffffffffu, total, d);
        sum[i] = sum[i] * shrink + total;
#pragma unroll
        for (int j = 0; j < Columns / 16; ++j) o[i][j] *= shrink;
      }
      float_share(weights, s);
      float_accumulate<T, Columns>(o, weights, lines, v, p.v.strides.token, key0, p.keys, channel, p.value_size);
    }
    float inverse[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      inverse[i] = sum[i] > 0.f ? 1.f / sum[i] : 0.f;
      if (p.lse && channel == 0 && threadIdx.x % 16 == 0 && query + i < p.queries)
        p.lse[int64_t(block.pair) * p.queries + query + i] = sum[i] > 0.f ? top[i] + logf(sum[i]) : -infinity();
    }
    float_write<T, Columns>(o, inverse, rows_of<T>(p.out, batch, head), p.out.strides.token, first, p.queries, channel, p.value_size);
  }
};

template <class T, int Columns>
__global__ void __launch_bounds__(256, 1) attention_float_kernel(const __grid_constant__ AttentionArguments p) {
  TD_DYNAMIC_SHARED(shared);
  AttentionFloat<T, Columns>::run(p, shared);
}

}  // namespace td::cuda

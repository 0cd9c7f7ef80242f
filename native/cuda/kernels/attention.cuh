// Memory-efficient attention, softmax(scale * Q K^T + bias) V without an N x N tensor: what its kernels share. Queries, keys and values
// lie by strides: [B,H,N,d], tokens [B,N,H*d], or the three side by side in [B,N,3*H*d].
#pragma once
#include "epilogue.cuh"
#include "span.cuh"

namespace td::cuda {

struct AttentionStrides {
  int64_t batch, head, token;  // in numbers
};

/// A tensor of tokens; `aligned` when every row begins at a multiple of 16 bytes.
struct AttentionTensor {
  const void* data;
  AttentionStrides strides;
  bool aligned;
};
struct AttentionResult {
  void* data;
  AttentionStrides strides;
  bool aligned;
};

/// Added to the scaled scores; strides are 0 along axes of broadcast.
struct AttentionBias {
  const float* data;
  int64_t batch, head, query, key;
};

struct AttentionArguments {
  AttentionTensor q, k, v;
  AttentionResult out;
  float* lse;  // [B,H,Nq], natural logarithm of the sum of exponentials, -inf where every key is masked
  AttentionBias bias;
  int heads, queries, keys, head_size, value_size;
  float scale;
  bool causal;  // query i sees keys 0 to i
};

struct AttentionGradientArguments {
  AttentionArguments forward;
  AttentionTensor dy;
  const float* delta;  // [B,H,Nq], the sums of dy * out over channels
  AttentionResult dq, dk, dv;
};

/// Blocks stand in one line, those that share a head side by side: no number of heads or images is too large for a grid.
struct BlockPlace {
  int pair, batch, head, first;  // pair: batch * heads + head; first: of the block's rows
  __device__ __forceinline__ BlockPlace(int rows, int per_block, int heads) {
    const int blocks = (rows + per_block - 1) / per_block;
    pair = blockIdx.x / blocks;
    batch = pair / heads;
    head = pair % heads;
    first = blockIdx.x % blocks * per_block;
  }
};

constexpr float kLog2E = 1.44269504f, kLn2 = 0.69314718f;

template <class T>
__device__ __forceinline__ const typename Stored<T>::type* rows_of(const AttentionTensor& x, int batch, int head) {
  return static_cast<const typename Stored<T>::type*>(x.data) + batch * x.strides.batch + head * x.strides.head;
}
template <class T>
__device__ __forceinline__ typename Stored<T>::type* rows_of(const AttentionResult& x, int batch, int head) {
  return static_cast<typename Stored<T>::type*>(x.data) + batch * x.strides.batch + head * x.strides.head;
}

/// Distance of rows of 16-bit numbers in shared memory: an odd multiple of 16 bytes, so that 8 rows meet every bank once.
__host__ __device__ constexpr int row_stride(int width) { return width / 8 % 2 ? width : width + 8; }

/// Rows [first, first + Rows) of a matrix of rows x size numbers into shared memory, Width numbers each; what is missing is zero.
template <int Rows, int Width, int Threads>
__device__ __forceinline__ void load_rows(uint16_t* to, const uint16_t* from, int64_t stride, int first, int rows, int size, bool aligned) {
  constexpr int kVectors = Width / 8;
  for (int i = threadIdx.x; i < Rows * kVectors; i += Threads) {
    const int row = i / kVectors, column = i % kVectors * 8, left = first + row < rows ? min(size - column, 8) : 0;
    const Span span = left > 0 ? Span{from + (first + row) * stride + column, left} : Span{from, 0};
    copy_span(to + row * row_stride(Width) + column, span, aligned);
  }
}

/// The fragments of A of 16 rows of Width numbers: whole steps of 16 channels and, at the end, perhaps 8.
template <int Width>
struct RowFragments {
  static constexpr int kSteps = Width / 16, kTail = Width % 16 / 8;
  uint32_t whole[kSteps > 0 ? kSteps : 1][4];
  uint32_t tail[2];

  __device__ __forceinline__ void load(const uint16_t* rows) {
    const int lane = threadIdx.x % 32;
    const uint16_t* at = rows + lane % 16 * row_stride(Width);
#pragma unroll
    for (int s = 0; s < kSteps; ++s) load_matrices<false>(whole[s], at + s * 16 + lane / 16 * 8);
    if (kTail) load_matrices<false>(tail, at + kSteps * 16);
  }
};

/// c[m][n] += A B^T: M times 16 rows of A, in registers or (InShared) read as they are needed, with Lines rows of `tile`; both Width
/// channels.
template <class T, int Width, int Lines, bool InShared, int M>
__device__ __forceinline__ void multiply_rows(float (&c)[M][Lines / 8][4], const RowFragments<Width> (&a)[M], const uint16_t* a_rows,
                                              const uint16_t* tile) {
  using F = RowFragments<Width>;
  constexpr int kStride = row_stride(Width);
  const int lane = threadIdx.x % 32;
  const uint16_t* at = a_rows + lane % 16 * kStride;
#pragma unroll
  for (int s = 0; s < F::kSteps; ++s) {
    uint32_t now[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) {
      if (InShared) load_matrices<false>(now[m], at + m * 16 * kStride + s * 16 + lane / 16 * 8);
      else now[m][0] = a[m].whole[s][0], now[m][1] = a[m].whole[s][1], now[m][2] = a[m].whole[s][2], now[m][3] = a[m].whole[s][3];
    }
#pragma unroll
    for (int n = 0; n < Lines / 8; n += 2) {
      // lanes 0-7 and 8-15 name the first eight lines (channels 0-7, 8-15), lanes 16-31 the next eight
      uint32_t b[4];
      load_matrices<false>(b, tile + (n * 8 + lane / 16 * 8 + lane % 8) * kStride + s * 16 + lane / 8 % 2 * 8);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        mma_k16(T(), c[m][n], now[m], b[0], b[1]);
        mma_k16(T(), c[m][n + 1], now[m], b[2], b[3]);
      }
    }
  }
  if (F::kTail) {
    uint32_t now[M][2];
#pragma unroll
    for (int m = 0; m < M; ++m) {
      if (InShared) load_matrices<false>(now[m], at + m * 16 * kStride + F::kSteps * 16);
      else now[m][0] = a[m].tail[0], now[m][1] = a[m].tail[1];
    }
#pragma unroll
    for (int n = 0; n < Lines / 8; n += 2) {
      uint32_t b[2];
      load_matrices<false>(b, tile + (n * 8 + lane % 16) * kStride + F::kSteps * 16);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        mma_k8(T(), c[m][n], now[m][0], now[m][1], b[0]);
        mma_k8(T(), c[m][n + 1], now[m][0], now[m][1], b[1]);
      }
    }
  }
}

/// 16 rows of sums, rounded, as fragments of A for the next product: the layouts of C and A agree.
template <class T, int Lines>
__device__ __forceinline__ void round_rows(uint32_t (&a)[Lines / 16][4], const float (&c)[Lines / 8][4]) {
#pragma unroll
  for (int j = 0; j < Lines / 16; ++j) {
    a[j][0] = pack(T(), c[2 * j][0], c[2 * j][1]);
    a[j][1] = pack(T(), c[2 * j][2], c[2 * j][3]);
    a[j][2] = pack(T(), c[2 * j + 1][0], c[2 * j + 1][1]);
    a[j][3] = pack(T(), c[2 * j + 1][2], c[2 * j + 1][3]);
  }
}

/// c[m][n] += A tile: M times 16 rows of A by Lines lines of `tile`, Width channels.
template <class T, int Width, int Lines, int M>
__device__ __forceinline__ void accumulate_rows(float (&c)[M][Width / 8][4], const uint32_t (&a)[M][Lines / 16][4], const uint16_t* tile) {
  constexpr int kStride = row_stride(Width);
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < Lines / 16; ++j) {
    const uint16_t* rows = tile + (j * 16 + lane % 16) * kStride;
#pragma unroll
    for (int n = 0; n + 1 < Width / 8; n += 2) {
      uint32_t b[4];
      load_matrices<true>(b, rows + n * 8 + lane / 16 * 8);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        mma_k16(T(), c[m][n], a[m][j], b[0], b[1]);
        mma_k16(T(), c[m][n + 1], a[m][j], b[2], b[3]);
      }
    }
    if (Width / 8 % 2) {
      uint32_t b[2];
      load_matrices<true>(b, rows + (Width / 8 - 1) * 8);
#pragma unroll
      for (int m = 0; m < M; ++m) mma_k16(T(), c[m][Width / 8 - 1], a[m][j], b[0], b[1]);
    }
  }
}

/// 16 rows of a result through shared memory of the warp's own to global memory, in whole vectors.
template <class T, int Width>
__device__ __forceinline__ void write_rows(uint16_t* strip, const float (&c)[Width / 8][4], float low, float high, uint16_t* out, int64_t stride,
                                           int first, int rows, int size, bool aligned) {
  constexpr int kStride = row_stride(Width);
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int n = 0; n < Width / 8; ++n) {
    uint16_t* at = strip + lane / 4 * kStride + n * 8 + lane % 4 * 2;
    *reinterpret_cast<uint32_t*>(at) = pack(T(), c[n][0] * low, c[n][1] * low);
    *reinterpret_cast<uint32_t*>(at + 8 * kStride) = pack(T(), c[n][2] * high, c[n][3] * high);
  }
  __syncwarp();  // a warp reads only the rows that it wrote
  for (int i = lane; i < 16 * (Width / 8); i += 32) {
    const int row = i / (Width / 8), column = i % (Width / 8) * 8;
    if (first + row >= rows || column >= size) continue;
    const uint16_t* from = strip + row * kStride + column;
    uint16_t* to = out + (first + row) * stride + column;
    if (aligned && column + 8 <= size) {
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
    } else {
      for (int j = 0; j < 8 && column + j < size; ++j) to[j] = from[j];
    }
  }
  __syncwarp();
}

}  // namespace td::cuda

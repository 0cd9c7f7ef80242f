// Attention forward on tensor cores: a block of warps owns rows of Q and walks over tiles of K and V that asynchronous copies bring into
// a ring in shared memory; each row keeps a running maximum and sum, and divides once at the end (FlashAttention-2, Dao 2023). Head sizes
// are multiples of 8 and never padded to powers of two: a last group of 8 channels goes through the half-length mma.
#pragma once
#include "attention.cuh"

namespace td::cuda {

/// D: channels of q, k and v in shared memory; those beyond head_size and value_size are zero. A warp owns 16 * M rows of Q.
template <class T, int D, int Warps, int M, int Keys, int Stages, bool Bias>
struct AttentionForward {
  static_assert(D % 8 == 0 && Keys % 16 == 0, "tiles of the tensor cores");
  static constexpr int kThreads = Warps * 32, kRows = Warps * 16 * M, kStride = row_stride(D), kTile = Keys * kStride;
  /// Rows of many channels stay in shared memory, where registers would not hold them beside the sums.
  static constexpr bool kQShared = D > 160;
  static constexpr int kQ = kRows * kStride, kRing = Stages * 2 * kTile, kBiasStride = Keys + 8, kBlocks = 2;  // blocks of a multiprocessor, for the registers
  static constexpr int kMemory = kQShared ? kQ + kRing : kQ > kRing ? kQ : kRing;
  static constexpr int kShared = 2 * kMemory + (Bias ? 4 * kRows * kBiasStride : 0);
  using Scores = float[M][Keys / 8][4];

  struct Place {
    int lane, pair, batch, head, first;
  };

  /// The bias of the warp's own rows: read in the order of memory, to be picked up as fragments.
  static __device__ __forceinline__ void load_bias(const AttentionArguments& p, const Place& at, float* strip, int key) {
    const float* from = p.bias.data + at.batch * p.bias.batch + at.head * p.bias.head;
    for (int i = at.lane; i < 16 * M * Keys; i += 32) {
      const int row = i / Keys, column = i % Keys, query = at.first + row;
      const bool inside = query < p.queries && key + column < p.keys;
      strip[row * kBiasStride + column] = inside ? __ldg(from + query * p.bias.query + (key + column) * p.bias.key) * kLog2E : 0.f;
    }
  }
  static __device__ __forceinline__ void add_bias(Scores& s, const float* strip, int lane, float factor) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
      for (int n = 0; n < Keys / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          s[m][n][i] = s[m][n][i] * factor + strip[(m * 16 + lane / 4 + i / 2 * 8) * kBiasStride + n * 8 + lane % 4 * 2 + i % 2];
        }
      }
    }
  }
  /// Scores of keys beyond the end, or later than their query, are -inf.
  static __device__ __forceinline__ void mask(const AttentionArguments& p, Scores& s, const Place& at, int key) {
    if (key + Keys <= p.keys && !(p.causal && key + Keys > at.first + 1)) return;
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
      for (int n = 0; n < Keys / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int column = key + n * 8 + at.lane % 4 * 2 + i % 2, query = at.first + m * 16 + at.lane / 4 + i / 2 * 8;
          if (column >= p.keys || (p.causal && column > query)) s[m][n][i] = -infinity();
        }
      }
    }
  }

  struct Rows {
    float o[M][D / 8][4], top[M][2], sum[M][2];

    __device__ __forceinline__ void clear() {
#pragma unroll
      for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int n = 0; n < D / 8; ++n) o[m][n][0] = o[m][n][1] = o[m][n][2] = o[m][n][3] = 0.f;
        top[m][0] = top[m][1] = -infinity();
        sum[m][0] = sum[m][1] = 0.f;
      }
    }
    /// Scores become weights relative to the new maximum; what was summed so far shrinks to it. Powers of two, `unit` to the score.
    __device__ __forceinline__ void rescale(float (&s)[Keys / 8][4], int m, int r, float unit) {
      float t = top[m][r];
#pragma unroll
      for (int n = 0; n < Keys / 8; ++n) t = fmaxf(t, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
      t = fmaxf(t, __shfl_xor_sync(0xffffffffu, t, 1));
      t = fmaxf(t, __shfl_xor_sync(0xffffffffu, t, 2));
      const float shift = t == -infinity() ? 0.f : t * unit;  // a row whose keys are all masked
      const float shrink = exp2_fast(top[m][r] * unit - shift);
      top[m][r] = t;
      float total = sum[m][r] * shrink;
#pragma unroll
      for (int n = 0; n < Keys / 8; ++n) {
#pragma unroll
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          s[n][i] = exp2_fast(s[n][i] * unit - shift);
          total += s[n][i];
        }
      }
      sum[m][r] = total;
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        o[m][n][2 * r] *= shrink;
        o[m][n][2 * r + 1] *= shrink;
      }
    }
    /// 1 / sum over the whole row, 0 where there is none.
    __device__ __forceinline__ float finish(int m, int r) {
      sum[m][r] += __shfl_xor_sync(0xffffffffu, sum[m][r], 1);
      sum[m][r] += __shfl_xor_sync(0xffffffffu, sum[m][r], 2);
      return sum[m][r] > 0.f ? 1.f / sum[m][r] : 0.f;
    }
  };

  static __device__ __forceinline__ void write(const AttentionArguments& p, Rows& rows, const Place& at, uint16_t* strip, float unit) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
      const float low = rows.finish(m, 0), high = rows.finish(m, 1);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int query = at.first + m * 16 + at.lane / 4 + r * 8;
        if (!p.lse || at.lane % 4 != 0 || query >= p.queries) continue;
        const float sum = rows.sum[m][r];
        p.lse[int64_t(at.pair) * p.queries + query] = sum > 0.f ? rows.top[m][r] * unit * kLn2 + logf(sum) : -infinity();
      }
      write_rows<T, D>(strip, rows.o[m], low, high, rows_of<T>(p.out, at.batch, at.head), p.out.strides.token, at.first + m * 16, p.queries,
                       p.value_size, p.out.aligned);
    }
  }

  static __device__ __forceinline__ void run(const AttentionArguments& p, unsigned char* shared) {
    uint16_t* const memory = reinterpret_cast<uint16_t*>(shared);
    uint16_t* const ring = memory + (kQShared ? kQ : 0);
    const BlockPlace block(p.queries, kRows, p.heads);
    const int warp = threadIdx.x / 32;
    const Place at{int(threadIdx.x % 32), block.pair, block.batch, block.head, block.first + warp * 16 * M};
    const uint16_t *k = rows_of<T>(p.k, at.batch, at.head), *v = rows_of<T>(p.v, at.batch, at.head);
    float* const bias = reinterpret_cast<float*>(shared + 2 * kMemory) + warp * 16 * M * kBiasStride;
    const float factor = p.scale * kLog2E, unit = Bias ? 1.f : factor;

    load_rows<kRows, D, kThreads>(memory, rows_of<T>(p.q, at.batch, at.head), p.q.strides.token, block.first, p.queries, p.head_size, p.q.aligned);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    RowFragments<D> q[M];
    const uint16_t* q_rows = memory + warp * 16 * M * kStride;
    if (!kQShared) {
#pragma unroll
      for (int m = 0; m < M; ++m) q[m].load(q_rows + m * 16 * kStride);
      __syncthreads();  // the ring takes the memory of Q
    }
    const int seen = p.causal ? min(p.keys, block.first + kRows) : p.keys, tiles = (seen + Keys - 1) / Keys;
    const auto fetch = [&](int tile) {
      if (tile < tiles) {
        uint16_t* to = ring + tile % Stages * 2 * kTile;
        load_rows<Keys, D, kThreads>(to, k, p.k.strides.token, tile * Keys, p.keys, p.head_size, p.k.aligned);
        load_rows<Keys, D, kThreads>(to + kTile, v, p.v.strides.token, tile * Keys, p.keys, p.value_size, p.v.aligned);
      }
      copy_commit();  // also empty ones, so that the wait below counts the same in every round
    };
    for (int t = 0; t < Stages - 1; ++t) fetch(t);

    Rows rows;
    rows.clear();
    for (int tile = 0; tile < tiles; ++tile) {
      copy_wait<Stages - 2>();
      __syncthreads();  // the tile is there for everyone, and everyone has left the one that is fetched into next
      fetch(tile + Stages - 1);
      if (Bias) load_bias(p, at, bias, tile * Keys);
      const uint16_t* tile_k = ring + tile % Stages * 2 * kTile;
      Scores s;
#pragma unroll
      for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int n = 0; n < Keys / 8; ++n) s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0.f;
      }
      multiply_rows<T, D, Keys, kQShared, M>(s, q, q_rows, tile_k);
      if (Bias) {
        __syncwarp();
        add_bias(s, bias, at.lane, factor);
        __syncwarp();
      }
      mask(p, s, at, tile * Keys);
      uint32_t weights[M][Keys / 16][4];
#pragma unroll
      for (int m = 0; m < M; ++m) {
        rows.rescale(s[m], m, 0, unit);
        rows.rescale(s[m], m, 1, unit);
        round_rows<T, Keys>(weights[m], s[m]);
      }
      accumulate_rows<T, D, Keys, M>(rows.o, weights, tile_k + kTile);
    }
    copy_wait<0>();
    __syncthreads();  // the ring becomes the strips of the result
    write(p, rows, at, memory + warp * 16 * kStride, unit);
  }
};

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks) attention_forward_kernel(const __grid_constant__ AttentionArguments p) {
  TD_DYNAMIC_SHARED(shared);
  if constexpr (may_have_shared(Tile::kShared)) Tile::run(p, shared);
}

}  // namespace td::cuda

// Gradients of attention on tensor cores, the weights recomputed from the log-sum-exp. Two kernels of one form, and no atomics: a block
// owns rows and walks over lines, which are keys for the gradient of queries, and queries for the gradients of keys and values.
//
//   P = exp(scale Q K^T + bias - lse)      dP = dY V^T      dS = P (dP - delta)      delta = sum of dY * out over channels
//   dQ = scale dS K        dK = scale dS^T Q        dV = P^T dY                       (Dao et al. 2022, algorithm 4)
#pragma once
#include "attention.cuh"

namespace td::cuda {

/// ForKeys: rows are keys, lines are queries, and P and dS are transposed throughout.
template <class T, int D, int Warps, int Lines, int Stages, bool ForKeys, bool Bias>
struct AttentionBackward {
  static_assert(D % 8 == 0 && Lines % 16 == 0, "tiles of the tensor cores");
  static constexpr int kThreads = Warps * 32, kRows = Warps * 16, kStride = row_stride(D), kTile = Lines * kStride, kOwn = kRows * kStride;
  /// Rows of many channels stay in shared memory, where registers would not hold them beside the sums.
  static constexpr bool kInShared = D > (ForKeys ? 64 : 96);
  static constexpr int kBiasStride = Lines + 8, kBlocks = !ForKeys && D <= 64 ? 3 : 2;  // blocks of a multiprocessor, for the registers
  static constexpr int kMemory = 2 * kOwn + Stages * 2 * kTile, kShared = 2 * kMemory + (Bias ? 4 * kRows * kBiasStride : 0);

  struct Place {
    int lane, batch, head, first;
    /// Row and line of number i of fragment n.
    __device__ __forceinline__ int row(int i) const { return first + lane / 4 + i / 2 * 8; }
    __device__ __forceinline__ int line(int n, int i) const { return n * 8 + lane % 4 * 2 + i % 2; }
  };

  static __device__ __forceinline__ void load_bias(const AttentionArguments& p, const Place& at, float* strip, int line0) {
    const float* from = p.bias.data + at.batch * p.bias.batch + at.head * p.bias.head;
    for (int i = at.lane; i < 16 * Lines; i += 32) {
      const int row = ForKeys ? i % 16 : i / Lines, line = ForKeys ? i / 16 : i % Lines;
      const int query = ForKeys ? line0 + line : at.first + row, key = ForKeys ? at.first + row : line0 + line;
      const bool inside = query < p.queries && key < p.keys;
      strip[row * kBiasStride + line] = inside ? __ldg(from + query * p.bias.query + key * p.bias.key) * kLog2E : 0.f;
    }
  }

  /// Per query: what its scores are taken relative to, and delta.
  struct Statistics {
    const float *lse, *delta;
    int queries;
    __device__ __forceinline__ void read(int query, float* shift, float* mean) const {
      const bool inside = query < queries;
      const float l = inside ? __ldg(lse + query) : -infinity();
      *shift = l == -infinity() ? infinity() : l * kLog2E;  // every key masked: all weights are zero
      *mean = inside ? __ldg(delta + query) : 0.f;
    }
  };

  /// Scores become weights, gradients of weights those of scores.
  static __device__ __forceinline__ void differentiate(const AttentionArguments& p, const Statistics& statistics, const Place& at, const float* strip,
                                                       int line0, float (&s)[Lines / 8][4], float (&dp)[Lines / 8][4]) {
    const float factor = p.scale * kLog2E;
    float shift[2], mean[2];
    if (!ForKeys) {
      statistics.read(at.row(0), &shift[0], &mean[0]);
      statistics.read(at.row(2), &shift[1], &mean[1]);
    }
#pragma unroll
    for (int n = 0; n < Lines / 8; ++n) {
      if (ForKeys) {
        statistics.read(line0 + at.line(n, 0), &shift[0], &mean[0]);
        statistics.read(line0 + at.line(n, 1), &shift[1], &mean[1]);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int which = ForKeys ? i % 2 : i / 2, line = line0 + at.line(n, i);
        const int query = ForKeys ? line : at.row(i), key = ForKeys ? at.row(i) : line;
        float x = s[n][i] * factor - shift[which];
        if (Bias) x += strip[(at.lane / 4 + i / 2 * 8) * kBiasStride + at.line(n, i)];
        const bool seen = key < p.keys && !(p.causal && key > query) && shift[which] < infinity();
        s[n][i] = seen ? exp2_fast(x) : 0.f;
        dp[n][i] = s[n][i] * (dp[n][i] - mean[which]);
      }
    }
  }

  static __device__ __forceinline__ void run(const AttentionGradientArguments& g, unsigned char* shared) {
    const AttentionArguments& p = g.forward;
    uint16_t* const own = reinterpret_cast<uint16_t*>(shared);
    uint16_t* const ring = own + 2 * kOwn;
    const int warp = threadIdx.x / 32, rows = ForKeys ? p.keys : p.queries, lines = ForKeys ? p.queries : p.keys;
    const BlockPlace block(rows, kRows, p.heads);
    const Place at{int(threadIdx.x % 32), block.batch, block.head, block.first + warp * 16};
    float* const strip = reinterpret_cast<float*>(shared + 2 * kMemory) + warp * 16 * kBiasStride;
    const AttentionTensor &own1 = ForKeys ? p.k : p.q, &own2 = ForKeys ? p.v : g.dy, &other1 = ForKeys ? p.q : p.k, &other2 = ForKeys ? g.dy : p.v;
    const uint16_t *y1 = rows_of<T>(other1, at.batch, at.head), *y2 = rows_of<T>(other2, at.batch, at.head);
    const int64_t first_query = int64_t(block.pair) * p.queries;
    const Statistics statistics{p.lse + first_query, g.delta + first_query, p.queries};

    load_rows<kRows, D, kThreads>(own, rows_of<T>(own1, at.batch, at.head), own1.strides.token, block.first, rows, p.head_size, own1.aligned);
    load_rows<kRows, D, kThreads>(own + kOwn, rows_of<T>(own2, at.batch, at.head), own2.strides.token, block.first, rows, p.value_size, own2.aligned);
    copy_commit();
    // With a causal mask rows of queries see the lines before them, rows of keys those behind.
    const int begin = p.causal && ForKeys ? min(block.first, lines) / Lines : 0;
    const int end = ((p.causal && !ForKeys ? min(lines, block.first + kRows) : lines) + Lines - 1) / Lines;
    const auto fetch = [&](int tile) {
      if (tile < end) {
        uint16_t* to = ring + tile % Stages * 2 * kTile;
        load_rows<Lines, D, kThreads>(to, y1, other1.strides.token, tile * Lines, lines, p.head_size, other1.aligned);
        load_rows<Lines, D, kThreads>(to + kTile, y2, other2.strides.token, tile * Lines, lines, p.value_size, other2.aligned);
      }
      copy_commit();  // also empty ones, so that the wait below counts the same in every round
    };
    for (int t = 0; t < Stages - 1; ++t) fetch(begin + t);
    copy_wait<Stages - 1>();
    __syncthreads();  // the block's own rows are there
    RowFragments<D> x1[1], x2[1];
    uint16_t* const x1_rows = own + warp * 16 * kStride;
    uint16_t* const x2_rows = x1_rows + kOwn;
    if (!kInShared) {
      x1[0].load(x1_rows);
      x2[0].load(x2_rows);
    }
    float sum1[1][D / 8][4], sum2[1][ForKeys ? D / 8 : 1][4];
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      sum1[0][n][0] = sum1[0][n][1] = sum1[0][n][2] = sum1[0][n][3] = 0.f;
      if (ForKeys) sum2[0][n][0] = sum2[0][n][1] = sum2[0][n][2] = sum2[0][n][3] = 0.f;
    }
    for (int tile = begin; tile < end; ++tile) {
      copy_wait<Stages - 2>();
      __syncthreads();  // the tile is there for everyone, and everyone has left the one that is fetched into next
      fetch(tile + Stages - 1);
      if (Bias) load_bias(p, at, strip, tile * Lines);
      const uint16_t* tile1 = ring + tile % Stages * 2 * kTile;
      const uint16_t* tile2 = tile1 + kTile;
      float s[1][Lines / 8][4], dp[1][Lines / 8][4];
#pragma unroll
      for (int n = 0; n < Lines / 8; ++n) {
        s[0][n][0] = s[0][n][1] = s[0][n][2] = s[0][n][3] = 0.f;
        dp[0][n][0] = dp[0][n][1] = dp[0][n][2] = dp[0][n][3] = 0.f;
      }
      multiply_rows<T, D, Lines, kInShared, 1>(s, x1, x1_rows, tile1);
      multiply_rows<T, D, Lines, kInShared, 1>(dp, x2, x2_rows, tile2);
      if (Bias) __syncwarp();
      differentiate(p, statistics, at, strip, tile * Lines, s[0], dp[0]);
      if (Bias) __syncwarp();
      uint32_t a[1][Lines / 16][4];
      if constexpr (ForKeys) {
        round_rows<T, Lines>(a[0], s[0]);
        accumulate_rows<T, D, Lines, 1>(sum2, a, tile2);
      }
      round_rows<T, Lines>(a[0], dp[0]);
      accumulate_rows<T, D, Lines, 1>(sum1, a, tile1);
    }
    copy_wait<0>();
    __syncwarp();  // the warp's own rows become the strip of its results
    const AttentionResult &to1 = ForKeys ? g.dk : g.dq, &to2 = g.dv;
    write_rows<T, D>(x1_rows, sum1[0], p.scale, p.scale, rows_of<T>(to1, at.batch, at.head), to1.strides.token, at.first, rows, p.head_size, to1.aligned);
    if constexpr (ForKeys) {
      write_rows<T, D>(x1_rows, sum2[0], 1.f, 1.f, rows_of<T>(to2, at.batch, at.head), to2.strides.token, at.first, rows, p.value_size, to2.aligned);
    }
  }
};

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks) attention_backward_kernel(const __grid_constant__ AttentionGradientArguments g) {
  TD_DYNAMIC_SHARED(shared);
  if constexpr (may_have_shared(Tile::kShared)) Tile::run(g, shared);
}

/// delta, one warp per query.
template <class T>
__global__ void __launch_bounds__(128) attention_delta_kernel(const __grid_constant__ AttentionGradientArguments g, float* delta) {
  const AttentionArguments& p = g.forward;
  const BlockPlace block(p.queries, 4, p.heads);
  const int query = block.first + threadIdx.x / 32;
  if (query >= p.queries) return;
  const AttentionTensor out{p.out.data, p.out.strides, p.out.aligned};
  const auto *y = rows_of<T>(out, block.batch, block.head) + query * out.strides.token, *dy = rows_of<T>(g.dy, block.batch, block.head) + query * g.dy.strides.token;
  float sum = 0.f;
  for (int c = threadIdx.x % 32; c < p.value_size; c += 32) sum += Stored<T>::load(y, c) * Stored<T>::load(dy, c);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) delta[int64_t(block.pair) * p.queries + query] = sum;
}

}  // namespace td::cuda

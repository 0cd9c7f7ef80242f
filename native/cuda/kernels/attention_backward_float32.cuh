// The gradients of attention_backward.cuh in exact float32 on the ordinary cores, for heads of any size.
#pragma once
#include "attention_backward.cuh"
#include "attention_float32.cuh"

namespace td::cuda {

template <class T, int Columns, bool ForKeys>
struct AttentionFloatBackward {
  static constexpr int kThreads = 256, kRows = kFloatSide, kLines = kFloatSide, kShared = kFloatAttentionShared<Columns>;
  using Number = typename Stored<T>::type;

  /// Scores of 4 rows by 4 lines become weights, gradients of weights those of scores.
  static __device__ __forceinline__ void differentiate(const AttentionGradientArguments& g, const BlockPlace& block, int row, int line, float (&s)[4][4],
                                                       float (&dp)[4][4]) {
    const AttentionArguments& p = g.forward;
    const float* bias = p.bias.data ? p.bias.data + block.batch * p.bias.batch + block.head * p.bias.head : nullptr;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int query = ForKeys ? line + j : row + i, key = ForKeys ? row + i : line + j;
        const int64_t at = int64_t(block.pair) * p.queries + query;
        const float lse = query < p.queries ? p.lse[at] : -infinity();
        const bool seen = key < p.keys && !(p.causal && key > query) && lse > -infinity();
        const float added = seen && bias ? bias[query * p.bias.query + key * p.bias.key] : 0.f;
        s[i][j] = seen ? expf(s[i][j] * p.scale + added - lse) : 0.f;
        dp[i][j] = seen ? s[i][j] * (dp[i][j] - g.delta[at]) : 0.f;
      }
    }
  }

  static __device__ __forceinline__ void run(const AttentionGradientArguments& g, unsigned char* shared) {
    const AttentionArguments& p = g.forward;
    float* const memory = reinterpret_cast<float*>(shared);
    float* const weights = memory + 2 * kFloatDepth * kFloatStride;
    float* const lines_memory = weights + kFloatSide * kFloatStride;
    const int rows = ForKeys ? p.keys : p.queries, lines = ForKeys ? p.queries : p.keys;
    const BlockPlace block(rows, kRows, p.heads);
    const int batch = block.batch, head = block.head, first = block.first, channel = blockIdx.y * Columns;
    const AttentionTensor &own1 = ForKeys ? p.k : p.q, &own2 = ForKeys ? p.v : g.dy, &other1 = ForKeys ? p.q : p.k, &other2 = ForKeys ? g.dy : p.v;
    const Number *x1 = rows_of<T>(own1, batch, head), *x2 = rows_of<T>(own2, batch, head);
    const Number *y1 = rows_of<T>(other1, batch, head), *y2 = rows_of<T>(other2, batch, head);
    float sum1[4][Columns / 16], sum2[4][Columns / 16];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < Columns / 16; ++j) sum1[i][j] = sum2[i][j] = 0.f;
    }
    const int begin = p.causal && ForKeys ? first / kLines * kLines : 0, end = p.causal && !ForKeys ? min(lines, first + kRows) : lines;
    for (int line = begin; line < end; line += kLines) {
      float s[4][4], dp[4][4];
      float_scores<T>(s, memory, x1, own1.strides.token, first, rows, y1, other1.strides.token, line, lines, p.head_size);
      float_scores<T>(dp, memory, x2, own2.strides.token, first, rows, y2, other2.strides.token, line, lines, p.value_size);
      differentiate(g, block, first + threadIdx.x / 16 * 4, line + threadIdx.x % 16 * 4, s, dp);
      if (ForKeys) {
        float_share(weights, s);
        float_accumulate<T, Columns>(sum2, weights, lines_memory, y2, other2.strides.token, line, lines, channel, p.value_size);
        __syncthreads();  // everyone has read the weights
      }
      float_share(weights, dp);
      float_accumulate<T, Columns>(sum1, weights, lines_memory, y1, other1.strides.token, line, lines, channel, p.head_size);
    }
    const float scales[4] = {p.scale, p.scale, p.scale, p.scale}, ones[4] = {1.f, 1.f, 1.f, 1.f};
    const AttentionResult &to1 = ForKeys ? g.dk : g.dq, &to2 = g.dv;
    float_write<T, Columns>(sum1, scales, rows_of<T>(to1, batch, head), to1.strides.token, first, rows, channel, p.head_size);
    if (ForKeys) float_write<T, Columns>(sum2, ones, rows_of<T>(to2, batch, head), to2.strides.token, first, rows, channel, p.value_size);
  }
};

template <class T, int Columns, bool ForKeys>
__global__ void __launch_bounds__(256, 1) attention_float_backward_kernel(const __grid_constant__ AttentionGradientArguments g) {
  TD_DYNAMIC_SHARED(shared);
  AttentionFloatBackward<T, Columns, ForKeys>::run(g, shared);
}

}  // namespace td::cuda

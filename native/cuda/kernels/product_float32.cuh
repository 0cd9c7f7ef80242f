// The matrix product of product.cuh in exact float32 on the ordinary cores: each thread sums 8 x 8 numbers in registers; the
// next tiles travel through registers while the present ones are multiplied.
#pragma once
#include "product.cuh"

namespace td::cuda {

/// A tile of one operand, k outside: [Depth][Lines + 4]. Of a thread: vectors of 4 numbers.
template <class Operand, int Lines, int Depth, int Threads>
struct FloatTile {
  static constexpr bool kInnerK = Operand::kInnerK;
  static constexpr int kStride = Lines + 4, kSize = Depth * kStride;
  static constexpr int kRow = (kInnerK ? Depth : Lines) / 4, kVectors = Lines * Depth / 4 / Threads;
  static_assert(Lines * Depth % (4 * Threads) == 0 && Threads % kRow == 0, "every thread copies the same number of vectors");

  typename Operand::Line lines[kInnerK ? kVectors : 1];
  float numbers[kVectors][4];

  __device__ __forceinline__ void prepare(const Operand& operand, int first) {
#pragma unroll
    for (int i = 0; i < (kInnerK ? kVectors : 1); ++i) {
      const int v = threadIdx.x + i * Threads;
      lines[i] = operand.line(first + (kInnerK ? v / kRow : v % kRow * 4));
    }
  }
  __device__ __forceinline__ void fetch(const Operand& operand, const typename Operand::Step& step) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int v = threadIdx.x + i * Threads;
      const Span span = operand.at(lines[kInnerK ? i : 0], step, kInnerK ? v % kRow * 4 : v / kRow);
      const float* from = static_cast<const float*>(span.from);
      if (operand.aligned && span.valid == 4) {
        Packed<float, 4>::load(from, numbers[i]);
      } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) numbers[i][j] = j < span.valid ? from[j] : 0.f;
      }
    }
  }
  __device__ __forceinline__ void store(float* to) const {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int v = threadIdx.x + i * Threads;
      if constexpr (kInnerK) {
#pragma unroll
        for (int j = 0; j < 4; ++j) to[(v % kRow * 4 + j) * kStride + v / kRow] = numbers[i][j];
      } else {
        Packed<float, 4>::store(to + v / kRow * kStride + v % kRow * 4, numbers[i]);
      }
    }
  }
};

/// Block x Block numbers of the result; a thread sums four corners of 4 x 4, half a block apart: with geglu two of them are the gates.
template <class Problem, int Block>
struct FloatProduct {
  static constexpr int kRows = Block, kColumns = Block, kGroup = Block, BK = 16, kQuads = 2;
  static constexpr int kSide = Block / (4 * kQuads), kThreads = kSide * kSide, kBlocks = 1;
  using A = FloatTile<typename Problem::A, Block, BK, kThreads>;
  using B = FloatTile<typename Problem::B, Block, BK, kThreads>;
  static constexpr int kTile = A::kSize + B::kSize, kShared = 2 * kTile * 4;

  static __device__ __forceinline__ void run(const Problem& p, const Partial& shared_sums, unsigned char* shared) {
    float* const memory = reinterpret_cast<float*>(shared);
    const int x = threadIdx.x % kSide * 4, y = threadIdx.x / kSide * 4, first_m = blockIdx.x * Block, first_n = blockIdx.y * Block;
    const Steps steps(p.steps(BK), blockIdx.z % shared_sums.splits, shared_sums.splits);
    A a;
    B b;
    a.prepare(p.a, first_m);
    b.prepare(p.b, first_n);
    const auto fetch = [&](int i) {
      const auto step = p.step(i, BK);
      a.fetch(p.a, step);
      b.fetch(p.b, step);
    };
    const auto store = [&](int i) {
      float* tile = memory + (i - steps.begin) % 2 * kTile;
      a.store(tile);
      b.store(tile + A::kSize);
    };
    float c[4 * kQuads][4 * kQuads];
#pragma unroll
    for (int i = 0; i < 4 * kQuads; ++i) {
#pragma unroll
      for (int j = 0; j < 4 * kQuads; ++j) c[i][j] = 0.f;
    }
    if (steps.begin < steps.end) {
      fetch(steps.begin);
      store(steps.begin);
    }
    for (int i = steps.begin; i < steps.end; ++i) {
      __syncthreads();  // tile i is there; everyone has left the one that is stored to below
      if (i + 1 < steps.end) fetch(i + 1);
      const float* tile = memory + (i - steps.begin) % 2 * kTile;
#pragma unroll
      for (int k = 0; k < BK; ++k) {
        float u[kQuads][4], w[kQuads][4];
#pragma unroll
        for (int q = 0; q < kQuads; ++q) {
          Packed<float, 4>::load(tile + k * A::kStride + q * Block / kQuads + y, u[q]);
          Packed<float, 4>::load(tile + A::kSize + k * B::kStride + q * Block / kQuads + x, w[q]);
        }
#pragma unroll
        for (int r = 0; r < 4 * kQuads; ++r) {
#pragma unroll
          for (int s = 0; s < 4 * kQuads; ++s) c[r][s] += u[r / 4][r % 4] * w[s / 4][s % 4];
        }
      }
      if (i + 1 < steps.end) store(i + 1);
    }
    float* partial = shared_sums.sums ? shared_sums.sums + int64_t(blockIdx.z) * p.rows * product_columns(p.epilogue) : nullptr;
    const bool geglu = p.epilogue.activation == Activation::geglu;
#pragma unroll
    for (int r = 0; r < 4 * kQuads; ++r) {
      const int m = first_m + r / 4 * (Block / kQuads) + y + r % 4;
      const int64_t row = p.row(m);
      float v[4] = {c[r][0], c[r][1], c[r][2], c[r][3]}, w[4] = {c[r][4], c[r][5], c[r][6], c[r][7]};
      finish_row<float, kGroup>(p.epilogue, partial, m, row, first_n + x, v, w);
      if (geglu) continue;
      finish_row<float, kGroup>(p.epilogue, partial, m, row, first_n + Block / 2 + x, w, v);
    }
  }
};

}  // namespace td::cuda

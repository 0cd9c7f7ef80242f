// The matrix product behind linear layers and convolutions on tensor cores: out[m, n] = sum over k of A[m, k] B[k, n], 16-bit numbers,
// float32 sums. A problem (gemm.cuh, convolution.cuh) says where the numbers of A and B lie; asynchronous copies bring tiles of both
// into a ring in shared memory; each warp multiplies WM x 32.
#pragma once
#include "epilogue.cuh"
#include "span.cuh"

namespace td::cuda {

/// A tile of one operand in shared memory: `Lines` lines (rows of A, columns of B) by Depth steps along k. Rows are padded to an odd
/// multiple of 16 bytes, so that the rows of a fragment meet every bank once.
template <class Operand, int Lines, int Depth, int Threads>
struct OperandTile {
  static constexpr bool kInnerK = Operand::kInnerK;
  static constexpr int kWidth = kInnerK ? Depth : Lines, kStride = kWidth + 8, kSize = (kInnerK ? Lines : Depth) * kStride;
  static constexpr int kRow = kWidth / 8, kVectors = Lines * Depth / 8 / Threads;  // vectors of a row; of a thread
  static_assert(Lines * Depth % (8 * Threads) == 0 && Threads % kRow == 0, "every thread copies the same number of vectors");

  typename Operand::Line lines[kInnerK ? kVectors : 1];

  /// Every thread copies the same lines in every step: their places are worked out once.
  __device__ __forceinline__ void prepare(const Operand& operand, int first) {
#pragma unroll
    for (int i = 0; i < (kInnerK ? kVectors : 1); ++i) {
      const int v = threadIdx.x + i * Threads;
      lines[i] = operand.line(first + (kInnerK ? v / kRow : v % kRow * 8));
    }
  }
  __device__ __forceinline__ void fetch(const Operand& operand, const typename Operand::Step& step, uint16_t* to, bool aligned) const {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int v = threadIdx.x + i * Threads;
      const Span span = operand.at(lines[kInnerK ? i : 0], step, kInnerK ? v % kRow * 8 : v / kRow);
      copy_span(to + v / kRow * kStride + v % kRow * 8, span, aligned);
    }
  }
  /// 16 lines by 16 steps of k as the fragment of A.
  static __device__ __forceinline__ void fragment_a(uint32_t (&r)[4], const uint16_t* tile, int line, int k) {
    const int lane = threadIdx.x % 32;
    if constexpr (kInnerK) load_matrices<false>(r, tile + (line + lane % 16) * kStride + k + lane / 16 * 8);
    else load_matrices<true>(r, tile + (k + lane / 16 * 8 + lane % 8) * kStride + line + lane / 8 % 2 * 8);
  }
  /// The same as two fragments of B, 8 columns each.
  static __device__ __forceinline__ void fragment_b(uint32_t (&r)[4], const uint16_t* tile, int line, int k) {
    const int lane = threadIdx.x % 32;
    if constexpr (kInnerK) load_matrices<false>(r, tile + (line + lane / 16 * 8 + lane % 8) * kStride + k + lane / 8 % 2 * 8);
    else load_matrices<true>(r, tile + (k + lane % 16) * kStride + line + lane / 16 * 8);
  }
};

/// The share of one block in the steps along k.
struct Steps {
  int begin, end;
  __device__ __forceinline__ Steps(int all, int split, int splits) {
    const int each = (all + splits - 1) / splits;
    begin = min(split * each, all);
    end = min(begin + each, all);
  }
};

/// Aligned: both operands are, for certain; else each by a flag.
template <class T, class Problem, int BM, int BN, int WM, int Stages, bool Aligned>
struct Product {
  static constexpr int kGroup = 32, WN = kGroup, BK = 32, kWarpsM = BM / WM, kThreads = 32 * kWarpsM * (BN / WN);
  static constexpr int kRows = BM, kColumns = BN;
  using A = OperandTile<typename Problem::A, BM, BK, kThreads>;
  using B = OperandTile<typename Problem::B, BN, BK, kThreads>;
  static constexpr int kTile = A::kSize + B::kSize, kStagingStride = WN + 4;
  static constexpr int kStaging = kThreads / 32 * 16 * kStagingStride * 4, kRing = 2 * Stages * kTile;
  static constexpr int kShared = kRing > kStaging ? kRing : kStaging;
  static constexpr int kBlocks = resident_blocks(512 / kThreads, kShared);  // 512 threads have 128 registers each
  using Sums = float[WM / 16][WN / 8][4];

  static __device__ __forceinline__ void multiply(Sums& c, const uint16_t* tile, int warp_m, int warp_n) {
#pragma unroll
    for (int k = 0; k < BK; k += 16) {
      uint32_t a[WM / 16][4], b[WN / 16][4];
#pragma unroll
      for (int m = 0; m < WM / 16; ++m) A::fragment_a(a[m], tile, warp_m + m * 16, k);
#pragma unroll
      for (int n = 0; n < WN / 16; ++n) B::fragment_b(b[n], tile + A::kSize, warp_n + n * 16, k);
#pragma unroll
      for (int m = 0; m < WM / 16; ++m) {
#pragma unroll
        for (int n = 0; n < WN / 16; ++n) {
          mma_k16(T(), c[m][2 * n], a[m], b[n][0], b[n][1]);
          mma_k16(T(), c[m][2 * n + 1], a[m], b[n][2], b[n][3]);
        }
      }
    }
  }

  /// Rows go through a strip of shared memory of the warp's own, so that they are finished and written in whole vectors.
  static __device__ __forceinline__ void finish(const Problem& p, float* partial, const Sums& c, float* strip, int first_m, int first_n) {
    const int lane = threadIdx.x % 32;
    const bool geglu = p.epilogue.activation == Activation::geglu;
    const int vectors = geglu ? WN / 16 : WN / 8;
#pragma unroll
    for (int m = 0; m < WM / 16; ++m) {
      __syncwarp();
#pragma unroll
      for (int n = 0; n < WN / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) strip[(lane / 4 + i / 2 * 8) * kStagingStride + n * 8 + lane % 4 * 2 + i % 2] = c[m][n][i];
      }
      __syncwarp();
      for (int i = lane; i < 16 * vectors; i += 32) {
        const int row = i / vectors, n = i % vectors * 8, global = first_m + m * 16 + row;
        float v[8], gates[8];
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          v[j] = strip[row * kStagingStride + n + j];
          gates[j] = geglu ? strip[row * kStagingStride + WN / 2 + n + j] : 0.f;
        }
        finish_row<T, kGroup>(p.epilogue, partial, global, p.row(global), first_n + n, v, gates);
      }
    }
  }

  static __device__ __forceinline__ void run(const Problem& p, const Partial& shared_sums, unsigned char* shared) {
    uint16_t* const memory = reinterpret_cast<uint16_t*>(shared);
    const int warp = threadIdx.x / 32, warp_m = warp % kWarpsM * WM, warp_n = warp / kWarpsM * WN;
    const int first_m = blockIdx.x * BM, first_n = blockIdx.y * BN;
    const Steps steps(p.steps(BK), blockIdx.z % shared_sums.splits, shared_sums.splits);
    A a;
    B b;
    a.prepare(p.a, first_m);
    b.prepare(p.b, first_n);
    const auto fetch = [&](int i) {
      if (i < steps.end) {
        uint16_t* to = memory + (i - steps.begin) % Stages * kTile;
        const auto step = p.step(i, BK);
        a.fetch(p.a, step, to, Aligned || p.a.aligned);
        b.fetch(p.b, step, to + A::kSize, Aligned || p.b.aligned);
      }
      copy_commit();  // also empty ones, so that the wait below counts the same in every step
    };
    Sums c;
#pragma unroll
    for (int m = 0; m < WM / 16; ++m) {
#pragma unroll
      for (int n = 0; n < WN / 8; ++n) c[m][n][0] = c[m][n][1] = c[m][n][2] = c[m][n][3] = 0.f;
    }
    for (int s = 0; s < Stages - 1; ++s) fetch(steps.begin + s);
    for (int i = steps.begin; i < steps.end; ++i) {
      copy_wait<Stages - 2>();
      __syncthreads();  // the tile is there for everyone, and everyone has left the one that is fetched into next
      fetch(i + Stages - 1);
      multiply(c, memory + (i - steps.begin) % Stages * kTile, warp_m, warp_n);
    }
    copy_wait<0>();
    __syncthreads();  // the ring becomes the strips
    float* partial = shared_sums.sums ? shared_sums.sums + int64_t(blockIdx.z) * p.rows * product_columns(p.epilogue) : nullptr;
    finish(p, partial, c, reinterpret_cast<float*>(shared) + warp * 16 * kStagingStride, first_m + warp_m, first_n + warp_n);
  }
};

/// The batch and the share of k of a block are its place along z.
template <class Tile, class Problem>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks) product_kernel(const __grid_constant__ typename Problem::Arguments arguments) {
  TD_DYNAMIC_SHARED(shared);
  const Problem problem(arguments, blockIdx.z / arguments.partial.splits);
  Tile::run(problem, arguments.partial, shared);
}

/// Adds the sums that blocks left and finishes them, one thread for 4 numbers of the result.
template <class T, class Problem>
__global__ void __launch_bounds__(256) product_finish_kernel(const __grid_constant__ typename Problem::Arguments arguments) {
  const Problem p(arguments, blockIdx.z);
  const Epilogue& e = p.epilogue;
  const int quads = (e.columns + 3) / 4, columns = product_columns(e), splits = arguments.partial.splits;
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= int64_t(p.rows) * quads) return;
  const int m = static_cast<int>(i / quads), column = static_cast<int>(i % quads) * 4;
  const float* sums = arguments.partial.sums + int64_t(blockIdx.z) * splits * p.rows * columns + int64_t(m) * columns + column;
  const int64_t row = p.row(m);
  if (row < 0) return;
  for (int j = 0; j < 4 && column + j < e.columns; ++j) {
    float v[1] = {0.f}, gate[1] = {0.f};
    for (int s = 0; s < splits; ++s) {
      v[0] += sums[int64_t(s) * p.rows * columns + j];
      if (e.activation == Activation::geglu) gate[0] += sums[int64_t(s) * p.rows * columns + e.columns + j];
    }
    add_offsets<T>(e, m, column + j, columns, v);
    if (e.activation == Activation::geglu) {
      add_offsets<T>(e, m, e.columns + column + j, columns, gate);
      v[0] *= gelu(gate[0]);
    }
    const int64_t at = row * e.stride + column + j;
    v[0] = activate(e.activation, v[0]);
    using Number = typename Stored<T>::type;
    if (e.residual) v[0] += Stored<T>::load(static_cast<const Number*>(e.residual), at);
    Stored<T>::store(static_cast<Number*>(e.out), at, v[0]);
  }
}

}  // namespace td::cuda

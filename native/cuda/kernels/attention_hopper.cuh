// Attention forward for Hopper (FlashAttention-3, Shah et al. 2024): one warpgroup brings tiles by bulk copies, two others multiply with
// wgmma, 64 queries each. They take turns: while one issues its products, the other computes exponentials. Within a warpgroup the scores
// of the next tile are multiplied before the weights of this one are, so that the tensor cores work through the exponentials, too.
// Tiles keep their rows of 64 channels swizzled; heads of 40 fill up a row, but only 48 of its channels are multiplied, 40 summed.
#pragma once
#include "attention.cuh"
#include "hopper.cuh"

namespace td::cuda {

struct AttentionHopperArguments {
  AttentionArguments forward;
  TensorMap q, k, v;  // [batch, head, token, channel]; boxes of 64 channels by 64 queries, or by Keys keys
};

/// 2^x for x <= 0 on the cores that multiply and add, where those for exponentials are the bottleneck; to 3e-6.
__device__ __forceinline__ float exp2_polynomial(float x) {
  const float clipped = fmaxf(x, -126.f), shifted = clipped + 12582912.f;  // 1.5 * 2^23: the whole part in the low bits
  const float f = clipped - (shifted - 12582912.f);
  const float p = 0.99999919f + f * (0.69312196f + f * (0.24024981f + f * (0.05591708f + f * 0.00956052f)));
  const float y = __uint_as_float(__float_as_uint(p) + (__float_as_uint(shifted) << 23));
  return x < -125.f ? 0.f : y;
}

/// Polynomial: of 16 exponentials, how many go to exp2_polynomial; to be tuned on a card.
template <class T, int D, int Keys, int Stages, int Polynomial>
struct AttentionHopper {
  static_assert(Keys == 64 || Keys == 128, "scores of one wgmma");
  static constexpr int kThreads = 384, kRows = 128, kRowBytes = 128, kBlocks = (D + 63) / 64, kSteps = (D + 15) / 16;
  static constexpr int kTile = kBlocks * Keys * kRowBytes;
  /// Of one warpgroup: its queries, later the strips of its results.
  static constexpr int kQueries = kBlocks * 64 * kRowBytes, kStrips = (64 * row_stride(D) * 2 + 1023) / 1024 * 1024;
  static constexpr int kOwn = kQueries > kStrips ? kQueries : kStrips;
  static constexpr int kBarriers = 2 * kOwn + Stages * 2 * kTile, kShared = kBarriers + 8 * (1 + 4 * Stages);
  static constexpr int kTurns = 256;  // threads that meet at the barrier of a warpgroup's turn

  /// One of the barriers: of the queries, then of each slot: keys there, values there, keys read, values read.
  struct Barriers {
    unsigned char* at;
    __device__ __forceinline__ void* queries() const { return at; }
    __device__ __forceinline__ void* there(int slot, int which) const { return at + 8 * (1 + 4 * slot + which); }
    __device__ __forceinline__ void* read(int slot, int which) const { return at + 8 * (3 + 4 * slot + which); }
  };

  static __device__ __forceinline__ void prepare(const Barriers& barriers) {
    if (threadIdx.x == 0) {
      mbarrier_init(barriers.queries(), 1);
      for (int slot = 0; slot < Stages; ++slot) {
        for (int which = 0; which < 2; ++which) {
          mbarrier_init(barriers.there(slot, which), 1);
          mbarrier_init(barriers.read(slot, which), 8);  // the warps that multiply
        }
      }
      mbarrier_fence();
    }
    __syncthreads();
  }

  static __device__ __forceinline__ void load_tile(unsigned char* to, const TensorMap& map, void* barrier, int token, int rows, const BlockPlace& block) {
    for (int b = 0; b < kBlocks; ++b) bulk_load(to + b * rows * kRowBytes, map, barrier, 64 * b, token, block.head, block.batch);
  }

  /// One thread brings the queries and then tile after tile, as slots become free.
  static __device__ __forceinline__ void produce(const AttentionHopperArguments& p, unsigned char* shared, const Barriers& barriers, const BlockPlace& block,
                                                 int tiles) {
    mbarrier_expect(barriers.queries(), 2 * kQueries);
    for (int group = 0; group < 2; ++group) load_tile(shared + group * kOwn, p.q, barriers.queries(), block.first + 64 * group, 64, block);
    for (int tile = 0; tile < tiles; ++tile) {
      const int slot = tile % Stages;
      unsigned char* to = shared + 2 * kOwn + slot * 2 * kTile;
      for (int which = 0; which < 2; ++which) {
        mbarrier_wait(barriers.read(slot, which), (tile / Stages & 1) ^ 1);
        mbarrier_expect(barriers.there(slot, which), kTile);
        load_tile(to + which * kTile, which ? p.v : p.k, barriers.there(slot, which), tile * Keys, Keys, block);
      }
    }
  }

  struct Place {
    int group, lane, first;  // first: of the warp's 16 queries
  };
  using Scores = float[Keys / 8][4];
  using Weights = uint32_t[Keys / 16][4];

  static __device__ __forceinline__ void multiply_keys(Scores& s, const unsigned char* q, const unsigned char* k) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int inside = step % 4 * 32, block = step / 4;
      Wgmma<T, Keys>::by_descriptors(s, describe_tile(q + block * 64 * kRowBytes + inside, 16, 1024),
                                     describe_tile(k + block * Keys * kRowBytes + inside, 16, 1024), step > 0);
    }
    wgmma_commit();
  }
  static __device__ __forceinline__ void multiply_values(float (&o)[D / 8][4], const Weights& weights, const unsigned char* v) {
#pragma unroll
    for (int j = 0; j < Keys / 16; ++j) Wgmma<T, D>::by_registers(o, weights[j], describe_tile(v + j * 16 * kRowBytes, Keys * kRowBytes, 1024));
    wgmma_commit();
  }

  static __device__ __forceinline__ void mask(const AttentionArguments& p, Scores& s, const Place& at, int key) {
    if (key + Keys <= p.keys && !(p.causal && key + Keys > at.first + 1)) return;
#pragma unroll
    for (int n = 0; n < Keys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = key + n * 8 + at.lane % 4 * 2 + i % 2, query = at.first + at.lane / 4 + i / 2 * 8;
        if (column >= p.keys || (p.causal && column > query)) s[n][i] = -infinity();
      }
    }
  }

  struct Rows {
    float top[2], sum[2], shrink[2];

    /// Scores become weights relative to the new maximum; `shrink` is what the old sums are worth then.
    __device__ __forceinline__ void weigh(Scores& s, float factor) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float t = top[r];
#pragma unroll
        for (int n = 0; n < Keys / 8; ++n) t = fmaxf(t, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
        t = fmaxf(t, __shfl_xor_sync(0xffffffffu, t, 1));
        t = fmaxf(t, __shfl_xor_sync(0xffffffffu, t, 2));
        const float shift = t == -infinity() ? 0.f : t * factor;  // a row whose keys are all masked
        shrink[r] = exp2_fast(top[r] * factor - shift);
        top[r] = t;
        float total = sum[r] * shrink[r];
#pragma unroll
        for (int n = 0; n < Keys / 8; ++n) {
#pragma unroll
          for (int i = 2 * r; i < 2 * r + 2; ++i) {
            const float x = s[n][i] * factor - shift;
            s[n][i] = (n * 2 + i % 2) % 16 < Polynomial ? exp2_polynomial(x) : exp2_fast(x);
            total += s[n][i];
          }
        }
        sum[r] = total;
      }
    }
  };

  static __device__ __forceinline__ void consume(const AttentionArguments& p, unsigned char* shared, const Barriers& barriers, const BlockPlace& block,
                                                 const Place& at, int tiles) {
    unsigned char* const q = shared + at.group * kOwn;
    const auto slot_of = [&](int tile) { return shared + 2 * kOwn + tile % Stages * 2 * kTile; };
    const auto await = [&](int tile, int which) { mbarrier_wait(barriers.there(tile % Stages, which), tile / Stages & 1); };
    const auto release = [&](int tile, int which) {
      if (at.lane == 0) mbarrier_arrive(barriers.read(tile % Stages, which));
    };
    const int mine = 1 + at.group, other = 2 - at.group;
    const auto begin_turn = [&] { named_barrier(mine, kTurns); };
    // The first warpgroup has the first turn; the last turn of the second is nobody's to wait for.
    const auto end_turn = [&](int tile) {
      if (at.group == 0 || tile + 1 < tiles) named_arrive(other, kTurns);
    };
    if (at.group == 1) named_arrive(other, kTurns);

    const float factor = p.scale * kLog2E;
    float o[D / 8][4];
#pragma unroll
    for (int n = 0; n < D / 8; ++n) o[n][0] = o[n][1] = o[n][2] = o[n][3] = 0.f;
    Rows rows{{-infinity(), -infinity()}, {0.f, 0.f}, {0.f, 0.f}};
    Scores s;
    Weights weights;
    mbarrier_wait(barriers.queries(), 0);
    await(0, 0);
    begin_turn();
    wgmma_fence();
    multiply_keys(s, q, slot_of(0));
    end_turn(0);
    wgmma_wait<0>();
    settle(s);
    release(0, 0);
    mask(p, s, at, 0);
    rows.weigh(s, factor);
    round_rows<T, Keys>(weights, s);
    for (int tile = 1; tile < tiles; ++tile) {
      await(tile, 0);
      begin_turn();
      settle(o);
      wgmma_fence();
      multiply_keys(s, q, slot_of(tile));
      await(tile - 1, 1);
      multiply_values(o, weights, slot_of(tile - 1) + kTile);
      end_turn(tile);
      wgmma_wait<1>();  // the scores are there; the values are still multiplied
      settle(s);
      release(tile, 0);
      mask(p, s, at, tile * Keys);
      rows.weigh(s, factor);
      wgmma_wait<0>();
      settle(o);
      release(tile - 1, 1);
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) o[n][i] *= rows.shrink[i / 2];
      }
      round_rows<T, Keys>(weights, s);
    }
    await(tiles - 1, 1);
    settle(o);
    wgmma_fence();
    multiply_values(o, weights, slot_of(tiles - 1) + kTile);
    wgmma_wait<0>();
    settle(o);
    write(p, rows, o, reinterpret_cast<uint16_t*>(q) + (threadIdx.x / 32 % 4) * 16 * row_stride(D), block, at, factor);
  }

  static __device__ __forceinline__ void write(const AttentionArguments& p, Rows& rows, const float (&o)[D / 8][4], uint16_t* strip, const BlockPlace& block,
                                               const Place& at, float factor) {
    float inverse[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      rows.sum[r] += __shfl_xor_sync(0xffffffffu, rows.sum[r], 1);
      rows.sum[r] += __shfl_xor_sync(0xffffffffu, rows.sum[r], 2);
      inverse[r] = rows.sum[r] > 0.f ? 1.f / rows.sum[r] : 0.f;
      const int query = at.first + at.lane / 4 + r * 8;
      if (p.lse && at.lane % 4 == 0 && query < p.queries)
        p.lse[int64_t(block.pair) * p.queries + query] = rows.sum[r] > 0.f ? rows.top[r] * factor * kLn2 + logf(rows.sum[r]) : -infinity();
    }
    named_barrier(3 + at.group, 128);  // the strips lie over queries that all four warps of the group have multiplied
    write_rows<T, D>(strip, o, inverse[0], inverse[1], rows_of<T>(p.out, block.batch, block.head), p.out.strides.token, at.first, p.queries, p.value_size,
                     p.out.aligned);
  }

  static __device__ __forceinline__ void run(const AttentionHopperArguments& p, unsigned char* shared) {
    const Barriers barriers{shared + kBarriers};
    const BlockPlace block(p.forward.queries, kRows, p.forward.heads);
    const int seen = p.forward.causal ? min(p.forward.keys, block.first + kRows) : p.forward.keys, tiles = (seen + Keys - 1) / Keys;
    prepare(barriers);
    const int group = threadIdx.x / 128;
    if (group == 0) {
      give_registers_back<24>();
      if (threadIdx.x == 0) produce(p, shared, barriers, block, tiles);
    } else {
      take_registers<240>();
      const Place at{group - 1, int(threadIdx.x % 32), block.first + (group - 1) * 64 + int(threadIdx.x / 32 % 4) * 16};
      consume(p.forward, shared, barriers, block, at, tiles);
    }
  }
};

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, 1) attention_hopper_kernel(const __grid_constant__ AttentionHopperArguments p) {
  TD_DYNAMIC_SHARED(shared);
  Tile::run(p, shared);
}

}  // namespace td::cuda

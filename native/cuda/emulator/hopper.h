// Hopper's own instructions on the emulator: mbarrier, bulk tensor copies (TMA) with swizzle, wgmma with shared-memory descriptors.
// Descriptor fields and canonical layouts as CUTLASS documents them (cute/arch/mma_sm90_desc.hpp, mma_traits_sm90_gmma.hpp).
// Not covered: clusters and distributed shared memory, setmaxnreg, a missing fence.proxy.async.
#pragma once
#include <initializer_list>

#include "block.h"
#include "numbers.h"

namespace td::cuda::emulator {

// --- mbarrier -----------------------------------------------------------------------------------------------------------------

struct Mbarrier {
  uint32_t count : 20, phase : 1, used : 1, pending : 10;
  int32_t bytes;
};
static_assert(sizeof(Mbarrier) == 8, "64 bits in shared memory");

inline void mbarrier_init(void* at, int count) {
  if (count < 1 || count > 1023) die("an mbarrier counts 1 to 1023 arrivals here");
  *static_cast<Mbarrier*>(at) = Mbarrier{unsigned(count), 0, 1, unsigned(count), 0};
}
inline void mbarrier_settle(Mbarrier& barrier) {
  if (barrier.pending != 0 || barrier.bytes != 0) return;
  barrier.phase ^= 1;
  barrier.pending = barrier.count;
  ++block().phases;
}
inline Mbarrier& mbarrier_at(void* at) {
  Mbarrier& barrier = *static_cast<Mbarrier*>(at);
  if (barrier.count == 0xfffff) die("an mbarrier is used before it was initialised");
  return barrier;
}
inline void mbarrier_arrive(void* at, int expected_bytes) {
  Mbarrier& barrier = mbarrier_at(at);
  barrier.bytes += expected_bytes;
  if (barrier.pending == 0) die("more arrivals at an mbarrier than it counts");
  --barrier.pending;
  mbarrier_settle(barrier);
}
/// Waits until the phase of that parity is over.
inline void mbarrier_wait(void* at, unsigned parity) {
  forbid_alone("an mbarrier");
  Mbarrier& barrier = mbarrier_at(at);
  while (barrier.phase == parity) wait_for(&block().phases);
}

// --- bulk tensor copies -------------------------------------------------------------------------------------------------------

/// Dimensions from the innermost; strides in bytes; swizzle 0, 32, 64 or 128 bytes.
struct alignas(64) TensorMap {
  const char* base;
  uint64_t dims[4], strides[4];
  unsigned box[4];
  int rank, size, swizzle;
};
static_assert(sizeof(TensorMap) == 128, "as large as the driver's, for both are parameters of kernels");

/// Swizzle<1|2|3, 4, 3> of a byte offset.
inline uint32_t swizzled(uint32_t offset, int bytes) {
  const uint32_t mask = bytes == 128 ? 7 : bytes == 64 ? 3 : bytes == 32 ? 1 : 0;
  return offset ^ ((offset >> 7 & mask) << 4);
}

inline void check_bulk(const TensorMap& map, uint32_t start) {
  if (start % 128 || (map.swizzle == 128 && start % 1024)) die("a bulk copy needs aligned shared memory");
  if (map.swizzle && int(map.box[0]) * map.size > map.swizzle) die("a row of the box is wider than its swizzle");
  if (reinterpret_cast<uintptr_t>(map.base) % 16 || map.strides[1] % 16 || (map.rank > 2 && map.strides[2] % 16) || (map.rank > 3 && map.strides[3] % 16)) {
    die("a bulk copy needs addresses and strides that are multiples of 16 bytes");
  }
}

/// The box at coordinates `at`; what lies outside of the tensor becomes zero. Its bytes arrive at the barrier.
inline void bulk_load(void* to, const TensorMap& map, void* barrier, std::initializer_list<int> at) {
  Block& b = block();
  const uint32_t start = static_cast<char*>(to) - b.shared;
  check_bulk(map, start);
  const int* c = at.begin();
  if (map.rank > 3 && map.box[3] != 1) die("the emulator knows boxes of up to three dimensions");
  const auto extent = [&](int axis) { return map.rank > axis ? map.box[axis] : 1u; };
  int bytes = 0;
  for (unsigned z = 0; z < extent(2); ++z) {
    for (unsigned y = 0; y < extent(1); ++y) {
      for (unsigned x = 0; x < extent(0); ++x, bytes += map.size) {
        const int64_t place[4] = {int64_t(c[0]) + x, map.rank > 1 ? int64_t(c[1]) + y : 0, map.rank > 2 ? int64_t(c[2]) + z : 0, map.rank > 3 ? c[3] : 0};
        bool inside = true;
        for (int axis = 0; axis < map.rank; ++axis) inside = inside && place[axis] >= 0 && place[axis] < int64_t(map.dims[axis]);
        char* target = b.shared + swizzled(start + bytes, map.swizzle);
        if (inside) {
          const char* from = map.base + place[0] * map.size + place[1] * map.strides[1] + place[2] * map.strides[2] + place[3] * map.strides[3];
          std::memcpy(target, from, map.size);
        } else {
          std::memset(target, 0, map.size);
        }
      }
    }
  }
  Mbarrier& arrival = mbarrier_at(barrier);
  arrival.bytes -= bytes;
  mbarrier_settle(arrival);
}

// --- wgmma --------------------------------------------------------------------------------------------------------------------

/// Byte offset in shared memory of number (i, k) of an operand that a descriptor names; i counts rows of A or columns of B.
inline uint32_t described(uint64_t d, int i, int k, bool k_major) {
  const uint32_t start = (d & 0x3fff) << 4, lbo = (d >> 16 & 0x3fff) << 4, sbo = (d >> 32 & 0x3fff) << 4;
  const int mode = d >> 62 & 3, width = mode == 1 ? 128 : mode == 2 ? 64 : mode == 3 ? 32 : 16;
  uint32_t offset;
  if (k_major) {
    offset = i % 8 * width + i / 8 * sbo + (mode ? k / 8 * 16 : k / 8 * lbo) + k % 8 * 2;
  } else {
    const int atom = width / 2;  // numbers side by side
    offset = i % atom * 2 + i / atom * (mode ? lbo : sbo) + k % 8 * width + k / 8 * (mode ? sbo : lbo);
  }
  return swizzled(start + offset, mode ? width : 0);
}

inline float described_number(uint64_t d, int i, int k, bool k_major, bool bfloat) {
  const Block& b = block();
  const uint32_t offset = described(d, i, k, k_major);
  if (offset + 2 > b.shared_bytes) die("wgmma reads outside of shared memory");
  uint16_t bits;
  std::memcpy(&bits, b.shared + offset, 2);
  return bfloat ? bf16_to_float(bits) : half_to_float(bits);
}

struct WgmmaOperand {
  float* d;
  const uint32_t* a;
};
struct WgmmaCall {
  WgmmaOperand lanes[32];
  uint64_t a, b;
  int warp;
  bool add, a_in_registers, b_k_major, bfloat;
};

/// The 16 rows of one warp: D (16 x N) (+)= A B, K = 16.
template <int N>
void wgmma_rows(const WgmmaCall& call) {
  static thread_local float A[16][16], B[16][N];
  const auto number = [&](uint32_t bits, int i) { return call.bfloat ? bf16_to_float(bits >> 16 * i) : half_to_float(bits >> 16 * i); };
  for (int k = 0; k < 16; ++k) {
    for (int n = 0; n < N; ++n) B[k][n] = described_number(call.b, n, k, call.b_k_major, call.bfloat);
    for (int m = 0; m < 16 && !call.a_in_registers; ++m) A[m][k] = described_number(call.a, call.warp % 4 * 16 + m, k, true, call.bfloat);
  }
  for (int lane = 0; lane < 32 && call.a_in_registers; ++lane) {
    for (int r = 0; r < 4; ++r) {
      for (int i = 0; i < 2; ++i) A[lane / 4 + 8 * (r % 2)][lane % 4 * 2 + i + 8 * (r / 2)] = number(call.lanes[lane].a[r], i);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    float* d = call.lanes[lane].d;
    for (int i = 0; i < N / 2; ++i) {
      const int m = lane / 4 + 8 * (i / 2 % 2), n = i / 4 * 8 + lane % 4 * 2 + i % 2;
      float sum = call.add ? d[i] : 0.f;
      for (int k = 0; k < 16; ++k) sum += A[m][k] * B[k][n];
      d[i] = sum;
    }
  }
  block().counts.mma += 1;
  block().counts.mma_flop += 2 * 16 * N * 16;
}

/// D (64 x N) (+)= A B, K = 16; A in registers (`a`) or named by `da`. Options::copies says whether the operands are read and the
/// sums written at issue or in the wait: both before the wait is over is what the hardware promises.
template <int N>
void wgmma(float* d, const uint32_t* a, uint64_t da, uint64_t db, bool add, bool b_k_major, bool bfloat = false) {
  WgmmaOperand own{d, a};
  const int warp = self().id / 32;
  meet(0xffffffffu, Instruction::wgmma, &own, [=](void** lanes) {
    WgmmaCall call{{}, da, db, warp, add, a != nullptr, b_k_major, bfloat};
    for (int lane = 0; lane < 32; ++lane) call.lanes[lane] = *static_cast<WgmmaOperand*>(lanes[lane]);
    if (options().copies == Copies::early) {
      wgmma_rows<N>(call);
    } else {
      block().lanes[warp * 32].products.push_back([call] { wgmma_rows<N>(call); });
    }
  });
}
inline void wgmma_commit() {
  const int first = self().id / 32 * 32;
  meet(0xffffffffu, Instruction::wgmma, nullptr, [=](void**) {
    Lane& lane = block().lanes[first];
    lane.product_groups.push_back(std::move(lane.products));
    lane.products.clear();
  });
}
/// Waits until at most `left` groups are in flight.
inline void wgmma_wait(int left) {
  const int first = self().id / 32 * 32;
  meet(0xffffffffu, Instruction::wgmma, nullptr, [=](void**) {
    auto& groups = block().lanes[first].product_groups;
    while (static_cast<int>(groups.size()) > left) {
      for (const auto& product : groups.front()) product();
      groups.erase(groups.begin());
    }
  });
}

}  // namespace td::cuda::emulator

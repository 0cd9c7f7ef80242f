// The instructions of Hopper that plain CUDA has no names for: mbarriers, bulk tensor copies, wgmma. Once for nvcc and once for the emulator.
#pragma once
#include "device.cuh"
#if !defined(__CUDACC__)
#include "../emulator/hopper.h"
#endif

namespace td::cuda {

#if defined(__CUDACC__)

/// A tensor as bulk copies see it; made by the driver.
struct alignas(64) TensorMap {
  uint64_t opaque[16];
};

__device__ __forceinline__ void mbarrier_init(void* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(arrivals));
}
/// Makes initialised mbarriers known to the copies.
__device__ __forceinline__ void mbarrier_fence() { asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory"); }
/// Arrives and announces so many bytes.
__device__ __forceinline__ void mbarrier_expect(void* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}
__device__ __forceinline__ void mbarrier_arrive(void* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(barrier)) : "memory");
}
/// Waits until the phase of that parity is over.
__device__ __forceinline__ void mbarrier_wait(void* barrier, unsigned parity) {
  asm volatile(
      "{\n.reg .pred p;\nWAIT_%=:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@p bra DONE_%=;\nbra WAIT_%=;\nDONE_%=:\n}\n" ::"r"(
          shared_address(barrier)),
      "r"(parity)
      : "memory");
}
/// The box of a tensor [batch, head, token, channel] at these coordinates, its bytes announced to the mbarrier.
__device__ __forceinline__ void bulk_load(void* to, const TensorMap& map, void* barrier, int channel, int token, int head, int batch) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];\n" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "r"(channel), "r"(token), "r"(head), "r"(batch)
      : "memory");
}
/// Arrives at barrier `id` of `threads` threads without waiting.
__device__ __forceinline__ void named_arrive(int id, int threads) { asm volatile("bar.arrive %0, %1;\n" ::"r"(id), "r"(threads) : "memory"); }

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
template <int N>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(N) : "memory");
}
/// Keeps the compiler from reading or writing sums of wgmma on the other side of this line.
template <int N>
__device__ __forceinline__ void settle(float (&d)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; ++n) asm volatile("" : "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])::"memory");
}
/// Registers that a thread of the warpgroup may use from here on.
template <int N>
__device__ __forceinline__ void give_registers_back() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(N));
}
template <int N>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(N));
}

__device__ __forceinline__ uint32_t descriptor_address(const void* p) { return shared_address(p); }

/// D [64, N] (+)= A B, K = 16. A [64, 16] by its descriptor and B [N, 16], K inside; or A in registers and B [16, N], N inside. D lies as
/// mma.sync's C does, eight columns after eight columns; assembly cannot loop, so every size has its own text.
template <class T, int N>
struct Wgmma;

#define TD_D4(n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
#define TD_WGMMA_TEXT(N, type, D, A, B, add, tail) \
  "{\n.reg .pred p;\nsetp.ne.b32 p, " add ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "." type " {" D "}, " A ", " B ", p, 1, 1, " tail ";\n}\n"
template <>
struct Wgmma<half16, 40> {
  static __device__ __forceinline__ void by_registers(float (&d)[5][4], const uint32_t (&a)[4], uint64_t b) {
    asm volatile(TD_WGMMA_TEXT(40, "f16", "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19", "{%20,%21,%22,%23}", "%24", "%25", "1")
                 : TD_D4(0), TD_D4(1), TD_D4(2), TD_D4(3), TD_D4(4)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
  }
};
template <>
struct Wgmma<bfloat16, 40> {
  static __device__ __forceinline__ void by_registers(float (&d)[5][4], const uint32_t (&a)[4], uint64_t b) {
    asm volatile(TD_WGMMA_TEXT(40, "bf16", "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19", "{%20,%21,%22,%23}", "%24", "%25", "1")
                 : TD_D4(0), TD_D4(1), TD_D4(2), TD_D4(3), TD_D4(4)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
  }
};
template <>
struct Wgmma<half16, 64> {
  static __device__ __forceinline__ void by_descriptors(float (&d)[8][4], uint64_t a, uint64_t b, int add) {
    asm volatile(TD_WGMMA_TEXT(64, "f16", "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31", "%32", "%33", "%34", "0, 0")
                 : TD_D4(0), TD_D4(1), TD_D4(2), TD_D4(3), TD_D4(4), TD_D4(5), TD_D4(6), TD_D4(7)
                 : "l"(a), "l"(b), "r"(add));
  }
  static __device__ __forceinline__ void by_registers(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b) {
    asm volatile(TD_WGMMA_TEXT(64, "f16", "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31", "{%32,%33,%34,%35}", "%36", "%37", "1")
                 : TD_D4(0), TD_D4(1), TD_D4(2), TD_D4(3), TD_D4(4), TD_D4(5), TD_D4(6), TD_D4(7)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
  }
};
template <>
struct Wgmma<bfloat16, 64> {
  static __device__ __forceinline__ void by_descriptors(float (&d)[8][4], uint64_t a, uint64_t b, int add) {
    asm volatile(TD_WGMMA_TEXT(64, "bf16", "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31", "%32", "%33", "%34", "0, 0")
                 : TD_D4(0), TD_D4(1), TD_D4(2), TD_D4(3), TD_D4(4), TD_D4(5), TD_D4(6), TD_D4(7)
                 : "l"(a), "l"(b), "r"(add));
  }
  static __device__ __forceinline__ void by_registers(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b) {
    asm volatile(TD_WGMMA_TEXT(64, "bf16", "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31", "{%32,%33,%34,%35}", "%36", "%37", "1")
                 : TD_D4(0), TD_D4(1), TD_D4(2), TD_D4(3), TD_D4(4), TD_D4(5), TD_D4(6), TD_D4(7)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
  }
};
template <>
struct Wgmma<half16, 80> {
  static __device__ __forceinline__ void by_registers(float (&d)[10][4], const uint32_t (&a)[4], uint64_t b) {
    asm volatile(TD_WGMMA_TEXT(80, "f16", "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39", "{%40,%41,%42,%43}", "%44", "%45", "1")
                 : TD_D4(0), TD_D4(1), TD_D4(2), TD_D4(3), TD_D4(4), TD_D4(5), TD_D4(6), TD_D4(7), TD_D4(8), TD_D4(9)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
  }
};
template <>
struct Wgmma<bfloat16, 80> {
  static __device__ __forceinline__ void by_registers(float (&d)[10][4], const uint32_t (&a)[4], uint64_t b) {
    asm volatile(TD_WGMMA_TEXT(80, "bf16", "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39", "{%40,%41,%42,%43}", "%44", "%45", "1")
                 : TD_D4(0), TD_D4(1), TD_D4(2), TD_D4(3), TD_D4(4), TD_D4(5), TD_D4(6), TD_D4(7), TD_D4(8), TD_D4(9)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
  }
};
template <>
struct Wgmma<half16, 96> {
  static __device__ __forceinline__ void by_registers(float (&d)[12][4], const uint32_t (&a)[4], uint64_t b) {
    asm volatile(TD_WGMMA_TEXT(96, "f16", "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47", "{%48,%49,%50,%51}", "%52", "%53", "1")
                 : TD_D4(0), TD_D4(1), TD_D4(2), TD_D4(3), TD_D4(4), TD_D4(5), TD_D4(6), TD_D4(7), TD_D4(8), TD_D4(9), TD_D4(10), TD_D4(11)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
  }
};
template <>
struct Wgmma<bfloat16, 96> {
  static __device__ __forceinline__ void by_registers(float (&d)[12][4], const uint32_t (&a)[4], uint64_t b) {
    asm volatile(TD_WGMMA_TEXT(96, "bf16", "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47", "{%48,%49,%50,%51}", "%52", "%53", "1")
                 : TD_D4(0), TD_D4(1), TD_D4(2), TD_D4(3), TD_D4(4), TD_D4(5), TD_D4(6), TD_D4(7), TD_D4(8), TD_D4(9), TD_D4(10), TD_D4(11)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
  }
};
template <>
struct Wgmma<half16, 128> {
  static __device__ __forceinline__ void by_descriptors(float (&d)[16][4], uint64_t a, uint64_t b, int add) {
    asm volatile(TD_WGMMA_TEXT(128, "f16", "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63", "%64", "%65", "%66", "0, 0")
                 : TD_D4(0), TD_D4(1), TD_D4(2), TD_D4(3), TD_D4(4), TD_D4(5), TD_D4(6), TD_D4(7), TD_D4(8), TD_D4(9), TD_D4(10), TD_D4(11), TD_D4(12), TD_D4(13), TD_D4(14), TD_D4(15)
                 : "l"(a), "l"(b), "r"(add));
  }
  static __device__ __forceinline__ void by_registers(float (&d)[16][4], const uint32_t (&a)[4], uint64_t b) {
    asm volatile(TD_WGMMA_TEXT(128, "f16", "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63", "{%64,%65,%66,%67}", "%68", "%69", "1")
                 : TD_D4(0), TD_D4(1), TD_D4(2), TD_D4(3), TD_D4(4), TD_D4(5), TD_D4(6), TD_D4(7), TD_D4(8), TD_D4(9), TD_D4(10), TD_D4(11), TD_D4(12), TD_D4(13), TD_D4(14), TD_D4(15)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
  }
};
template <>
struct Wgmma<bfloat16, 128> {
  static __device__ __forceinline__ void by_descriptors(float (&d)[16][4], uint64_t a, uint64_t b, int add) {
    asm volatile(TD_WGMMA_TEXT(128, "bf16", "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63", "%64", "%65", "%66", "0, 0")
                 : TD_D4(0), TD_D4(1), TD_D4(2), TD_D4(3), TD_D4(4), TD_D4(5), TD_D4(6), TD_D4(7), TD_D4(8), TD_D4(9), TD_D4(10), TD_D4(11), TD_D4(12), TD_D4(13), TD_D4(14), TD_D4(15)
                 : "l"(a), "l"(b), "r"(add));
  }
  static __device__ __forceinline__ void by_registers(float (&d)[16][4], const uint32_t (&a)[4], uint64_t b) {
    asm volatile(TD_WGMMA_TEXT(128, "bf16", "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63", "{%64,%65,%66,%67}", "%68", "%69", "1")
                 : TD_D4(0), TD_D4(1), TD_D4(2), TD_D4(3), TD_D4(4), TD_D4(5), TD_D4(6), TD_D4(7), TD_D4(8), TD_D4(9), TD_D4(10), TD_D4(11), TD_D4(12), TD_D4(13), TD_D4(14), TD_D4(15)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
  }
};
template <>
struct Wgmma<half16, 160> {
  static __device__ __forceinline__ void by_registers(float (&d)[20][4], const uint32_t (&a)[4], uint64_t b) {
    asm volatile(TD_WGMMA_TEXT(160, "f16", "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79", "{%80,%81,%82,%83}", "%84", "%85", "1")
                 : TD_D4(0), TD_D4(1), TD_D4(2), TD_D4(3), TD_D4(4), TD_D4(5), TD_D4(6), TD_D4(7), TD_D4(8), TD_D4(9), TD_D4(10), TD_D4(11), TD_D4(12), TD_D4(13), TD_D4(14), TD_D4(15), TD_D4(16), TD_D4(17), TD_D4(18), TD_D4(19)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
  }
};
template <>
struct Wgmma<bfloat16, 160> {
  static __device__ __forceinline__ void by_registers(float (&d)[20][4], const uint32_t (&a)[4], uint64_t b) {
    asm volatile(TD_WGMMA_TEXT(160, "bf16", "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79", "{%80,%81,%82,%83}", "%84", "%85", "1")
                 : TD_D4(0), TD_D4(1), TD_D4(2), TD_D4(3), TD_D4(4), TD_D4(5), TD_D4(6), TD_D4(7), TD_D4(8), TD_D4(9), TD_D4(10), TD_D4(11), TD_D4(12), TD_D4(13), TD_D4(14), TD_D4(15), TD_D4(16), TD_D4(17), TD_D4(18), TD_D4(19)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
  }
};
#undef TD_D4
#undef TD_WGMMA_TEXT

#else  // the emulator

using TensorMap = emulator::TensorMap;
inline void mbarrier_init(void* barrier, int arrivals) { emulator::mbarrier_init(barrier, arrivals); }
inline void mbarrier_fence() {}
inline void mbarrier_expect(void* barrier, int bytes) { emulator::mbarrier_arrive(barrier, bytes); }
inline void mbarrier_arrive(void* barrier) { emulator::mbarrier_arrive(barrier, 0); }
inline void mbarrier_wait(void* barrier, unsigned parity) { emulator::mbarrier_wait(barrier, parity); }
inline void bulk_load(void* to, const TensorMap& map, void* barrier, int channel, int token, int head, int batch) {
  emulator::bulk_load(to, map, barrier, {channel, token, head, batch});
}
inline void named_arrive(int id, int threads) { emulator::barrier_arrive(id, threads); }
inline void wgmma_fence() {}
inline void wgmma_commit() { emulator::wgmma_commit(); }
template <int N>
void wgmma_wait() {
  emulator::wgmma_wait(N);
}
template <int N>
void settle(float (&)[N][4]) {}
template <int N>
void give_registers_back() {}
template <int N>
void take_registers() {}
inline uint32_t descriptor_address(const void* p) { return static_cast<uint32_t>(static_cast<const char*>(p) - emulator::block().shared); }

template <class T, int N>
struct Wgmma {
  static constexpr bool kBfloat = sizeof(T) && !__is_same(T, half16);
  static void by_descriptors(float (&d)[N / 8][4], uint64_t a, uint64_t b, int add) { emulator::wgmma<N>(&d[0][0], nullptr, a, b, add, true, kBfloat); }
  static void by_registers(float (&d)[N / 8][4], const uint32_t (&a)[4], uint64_t b) { emulator::wgmma<N>(&d[0][0], a, 0, b, true, false, kBfloat); }
};

#endif

/// Names a tile in shared memory whose rows of 128 bytes are swizzled: distances of blocks of 64 numbers and of 8 rows, in bytes.
__device__ __forceinline__ uint64_t describe_tile(const void* p, uint32_t blocks, uint32_t rows) {
  return uint64_t((descriptor_address(p) & 0x3ffff) >> 4) | uint64_t(blocks >> 4) << 16 | uint64_t(rows >> 4) << 32 | uint64_t(1) << 62;
}

}  // namespace td::cuda

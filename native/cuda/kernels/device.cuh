// What differs between nvcc, NVRTC and g++ on the emulator: the types, and the instructions that kernels use beyond plain CUDA.
// Kernels hold no assembly and no #if.
#pragma once
#if defined(__CUDACC_RTC__)  // NVRTC: no headers at all
using uint8_t = unsigned char;
using int16_t = short;
using uint16_t = unsigned short;
using int32_t = int;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;
#elif defined(__CUDACC__)
#include <cuda_runtime.h>

#include <cstdint>
#else
#include "../emulator/cuda.h"
#endif

#if defined(__CUDACC__)
/// Dynamic shared memory of the block, aligned for swizzled tiles.
#define TD_DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
/// `count` numbers of shared memory.
#define TD_SHARED(type, name, count) __shared__ __align__(16) type name[count]
#else
#define TD_DYNAMIC_SHARED(name) unsigned char* name = reinterpret_cast<unsigned char*>(td::cuda::emulator::block().shared)
#define TD_SHARED(type, name, count)       \
  static const char name##_declared = 0;   \
  type* name = static_cast<type*>(td::cuda::emulator::static_shared(&name##_declared, sizeof(type) * (count)))
#endif

namespace td::cuda {

/// The 16-bit types as tags of templates: IEEE half and bfloat16.
struct half16 {
  using bits = uint16_t;
};
struct bfloat16 {
  using bits = uint16_t;
};

#if defined(__CUDACC__)

__device__ __forceinline__ uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

#if __CUDA_ARCH__ >= 800
/// 16 bytes from global to shared memory, those beyond `valid` zero.
__device__ __forceinline__ void copy_async(void* to, const void* from, int valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)), "l"(from), "r"(valid) : "memory");
}
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
template <int N>
__device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}
#else  // Turing copies through registers
__device__ __forceinline__ void copy_async(void* to, const void* from, int valid) {
  uint4 bytes = make_uint4(0, 0, 0, 0);
  if (valid >= 16) bytes = *static_cast<const uint4*>(from);
  else
    for (int i = 0; i < valid; ++i) reinterpret_cast<unsigned char*>(&bytes)[i] = static_cast<const unsigned char*>(from)[i];
  *static_cast<uint4*>(to) = bytes;
}
__device__ __forceinline__ void copy_commit() {}
template <int N>
__device__ __forceinline__ void copy_wait() {}
#endif

template <bool Transposed>
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const void* row) {
  if constexpr (Transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
template <bool Transposed>
__device__ __forceinline__ void load_matrices(uint32_t (&r)[2], const void* row) {
  if constexpr (Transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];\n"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];\n" : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}

#define TD_MMA_K8(tag, name)                                                                                                          \
  __device__ __forceinline__ void mma_k8(tag, float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b0) {                                 \
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32." name "." name ".f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};\n"          \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                                     \
                 : "r"(a0), "r"(a1), "r"(b0));                                                                                        \
  }
#define TD_MMA_K16(tag, name)                                                                                                         \
  __device__ __forceinline__ void mma_k16(tag, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {                     \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." name "." name ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n" \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                                     \
  }
TD_MMA_K8(half16, "f16")
#if __CUDA_ARCH__ >= 800
TD_MMA_K16(half16, "f16")
TD_MMA_K8(bfloat16, "bf16")
TD_MMA_K16(bfloat16, "bf16")
#else
__device__ __forceinline__ void mma_k16(half16 tag, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  mma_k8(tag, c, a[0], a[1], b0);
  mma_k8(tag, c, a[2], a[3], b1);
}
#endif
#undef TD_MMA_K8
#undef TD_MMA_K16

#if __CUDA_ARCH__ >= 800
/// The float32 numbers of a and b are read with 10 bits of mantissa; see to_tf32.
__device__ __forceinline__ void mma_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
/// Rounds to the nearest tf32 (ties away from zero), as bits.
__device__ __forceinline__ uint32_t to_tf32(float x) {
  uint32_t r;
  asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(r) : "f"(x));
  return r;
}
#endif

/// 2^x within 2 units in the last place; results below 2^-126 are zero.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

/// Two numbers rounded to nearest even, the first in the low half.
__device__ __forceinline__ uint32_t pack(half16, float low, float high) {
  uint32_t r;
  asm("{.reg .b16 l, h;\ncvt.rn.f16.f32 l, %1;\ncvt.rn.f16.f32 h, %2;\nmov.b32 %0, {l, h};\n}\n" : "=r"(r) : "f"(low), "f"(high));
  return r;
}
__device__ __forceinline__ uint16_t round_bits(half16, float x) {
  uint16_t r;
  asm("cvt.rn.f16.f32 %0, %1;\n" : "=h"(r) : "f"(x));
  return r;
}
__device__ __forceinline__ float widen_bits(half16, uint16_t bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;\n" : "=f"(x) : "h"(bits));
  return x;
}
#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ uint32_t pack(bfloat16, float low, float high) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
__device__ __forceinline__ uint16_t round_bits(bfloat16, float x) {
  uint16_t r;
  asm("cvt.rn.bf16.f32 %0, %1;\n" : "=h"(r) : "f"(x));
  return r;
}
#else  // Turing has no bfloat16: its kernels are not instantiated, what the types need to be declared is
__device__ __forceinline__ uint16_t round_bits(bfloat16, float x) {
  const uint32_t bits = __float_as_uint(x);
  return x != x ? 0x7fff : static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
#endif
__device__ __forceinline__ float widen_bits(bfloat16, uint16_t bits) { return __uint_as_float(uint32_t(bits) << 16); }

__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }
/// Barrier `id` (1 to 15) for `threads` threads.
__device__ __forceinline__ void named_barrier(int id, int threads) { asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(threads) : "memory"); }

#else  // the emulator

inline void copy_async(void* to, const void* from, int valid) { emulator::cp_async(to, from, 16, valid); }
inline void copy_commit() { emulator::cp_commit(); }
template <int N>
void copy_wait() {
  emulator::cp_wait(N);
}
template <bool Transposed, int N>
void load_matrices(uint32_t (&r)[N], const void* row) {
  emulator::ldmatrix<N, Transposed>(r, row);
}
inline void mma_k16(half16, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const uint32_t b[2] = {b0, b1};
  emulator::mma<emulator::Type::f16, 16>(c, a, b);
}
inline void mma_k16(bfloat16, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const uint32_t b[2] = {b0, b1};
  emulator::mma<emulator::Type::bf16, 16>(c, a, b);
}
inline void mma_k8(half16, float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b0) {
  const uint32_t a[2] = {a0, a1};
  emulator::mma<emulator::Type::f16, 8>(c, a, &b0);
}
inline void mma_k8(bfloat16, float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b0) {
  const uint32_t a[2] = {a0, a1};
  emulator::mma<emulator::Type::bf16, 8>(c, a, &b0);
}
inline void mma_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const uint32_t b[2] = {b0, b1};
  emulator::mma<emulator::Type::tf32, 8>(c, a, b);
}
inline uint32_t to_tf32(float x) {
  const uint32_t bits = __float_as_uint(x);
  return std::isfinite(x) ? (bits + 0x1000) & 0xffffe000u : bits;
}
inline float exp2_fast(float x) {
  ++emulator::block().counts.exp2;
  const float y = std::exp2(x);
  return y < 1.17549435e-38f ? 0.f : y;
}
inline uint32_t pack(half16, float low, float high) { return emulator::float_to_half(low) | uint32_t(emulator::float_to_half(high)) << 16; }
inline uint32_t pack(bfloat16, float low, float high) { return emulator::float_to_bf16(low) | uint32_t(emulator::float_to_bf16(high)) << 16; }
inline uint16_t round_bits(half16, float x) { return emulator::float_to_half(x); }
inline uint16_t round_bits(bfloat16, float x) { return emulator::float_to_bf16(x); }
inline float widen_bits(half16, uint16_t bits) { return emulator::half_to_float(bits); }
inline float widen_bits(bfloat16, uint16_t bits) { return emulator::bf16_to_float(bits); }
inline float infinity() { return INFINITY; }
inline void named_barrier(int id, int threads) { emulator::barrier(id, threads); }

#endif

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr int kMostShared = 64 << 10;  // Turing's: of a multiprocessor, and of one block
#else
constexpr int kMostShared = 1 << 30;  // later cards differ, and the host asks them
#endif
/// Whether a block may have that much shared memory; a kernel that may not is never launched, and needs no body.
constexpr bool may_have_shared(int bytes) { return bytes <= kMostShared; }
/// Blocks of a multiprocessor to leave registers for: as many as wanted, if its shared memory has room for them.
constexpr int resident_blocks(int wanted, int shared) {
  const int room = kMostShared / shared;
  return room < 1 ? 1 : room < wanted ? room : wanted;
}

/// Reads and writes numbers of a stored type as float32: load<float>(p, i), load<half16>(p, i), ...
template <class T>
struct Stored {
  using type = T;
  __device__ static __forceinline__ float load(const type* p, int64_t i) { return static_cast<float>(p[i]); }
  __device__ static __forceinline__ void store(type* p, int64_t i, float x) { p[i] = static_cast<type>(x); }
};
template <>
struct Stored<half16> {
  using type = uint16_t;
  __device__ static __forceinline__ float load(const type* p, int64_t i) { return widen_bits(half16(), p[i]); }
  __device__ static __forceinline__ void store(type* p, int64_t i, float x) { p[i] = round_bits(half16(), x); }
};
template <>
struct Stored<bfloat16> {
  using type = uint16_t;
  __device__ static __forceinline__ float load(const type* p, int64_t i) { return widen_bits(bfloat16(), p[i]); }
  __device__ static __forceinline__ void store(type* p, int64_t i, float x) { p[i] = round_bits(bfloat16(), x); }
};

/// Sum or maximum over the lanes of a warp; every lane gets it.
__device__ __forceinline__ float warp_sum(float x) {
  for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
  for (int d = 16; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, d));
  return x;
}

}  // namespace td::cuda

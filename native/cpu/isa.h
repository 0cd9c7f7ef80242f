#pragma once

/// Instruction sets. A source whose name ends in one of them (base, avx2, avx512, avx512_bf16) is compiled for it alone, by the flags of
/// CMakeLists.txt; isa() says which of them runs. Such a source defines nothing that the linker may share between files, as inline
/// functions with external linkage and instances of the standard library's templates would be: one copy would run for all.
/// Everything that it includes beside declarations is always inlined or lies in an unnamed namespace.
namespace td {

/// In rising order. avx512_bf16 adds products of bfloat16 (vdpbf16ps) to avx512.
enum class Isa : int { base, avx2, avx512, avx512_bf16 };

/// "baseline", "AVX2", "AVX-512", "AVX-512 BF16"
const char* name_of(Isa isa);

/// The best of this machine.
Isa detected_isa();
/// The one in use: the best, or what TFJS_DIFFUSERS_ISA=avx512|avx2|base or set_isa() hold it to.
Isa isa();
/// For tests, not while kernels run. A KernelError when the machine lacks it.
void set_isa(Isa isa);

}  // namespace td

#if defined(__x86_64__)
#define TD_X86 1
#else
#define TD_X86 0
#endif

#define TD_INLINE inline __attribute__((always_inline))
#define TD_UNROLL _Pragma("GCC unroll 32")
#define TD_VECTOR _Pragma("omp simd")

// Attention kernels for AVX-512, every type in float32 arithmetic.
#include "attention_target.h"

#if ATTENTION_X86
#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

ATTENTION_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")

#include "attention_avx512.h"
#include "attention_table.h"

namespace tfjs_diffusers {
namespace attention_detail {
namespace {
using Product = PlainProduct<Avx512>;
}

const Kernels* avx512_kernels() {
  static const Kernels kernels = make_kernels<Product>();
  return &kernels;
}

}  // namespace attention_detail
}  // namespace tfjs_diffusers

ATTENTION_TARGET_END

#endif

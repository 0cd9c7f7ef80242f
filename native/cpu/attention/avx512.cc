// Attention kernels for AVX-512, every type in float32 arithmetic.
#include "cpu/isa.h"

#if TD_X86
#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "cpu/attention/avx512.h"
#include "cpu/attention/table.h"

namespace td::attention {
namespace {
using Product = PlainProduct<Avx512>;
}

const Kernels* avx512_kernels() {
  static const Kernels kernels = make_kernels<Product>();
  return &kernels;
}

}  // namespace td::attention

#endif

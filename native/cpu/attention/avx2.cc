// Attention kernels for AVX2 with FMA: 8 float32 lanes, 12 of 16 registers for sums.
#include "cpu/isa.h"

#if TD_X86
#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "cpu/attention/table.h"

namespace td::attention {
namespace {

struct Avx2 {
  using F = __m256;
  static constexpr int kWidth = 8;
  static constexpr int kColumns = 2;
  static constexpr int kAccumulators = 12;

  static TD_INLINE F zero() { return _mm256_setzero_ps(); }
  static TD_INLINE F set1(float x) { return _mm256_set1_ps(x); }
  static TD_INLINE F load(const float* p) { return _mm256_loadu_ps(p); }
  static TD_INLINE void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static TD_INLINE F add(F x, F y) { return _mm256_add_ps(x, y); }
  static TD_INLINE F sub(F x, F y) { return _mm256_sub_ps(x, y); }
  static TD_INLINE F mul(F x, F y) { return _mm256_mul_ps(x, y); }
  static TD_INLINE F fmadd(F x, F y, F z) { return _mm256_fmadd_ps(x, y, z); }
  static TD_INLINE F fmsub(F x, F y, F z) { return _mm256_fmsub_ps(x, y, z); }
  // vmaxps returns its second operand when either is NaN.
  static TD_INLINE F max_ignoring_nan(F x, F most) { return _mm256_max_ps(x, most); }
  static TD_INLINE F min(F x, F y) { return _mm256_min_ps(x, y); }
  // x > y ? yes : no; no where either is NaN.
  static TD_INLINE F where_greater(F x, F y, F yes, F no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(x, y, _CMP_GT_OQ));
  }
  static TD_INLINE bool any_not_equal(F x, F y) { return _mm256_movemask_ps(_mm256_cmp_ps(x, y, _CMP_NEQ_UQ)) != 0; }
  static TD_INLINE F zero_where_negative_infinity(F x) {
    const F infinity = _mm256_set1_ps(-std::numeric_limits<float>::infinity());
    return _mm256_and_ps(x, _mm256_cmp_ps(x, infinity, _CMP_NEQ_UQ));
  }

  // 2^x: -inf and what would be subnormal give 0, what is above 127 gives 2^127, NaN gives NaN. Minimax polynomial of 2^f, f in
  // [-1/2, 1/2], relative error 9e-8.
  template <int>
  static TD_INLINE F exp2(F x) {
    const F least_normal = set1(-126.0f);
    const F bounded = _mm256_max_ps(least_normal, _mm256_min_ps(set1(127.0f), x));
    const F whole = _mm256_round_ps(bounded, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const F f = sub(bounded, whole);
    F y = fmadd(f, set1(0.00132647273f), set1(0.00967151273f));
    y = fmadd(f, y, set1(0.0555073374f));
    y = fmadd(f, y, set1(0.240222421f));
    y = fmadd(f, y, set1(0.693146978f));
    y = fmadd(f, y, set1(1.0f));
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(whole), 23);
    y = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y), exponent));
    return _mm256_andnot_ps(_mm256_cmp_ps(x, least_normal, _CMP_LT_OQ), y);
  }

  static __m256i lanes(int64_t n) {
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(least(n, 8))), index);
  }

  // dst[col][row] = src[row][col] for up to 8 x 8; lanes of dst beyond rows are zero, and only `width` lanes are written.
  static void transpose(const float* src, ptrdiff_t src_row, int64_t rows, int64_t cols, float* dst, ptrdiff_t dst_row,
                        int64_t width) {
    const __m256i in = lanes(cols), out = lanes(width);
    __m256 r[8], t[8];
    TD_UNROLL
    for (int i = 0; i < 8; ++i) r[i] = i < rows ? _mm256_maskload_ps(src + i * src_row, in) : _mm256_setzero_ps();
    TD_UNROLL
    for (int i = 0; i < 8; i += 2) {
      t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
      t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    TD_UNROLL
    for (int i = 0; i < 8; i += 4) {
      r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
      r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
      r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
      r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    TD_UNROLL
    for (int j = 0; j < 4; ++j) {
      t[j] = _mm256_permute2f128_ps(r[j], r[j + 4], 0x20);
      t[j + 4] = _mm256_permute2f128_ps(r[j], r[j + 4], 0x31);
    }
    TD_UNROLL
    for (int i = 0; i < 8; ++i) {
      if (i < cols) _mm256_maskstore_ps(dst + i * dst_row, out, t[i]);
    }
  }

  static void widen(const uint16_t* src, DType type, int64_t n, float* dst) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
      const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i));
      store(dst + i, type == DType::f16
                         ? _mm256_cvtph_ps(half)
                         : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16)));
    }
    for (; i < n; ++i) dst[i] = type == DType::f16 ? f16_to_float(src[i]) : bf16_to_float(src[i]);
  }

  static void narrow(const float* src, DType type, int64_t n, uint16_t* dst) {
    int64_t i = 0;
    if (type == DType::f16) {
      for (; i + 8 <= n; i += 8) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + i),
                         _mm256_cvtps_ph(load(src + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
      }
    }
    for (; i < n; ++i) dst[i] = type == DType::f16 ? float_to_f16(src[i]) : float_to_bf16(src[i]);
  }
};

using Product = PlainProduct<Avx2>;

}  // namespace

const Kernels* avx2_kernels() {
  static const Kernels kernels = make_kernels<Product>();
  return &kernels;
}

}  // namespace td::attention

#endif

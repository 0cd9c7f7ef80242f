// AVX-512 traits of the attention kernels: 16 float32 lanes, 24 of 32 registers for sums. Needs AVX-512 F, BW, DQ and VL.
#pragma once

#include <immintrin.h>

#include "core/half.h"
#include "cpu/attention/kernels.h"
#include "cpu/attention/tile.h"

namespace td::attention {
namespace {

struct Avx512 {
  using F = __m512;
  static constexpr int kWidth = 16;
  static constexpr int kColumns = 4;
  static constexpr int kAccumulators = 24;

  static TD_INLINE F zero() { return _mm512_setzero_ps(); }
  static TD_INLINE F set1(float x) { return _mm512_set1_ps(x); }
  static TD_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
  static TD_INLINE void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static TD_INLINE F add(F x, F y) { return _mm512_add_ps(x, y); }
  static TD_INLINE F sub(F x, F y) { return _mm512_sub_ps(x, y); }
  static TD_INLINE F mul(F x, F y) { return _mm512_mul_ps(x, y); }
  static TD_INLINE F fmadd(F x, F y, F z) { return _mm512_fmadd_ps(x, y, z); }
  static TD_INLINE F fmsub(F x, F y, F z) { return _mm512_fmsub_ps(x, y, z); }
  // vmaxps returns its second operand when either is NaN.
  static TD_INLINE F max_ignoring_nan(F x, F most) { return _mm512_max_ps(x, most); }
  static TD_INLINE F min(F x, F y) { return _mm512_min_ps(x, y); }
  // x > y ? yes : no; no where either is NaN.
  static TD_INLINE F where_greater(F x, F y, F yes, F no) {
    return _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(x, y, _CMP_GT_OQ), yes);
  }
  static TD_INLINE bool any_not_equal(F x, F y) { return _mm512_cmp_ps_mask(x, y, _CMP_NEQ_UQ) != 0; }
  static TD_INLINE F zero_where_negative_infinity(F x) {
    const F infinity = _mm512_set1_ps(-__builtin_inff());
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, infinity, _CMP_NEQ_UQ), x);
  }

  // 2^x; -inf gives 0, NaN gives NaN. Minimax polynomials of 2^f, f in [0, 1), exact at 0: relative error 8e-8 for degree 5, 9e-5 for
  // degree 3, which is far below the 2e-3 of rounding to bfloat16. vreduceps takes the floor away (0 for -inf), vscalefps puts it back:
  // fewer operations on the busy ports than rounding to nearest, which has to keep the whole part.
  template <int kDegree>
  static TD_INLINE F exp2(F x) {
    const F f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    F y;
    if constexpr (kDegree == 3) {
      y = fmadd(f, set1(0.0770670593f), set1(0.227644972f));
      y = fmadd(f, y, set1(0.695116791f));
      y = fmadd(f, y, set1(1.0f));
    } else {
      y = fmadd(f, set1(0.00186713034f), set1(0.00901702974f));
      y = fmadd(f, y, set1(0.0557999135f));
      y = fmadd(f, y, set1(0.24016445f));
      y = fmadd(f, y, set1(0.693151312f));
      y = fmadd(f, y, set1(1.0f));
    }
    return _mm512_scalef_ps(y, x);
  }

  static TD_INLINE __mmask16 lanes(int64_t n) {
    return static_cast<__mmask16>(n >= 16 ? 0xffffu : (1u << (n > 0 ? n : 0)) - 1u);
  }

  // dst[col][row] = src[row][col] for up to 16 x 16; lanes of dst beyond rows are zero, and only `width` lanes are written.
  static void transpose(const float* src, ptrdiff_t src_row, int64_t rows, int64_t cols, float* dst, ptrdiff_t dst_row,
                        int64_t width) {
    const __mmask16 in = lanes(cols), out = lanes(width);
    __m512 r[16], t[16];
    TD_UNROLL
    for (int i = 0; i < 16; ++i) r[i] = i < rows ? _mm512_maskz_loadu_ps(in, src + i * src_row) : _mm512_setzero_ps();
    TD_UNROLL
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
      t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    TD_UNROLL
    for (int i = 0; i < 16; i += 4) {
      r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
      r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
      r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
      r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
    }
    // r[4g + j] holds, in its 128-bit lane l, column 4l + j of rows 4g .. 4g+3.
    TD_UNROLL
    for (int j = 0; j < 4; ++j) {
      t[j] = _mm512_shuffle_f32x4(r[j], r[j + 4], 0x88);
      t[j + 4] = _mm512_shuffle_f32x4(r[j], r[j + 4], 0xdd);
      t[j + 8] = _mm512_shuffle_f32x4(r[j + 8], r[j + 12], 0x88);
      t[j + 12] = _mm512_shuffle_f32x4(r[j + 8], r[j + 12], 0xdd);
    }
    TD_UNROLL
    for (int j = 0; j < 4; ++j) {
      r[j] = _mm512_shuffle_f32x4(t[j], t[j + 8], 0x88);
      r[j + 8] = _mm512_shuffle_f32x4(t[j], t[j + 8], 0xdd);
      r[j + 4] = _mm512_shuffle_f32x4(t[j + 4], t[j + 12], 0x88);
      r[j + 12] = _mm512_shuffle_f32x4(t[j + 4], t[j + 12], 0xdd);
    }
    TD_UNROLL
    for (int i = 0; i < 16; ++i) {
      if (i < cols) _mm512_mask_storeu_ps(dst + i * dst_row, out, r[i]);
    }
  }

  static void widen(const uint16_t* src, DType type, int64_t n, float* dst) {
    for (int64_t i = 0; i < n; i += 16) {
      const __mmask16 m = lanes(n - i);
      const __m256i half = _mm256_maskz_loadu_epi16(m, src + i);
      const __m512 value = type == DType::f16
                               ? _mm512_cvtph_ps(half)
                               : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
      _mm512_mask_storeu_ps(dst + i, m, value);
    }
  }

  // Round to nearest even; NaN stays NaN.
  static TD_INLINE __m256i to_bf16(F value) {
    const __m512i bits = _mm512_castps_si512(value);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16));
  }

  static void narrow(const float* src, DType type, int64_t n, uint16_t* dst) {
    for (int64_t i = 0; i < n; i += 16) {
      const __mmask16 m = lanes(n - i);
      const __m512 value = _mm512_maskz_loadu_ps(m, src + i);
      __m256i half;
      if (type == DType::f16) {
        half = _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      } else {
        half = to_bf16(value);
      }
      _mm256_mask_storeu_epi16(dst + i, m, half);
    }
  }
};

}  // namespace
}  // namespace td::attention

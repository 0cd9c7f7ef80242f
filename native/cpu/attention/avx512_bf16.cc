// Attention kernels for bfloat16 on AVX-512 with BF16 dot products: products of bfloat16 pairs summed in float32. Probabilities are
// rounded to bfloat16 for the product with the values, as PyTorch does; maxima, sums and outputs are float32 until the end.
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

struct DotProduct {
  using V = Avx512;
  using F = V::F;
  using Operand = __m512bh;
  static constexpr int kPair = 2;
  static constexpr int kExpDegree = 3;
  static constexpr bool kScaledQueries = false;  // scaled bfloat16 would have to be rounded again

  static TD_INLINE Operand load(const float* p) { return (__m512bh)_mm512_loadu_si512(p); }
  static TD_INLINE Operand broadcast(const float* p) {
    int32_t pair;
    std::memcpy(&pair, p, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
  }
  static TD_INLINE F madd(Operand x, Operand y, F sum) { return _mm512_dpbf16_ps(sum, x, y); }

  static const uint16_t* row(const Rows& rows, int64_t i) {
    return static_cast<const uint16_t*>(rows.data) + i * rows.stride;
  }

  // dst[row][ceil(size / 2)]: pairs along the row, an odd end padded with zero.
  static void pack_rows(const Rows& rows, float* dst, int64_t dst_row) {
    for (int64_t i = 0; i < rows.count; ++i) {
      float* target = dst + i * dst_row;
      if (rows.size % 2) target[rows.size / 2] = 0.0f;
      const uint16_t* source = row(rows, i);
      for (int64_t c = 0; c < rows.size; c += 32) {
        const __mmask32 m = rows.size - c >= 32 ? 0xffffffffu : (1u << (rows.size - c)) - 1u;
        _mm512_mask_storeu_epi16(reinterpret_cast<uint16_t*>(target) + c, m, _mm512_maskz_loadu_epi16(m, source + c));
      }
    }
  }

  // dst[ceil(count / 2)][size]: pairs of rows, an odd last row paired with zero.
  static void pack_row_pairs(const Rows& rows, float* dst, int64_t dst_row) {
    for (int64_t i = 0; i < rows.count; i += 2) {
      const uint16_t* low = row(rows, i);
      const uint16_t* high = row(rows, i + 1 < rows.count ? i + 1 : i);
      const __mmask16 both = i + 1 < rows.count ? 0xffff : 0;
      float* target = dst + i / 2 * dst_row;
      for (int64_t c = 0; c < rows.size; c += 16) {
        const __mmask16 m = V::lanes(rows.size - c);
        const __m512i first = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, low + c));
        const __m512i second = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m & both, high + c));
        _mm512_mask_storeu_epi32(target + c, m, _mm512_or_si512(first, _mm512_slli_epi32(second, 16)));
      }
    }
  }

  // dst[ceil(size / 2)][kQueryTile] times the sign of factor, zero for queries past the count up to a whole vector. staging: kWidth * size floats.
  static void pack_columns(const Rows& rows, float factor, float* dst, float* staging) {
    const int64_t slots = divide_up(rows.size, 2);
    for (int64_t i = 0; i < rows.count; i += V::kWidth) {
      const int64_t count = least(V::kWidth, rows.count - i);
      pack_rows({row(rows, i), rows.type, rows.stride, count, rows.size}, staging, slots);
      for (int64_t s = 0; s < slots; s += V::kWidth) {
        V::transpose(staging + s, slots, count, least(V::kWidth, slots - s), dst + s * kQueryTile + i, kQueryTile, V::kWidth);
      }
    }
    if (factor >= 0.0f) return;
    const int64_t width = round_up(rows.count, V::kWidth);
    const __m512i signs = _mm512_set1_epi32(static_cast<int>(0x80008000u));
    for (int64_t s = 0; s < slots; ++s) {
      for (int64_t i = 0; i < width; i += V::kWidth) {
        float* place = dst + s * kQueryTile + i;
        _mm512_storeu_si512(place, _mm512_xor_si512(_mm512_loadu_si512(place), signs));
      }
    }
  }

  // Two keys of 16 queries: bfloat16 pairs (key, key + 1) per query.
  static TD_INLINE void store_keys(float* dst, const F* p) {
    const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(p[1], p[0]);
    _mm512_storeu_si512(dst, _mm512_permutexvar_epi16(interleave(), halves));
  }

  static TD_INLINE __m512i interleave() {
    return _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18,
                            2, 17, 1, 16, 0);
  }

  // One key: bfloat16 pairs (query, query + 1).
  template <int kVectors>
  static TD_INLINE void store_queries(float* dst, const F* p) {
    TD_UNROLL
    for (int c = 0; c < kVectors; c += 2) {
      const F next = c + 1 < kVectors ? p[c + 1 < kVectors ? c + 1 : c] : V::zero();
      _mm512_storeu_si512(dst + c / 2 * V::kWidth, (__m512i)_mm512_cvtne2ps_pbh(next, p[c]));
    }
  }

  // Zeroes the partner of an odd last query: NaN there (inf * 0) would not vanish against the zero it is paired with.
  static void close_queries(float* dst, int64_t dst_row, int64_t rows, int64_t queries) {
    if (queries % 2 == 0) return;
    for (int64_t r = 0; r < rows; ++r) {
      std::memset(reinterpret_cast<char*>(dst + r * dst_row) + queries * 2, 0, sizeof(uint16_t));
    }
  }
};

}  // namespace

const Kernels* avx512_bf16_kernels() {
  static const Kernels kernels = make_kernels<DotProduct>();
  return &kernels;
}

}  // namespace td::attention

#endif

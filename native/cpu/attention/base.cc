// Portable attention kernels: four lanes as plain arrays, which compilers turn into whatever vectors the architecture has.
#include <cmath>
#include <limits>

#include "cpu/attention/table.h"

namespace td::attention {
namespace {

struct Portable {
  static constexpr int kWidth = 4;
  static constexpr int kColumns = 2;
  static constexpr int kAccumulators = 8;

  struct F {
    float lane[kWidth];
  };

  template <class Function>
  static TD_INLINE F each(Function function) {
    F r;
    for (int i = 0; i < kWidth; ++i) r.lane[i] = function(i);
    return r;
  }

  static TD_INLINE F zero() { return set1(0.0f); }
  static TD_INLINE F set1(float x) {
    return each([=](int) { return x; });
  }
  static TD_INLINE F load(const float* p) {
    return each([=](int i) { return p[i]; });
  }
  static TD_INLINE void store(float* p, const F& x) {
    for (int i = 0; i < kWidth; ++i) p[i] = x.lane[i];
  }
  static TD_INLINE F add(const F& x, const F& y) {
    return each([&](int i) { return x.lane[i] + y.lane[i]; });
  }
  static TD_INLINE F sub(const F& x, const F& y) {
    return each([&](int i) { return x.lane[i] - y.lane[i]; });
  }
  static TD_INLINE F mul(const F& x, const F& y) {
    return each([&](int i) { return x.lane[i] * y.lane[i]; });
  }
  static TD_INLINE F fmadd(const F& x, const F& y, const F& z) {
    return each([&](int i) { return x.lane[i] * y.lane[i] + z.lane[i]; });
  }
  static TD_INLINE F fmsub(const F& x, const F& y, const F& z) {
    return each([&](int i) { return x.lane[i] * y.lane[i] - z.lane[i]; });
  }
  static TD_INLINE F max_ignoring_nan(const F& x, const F& most) {
    return each([&](int i) { return x.lane[i] > most.lane[i] ? x.lane[i] : most.lane[i]; });
  }
  static TD_INLINE F min(const F& x, const F& y) {
    return each([&](int i) { return x.lane[i] < y.lane[i] ? x.lane[i] : y.lane[i]; });
  }
  static TD_INLINE F where_greater(const F& x, const F& y, const F& yes, const F& no) {
    return each([&](int i) { return x.lane[i] > y.lane[i] ? yes.lane[i] : no.lane[i]; });
  }
  static TD_INLINE bool any_not_equal(const F& x, const F& y) {
    bool any = false;
    for (int i = 0; i < kWidth; ++i) any |= !(x.lane[i] == y.lane[i]);
    return any;
  }
  static TD_INLINE F zero_where_negative_infinity(const F& x) {
    return each([&](int i) { return x.lane[i] == -std::numeric_limits<float>::infinity() ? 0.0f : x.lane[i]; });
  }
  template <int>
  static TD_INLINE F exp2(const F& x) {
    return each([&](int i) { return std::exp2(x.lane[i]); });
  }

  static void transpose(const float* src, ptrdiff_t src_row, int64_t rows, int64_t cols, float* dst, ptrdiff_t dst_row,
                        int64_t width) {
    for (int64_t c = 0; c < cols; ++c) {
      for (int64_t r = 0; r < width; ++r) dst[c * dst_row + r] = r < rows ? src[r * src_row + c] : 0.0f;
    }
  }

  static void widen(const uint16_t* src, DType type, int64_t n, float* dst) {
    for (int64_t i = 0; i < n; ++i) dst[i] = type == DType::f16 ? f16_to_float(src[i]) : bf16_to_float(src[i]);
  }

  static void narrow(const float* src, DType type, int64_t n, uint16_t* dst) {
    for (int64_t i = 0; i < n; ++i) dst[i] = type == DType::f16 ? float_to_f16(src[i]) : float_to_bf16(src[i]);
  }
};

using Product = PlainProduct<Portable>;

}  // namespace

const Kernels* base_kernels() {
  static const Kernels kernels = make_kernels<Product>();
  return &kernels;
}

}  // namespace td::attention

// Winograd F(4x4, 3x3) for AVX-512: a vector runs over 16 channels, in the transforms as in the products.
#include "cpu/isa.h"

#if TD_X86
#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "cpu/attention/avx512.h"
#include "cpu/attention/pack.h"
#include "cpu/winograd/winograd.h"

namespace td::winograd {
namespace {

using attention::Avx512;
using attention::multiply;
using attention::PlainProduct;
using attention::TileOperands;
using attention::TileStore;
using V = __m512;
using Product = PlainProduct<Avx512>;

// Interpolation points 0, +-a, +-b, infinity.
constexpr float kA = 0.625f, kB = 1.5f, kA2 = kA * kA, kB2 = kB * kB, kA3 = kA2 * kA, kB3 = kB2 * kB;

template <bool kHalf>
TD_INLINE V load(const void* data, int64_t index) {
  if constexpr (kHalf) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(static_cast<const uint16_t*>(data) + index));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  } else {
    return _mm512_loadu_ps(static_cast<const float*>(data) + index);
  }
}

template <bool kHalf>
TD_INLINE void store(void* data, int64_t index, V x) {
  if constexpr (kHalf) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<uint16_t*>(data) + index), Avx512::to_bf16(x));
  } else {
    _mm512_storeu_ps(static_cast<float*>(data) + index, x);
  }
}

TD_INLINE V constant(float x) { return _mm512_set1_ps(x); }

// B^T d: six numbers of a row or column of a tile.
TD_INLINE void transform_input(const V* d, V* t) {
  const V both = constant(kA2 * kB2), sum = constant(kA2 + kB2);
  const V even_a = _mm512_fnmadd_ps(constant(kB2), d[2], d[4]);
  const V odd_a = _mm512_fnmadd_ps(constant(kA * kB2), d[1], _mm512_mul_ps(constant(kA), d[3]));
  const V even_b = _mm512_fnmadd_ps(constant(kA2), d[2], d[4]);
  const V odd_b = _mm512_fnmadd_ps(constant(kB * kA2), d[1], _mm512_mul_ps(constant(kB), d[3]));
  t[0] = _mm512_fmadd_ps(both, d[0], _mm512_fnmadd_ps(sum, d[2], d[4]));
  t[1] = _mm512_add_ps(even_a, odd_a);
  t[2] = _mm512_sub_ps(even_a, odd_a);
  t[3] = _mm512_add_ps(even_b, odd_b);
  t[4] = _mm512_sub_ps(even_b, odd_b);
  t[5] = _mm512_fmadd_ps(both, d[1], _mm512_fnmadd_ps(sum, d[3], d[5]));
}

// G g: three taps to six places.
TD_INLINE void transform_weights(const V* g, V* u) {
  constexpr float kZero = 1.0f / (kA2 * kB2), kOfA = 1.0f / (2.0f * kA2 * (kA2 - kB2)), kOfB = 1.0f / (2.0f * kB2 * (kB2 - kA2));
  const V even_a = _mm512_mul_ps(constant(kOfA), _mm512_fmadd_ps(constant(kA2), g[2], g[0]));
  const V odd_a = _mm512_mul_ps(constant(kOfA * kA), g[1]);
  const V even_b = _mm512_mul_ps(constant(kOfB), _mm512_fmadd_ps(constant(kB2), g[2], g[0]));
  const V odd_b = _mm512_mul_ps(constant(kOfB * kB), g[1]);
  u[0] = _mm512_mul_ps(constant(kZero), g[0]);
  u[1] = _mm512_add_ps(even_a, odd_a);
  u[2] = _mm512_sub_ps(even_a, odd_a);
  u[3] = _mm512_add_ps(even_b, odd_b);
  u[4] = _mm512_sub_ps(even_b, odd_b);
  u[5] = g[2];
}

// A^T m: six places to four outputs.
TD_INLINE void transform_output(const V* m, V* y) {
  const V plus_a = _mm512_add_ps(m[1], m[2]), minus_a = _mm512_sub_ps(m[1], m[2]);
  const V plus_b = _mm512_add_ps(m[3], m[4]), minus_b = _mm512_sub_ps(m[3], m[4]);
  y[0] = _mm512_add_ps(m[0], _mm512_add_ps(plus_a, plus_b));
  y[1] = _mm512_fmadd_ps(constant(kA), minus_a, _mm512_mul_ps(constant(kB), minus_b));
  y[2] = _mm512_fmadd_ps(constant(kA2), plus_a, _mm512_mul_ps(constant(kB2), plus_b));
  y[3] = _mm512_fmadd_ps(constant(kA3), minus_a, _mm512_fmadd_ps(constant(kB3), minus_b, m[5]));
}

// Where a tile lies: image, and its first output row and column.
struct Place {
  int64_t image, row, column;

  Place(const Problem& p, int64_t tile) {
    const int64_t across = (p.width + 3) / 4, down = (p.height + 3) / 4;
    image = tile / (across * down);
    row = tile / across % down * 4;
    column = tile % across * 4;
  }
};

template <bool kHalf>
bool input(const Problem& p, const Band& band, int64_t first, int64_t last) {
  const int64_t height = p.upsampled ? p.height / 2 : p.height, width = p.upsampled ? p.width / 2 : p.width;
  const int64_t plane = (band.end - band.begin) * band.row;
  V not_finite = _mm512_setzero_ps();
  for (int64_t t = first; t < last; ++t) {
    const Place place(p, band.begin + t);
    int64_t at[6][6];  // -1 outside the image
    for (int i = 0; i < 6; ++i) {
      for (int j = 0; j < 6; ++j) {
        const int64_t r = place.row + i - 1, c = place.column + j - 1;
        const bool inside = r >= 0 && r < p.height && c >= 0 && c < p.width;
        const int64_t y = p.upsampled ? r / 2 : r, x = p.upsampled ? c / 2 : c;
        at[i][j] = inside ? ((place.image * height + y) * width + x) * p.in : -1;
      }
    }
    float* to = band.data + t * band.row;
    for (int64_t c = 0; c < p.in; c += 16) {
      V columns[6][6];
      TD_UNROLL
      for (int j = 0; j < 6; ++j) {
        V d[6], u[6];
        TD_UNROLL
        for (int i = 0; i < 6; ++i) {
          d[i] = at[i][j] < 0 ? _mm512_setzero_ps() : load<kHalf>(p.x, at[i][j] + c);
          not_finite = _mm512_fmadd_ps(d[i], _mm512_setzero_ps(), not_finite);
        }
        transform_input(d, u);
        TD_UNROLL
        for (int i = 0; i < 6; ++i) columns[i][j] = u[i];
      }
      TD_UNROLL
      for (int i = 0; i < 6; ++i) {
        V u[6];
        transform_input(columns[i], u);
        TD_UNROLL
        for (int j = 0; j < 6; ++j) _mm512_storeu_ps(to + (i * 6 + j) * plane + c, u[j]);
      }
    }
  }
  return _mm512_cmp_ps_mask(not_finite, not_finite, _CMP_UNORD_Q) == 0;
}

// Weights of input channels [k0, k0 + depth) and of `vectors` vectors of output channels: u [kPlaces][depth][kColumns].
template <bool kHalf>
bool weights(const Problem& p, int64_t k0, int64_t depth, int64_t column, int64_t vectors, float* u) {
  const int64_t tap = p.in * p.out;
  V not_finite = _mm512_setzero_ps();
  for (int64_t k = 0; k < depth; ++k) {
    for (int64_t v = 0; v < vectors; ++v) {
      const int64_t from = (k0 + k) * p.out + column + v * 16;
      V columns[6][3];
      TD_UNROLL
      for (int j = 0; j < 3; ++j) {
        V g[3], t[6];
        TD_UNROLL
        for (int i = 0; i < 3; ++i) {
          g[i] = load<kHalf>(p.weights, (i * 3 + j) * tap + from);
          not_finite = _mm512_fmadd_ps(g[i], _mm512_setzero_ps(), not_finite);
        }
        transform_weights(g, t);
        TD_UNROLL
        for (int i = 0; i < 6; ++i) columns[i][j] = t[i];
      }
      TD_UNROLL
      for (int i = 0; i < 6; ++i) {
        V t[6];
        transform_weights(columns[i], t);
        TD_UNROLL
        for (int j = 0; j < 6; ++j) _mm512_storeu_ps(u + ((i * 6 + j) * depth + k) * kColumns + v * 16, t[j]);
      }
    }
  }
  return _mm512_cmp_ps_mask(not_finite, not_finite, _CMP_UNORD_Q) == 0;
}

TD_INLINE V silu(V x) {
  const V e = Avx512::exp2<5>(_mm512_mul_ps(x, constant(-1.44269504088896341f)));
  return _mm512_div_ps(x, _mm512_add_ps(constant(1.0f), e));
}

// m [kPlaces][count][kColumns] to pixels.
template <bool kHalf>
void finish(const Problem& p, const Band& band, int64_t first, int64_t count, int64_t column, int64_t vectors, const float* m) {
  for (int64_t t = 0; t < count; ++t) {
    const Place place(p, band.begin + first + t);
    const int64_t rows = std::min<int64_t>(4, p.height - place.row), columns = std::min<int64_t>(4, p.width - place.column);
    for (int64_t v = 0; v < vectors; ++v) {
      const int64_t channel = column + v * 16;
      const V offset = p.offsets ? _mm512_loadu_ps(p.offsets + place.image * p.offset_stride + channel) : _mm512_setzero_ps();
      V half_way[4][6];
      TD_UNROLL
      for (int j = 0; j < 6; ++j) {
        V places[6], y[4];
        TD_UNROLL
        for (int i = 0; i < 6; ++i) places[i] = _mm512_loadu_ps(m + ((i * 6 + j) * count + t) * kColumns + v * 16);
        transform_output(places, y);
        TD_UNROLL
        for (int i = 0; i < 4; ++i) half_way[i][j] = y[i];
      }
      for (int64_t i = 0; i < rows; ++i) {
        V y[4];
        transform_output(half_way[i], y);
        const int64_t to = ((place.image * p.height + place.row + i) * p.width + place.column) * p.out + channel;
        for (int64_t j = 0; j < columns; ++j) {
          V result = _mm512_add_ps(y[j], offset);
          if (p.silu) result = silu(result);
          if (p.residual) result = _mm512_add_ps(result, load<kHalf>(p.residual, to + j * p.out));
          store<kHalf>(p.y, to + j * p.out, result);
        }
      }
    }
  }
}

bool output(const Problem& p, const Band& band, int64_t first, int64_t last, int64_t column, float* scratch) {
  const int64_t count = last - first, vectors = std::min(kColumns, p.out - column) / 16;
  const int64_t plane = (band.end - band.begin) * band.row;
  float* u = scratch;
  float* m = scratch + kPlaces * kColumns * kDepth;
  for (int64_t k0 = 0; k0 < p.in; k0 += kDepth) {
    const int64_t depth = std::min(kDepth, p.in - k0);
    const bool finite = p.weight_type == DType::bf16 ? weights<true>(p, k0, depth, column, vectors, u)
                                                     : weights<false>(p, k0, depth, column, vectors, u);
    if (!finite) return false;
    for (int64_t i = 0; i < kPlaces; ++i) {
      const TileOperands operands = {band.data + i * plane + first * band.row + k0, band.row, 1, u + i * depth * kColumns, kColumns,
                                     depth, m + i * count * kColumns, kColumns, nullptr};
      if (k0 == 0) {
        multiply<Product, TileStore::assign>(operands, count, vectors);
      } else {
        multiply<Product, TileStore::add>(operands, count, vectors);
      }
    }
  }
  if (p.type == DType::bf16) {
    finish<true>(p, band, first, count, column, vectors, m);
  } else {
    finish<false>(p, band, first, count, column, vectors, m);
  }
  return true;
}

bool input_of_type(const Problem& p, const Band& band, int64_t first, int64_t last) {
  return p.type == DType::bf16 ? input<true>(p, band, first, last) : input<false>(p, band, first, last);
}

}  // namespace

const Kernels* avx512_kernels() {
  static const Kernels kernels = {input_of_type, output};
  return &kernels;
}

}  // namespace td::winograd

#endif

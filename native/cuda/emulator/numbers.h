// The number formats of tensor cores.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace td::cuda::emulator {

inline float half_to_float(uint16_t bits) {
  _Float16 half;
  std::memcpy(&half, &bits, 2);
  return static_cast<float>(half);
}
inline uint16_t float_to_half(float x) {
  const _Float16 half = static_cast<_Float16>(x);
  uint16_t bits;
  std::memcpy(&bits, &half, 2);
  return bits;
}
inline float bf16_to_float(uint16_t bits) {
  const uint32_t wide = uint32_t(bits) << 16;
  float x;
  std::memcpy(&x, &wide, 4);
  return x;
}
inline uint16_t float_to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if (std::isnan(x)) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
/// What the tensor core reads of a register: the low 13 bits are ignored.
inline float tf32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits &= 0xffffe000u;
  std::memcpy(&x, &bits, 4);
  return x;
}

/// c + a . b with sums of eight products cut off 24 bits below the largest term, as measured of tensor cores.
inline float truncated_dot(const float* a, const float* b, int k, int b_stride, float c) {
  for (int i0 = 0; i0 < k; i0 += 8) {
    float terms[9] = {c};
    int n = 1, top = -1000;
    for (int i = i0; i < k && i < i0 + 8; ++i) terms[n++] = a[i] * b[i * b_stride];
    for (int i = 0; i < n; ++i) {
      if (terms[i] != 0 && std::isfinite(terms[i]) && std::ilogb(terms[i]) > top) top = std::ilogb(terms[i]);
    }
    const double unit = std::ldexp(1.0, top - 24);
    double sum = 0;
    for (int i = 0; i < n; ++i) sum += std::isfinite(terms[i]) && top > -1000 ? std::trunc(terms[i] / unit) * unit : terms[i];
    c = static_cast<float>(sum);
    if (std::isfinite(c) && std::fabs(double(c)) > std::fabs(sum)) c = std::nextafterf(c, 0.f);
  }
  return c;
}

}  // namespace td::cuda::emulator

#pragma once
#include <cstdint>
#include <cstring>

/// 16-bit floats to and from float32, without branches so that loops become vectors. In an unnamed namespace: every file has its own,
/// compiled for its own instruction set.
namespace td {
namespace {

#define TD_HALF inline __attribute__((always_inline))

TD_HALF float float_from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
TD_HALF uint32_t bits_from_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

TD_HALF float bf16_to_float(uint16_t x) { return float_from_bits(static_cast<uint32_t>(x) << 16); }

/// Rounds to nearest even; NaN stays NaN.
TD_HALF uint16_t float_to_bf16(float x) {
  const uint32_t bits = bits_from_float(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded);
}

TD_HALF float f16_to_float(uint16_t x) {
  const uint32_t sign = static_cast<uint32_t>(x & 0x8000u) << 16;
  const uint32_t rest = x & 0x7fffu;
  // Numbers, subnormal ones included: shift into place and multiply by 2^112; infinities and NaN keep their exponent.
  const float scaled = float_from_bits(rest << 13) * float_from_bits(0x77800000u);
  const uint32_t special = (rest << 13) | 0x7f800000u;
  return float_from_bits(sign | (rest >= 0x7c00u ? special : bits_from_float(scaled)));
}

/// Rounds to nearest even; overflow gives infinity, NaN stays NaN.
TD_HALF uint16_t float_to_f16(float x) {
  const uint32_t bits = bits_from_float(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  // Adding 0.5 leaves the ten bits of a subnormal number at the end of the sum, rounded.
  const uint32_t subnormal = bits_from_float(float_from_bits(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  uint32_t result = magnitude < 0x38800000u ? subnormal : normal;
  result = magnitude >= 0x477ff000u ? 0x7c00u : result;
  result = magnitude > 0x7f800000u ? 0x7e00u : result;
  return static_cast<uint16_t>(sign | result);
}

#undef TD_HALF

}  // namespace
}  // namespace td

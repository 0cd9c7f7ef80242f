// Vectors of numbers on their way from global to shared memory.
#pragma once
#include "device.cuh"

namespace td::cuda {

/// Up to a vector of numbers side by side; those beyond `valid` are zero.
struct Span {
  const void* from;
  int valid;
};

/// 8 numbers of 16 bits to shared memory; by an asynchronous copy when the place is a multiple of 16 bytes.
__device__ __forceinline__ void copy_span(uint16_t* to, const Span& span, bool aligned) {
  if (aligned) return copy_async(to, span.from, 2 * span.valid);
  const uint16_t* from = static_cast<const uint16_t*>(span.from);
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t low = 2 * i < span.valid ? from[2 * i] : 0, high = 2 * i + 1 < span.valid ? from[2 * i + 1] : 0;
    words[i] = low | high << 16;
  }
  uint4 x;
  x.x = words[0], x.y = words[1], x.z = words[2], x.w = words[3];
  *reinterpret_cast<uint4*>(to) = x;
}

}  // namespace td::cuda

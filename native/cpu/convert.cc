#include "cpu/convert.h"

#include <cstring>

#include "cpu/parallel.h"
#include "cpu/simd/loops.h"

namespace td {
namespace {

constexpr int64_t kTile = 1024;

int32_t truncate(float x) {
  if (x != x) return 0;
  if (x >= 2147483648.0f) return INT32_MAX;
  if (x <= -2147483648.0f) return INT32_MIN;
  return static_cast<int32_t>(x);
}

void convert_piece(DType from_type, const void* from, DType to_type, void* to, int64_t n) {
  const simd::Loops& loops = simd::loops();
  if (from_type == to_type) {
    std::memcpy(to, from, n * size_of(to_type));
    return;
  }
  if (is_float(from_type) && to_type == DType::f32) return loops.to_f32(from_type, from, static_cast<float*>(to), n);
  if (from_type == DType::f32 && is_float(to_type)) return loops.from_f32(to_type, static_cast<const float*>(from), to, n);
  if (from_type == DType::i32 && to_type == DType::boolean) {
    for (int64_t i = 0; i < n; ++i) static_cast<uint8_t*>(to)[i] = static_cast<const int32_t*>(from)[i] != 0;
    return;
  }
  if (from_type == DType::boolean && to_type == DType::i32) {
    for (int64_t i = 0; i < n; ++i) static_cast<int32_t*>(to)[i] = static_cast<const uint8_t*>(from)[i] != 0;
    return;
  }
  float tile[kTile];
  for (int64_t at = 0; at < n; at += kTile) {
    const int64_t count = std::min(kTile, n - at);
    const char* source = static_cast<const char*>(from) + at * size_of(from_type);
    char* target = static_cast<char*>(to) + at * size_of(to_type);
    if (is_float(from_type)) {
      loops.to_f32(from_type, source, tile, count);
    } else if (from_type == DType::i32) {
      for (int64_t i = 0; i < count; ++i) tile[i] = static_cast<float>(reinterpret_cast<const int32_t*>(source)[i]);
    } else {
      for (int64_t i = 0; i < count; ++i) tile[i] = source[i] ? 1.0f : 0.0f;
    }
    if (is_float(to_type)) {
      loops.from_f32(to_type, tile, target, count);
    } else if (to_type == DType::i32) {
      for (int64_t i = 0; i < count; ++i) reinterpret_cast<int32_t*>(target)[i] = truncate(tile[i]);
    } else {
      for (int64_t i = 0; i < count; ++i) target[i] = tile[i] != 0.0f;
    }
  }
}

}  // namespace

void convert(DType from_type, const void* from, DType to_type, void* to, int64_t n) {
  parallel_for(n, kSerial * 2, [&](int64_t begin, int64_t end) {
    convert_piece(from_type, static_cast<const char*>(from) + begin * size_of(from_type), to_type,
                  static_cast<char*>(to) + begin * size_of(to_type), end - begin);
  });
}

Tensor as_type(const Tensor& tensor, DType type) {
  if (tensor.dtype() == type) return tensor;
  Tensor result = Tensor::empty(type, tensor.shape);
  convert(tensor.dtype(), tensor.raw(), type, result.mutable_raw(), tensor.elements());
  return result;
}

}  // namespace td

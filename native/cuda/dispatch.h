// From the type of a tensor to the instantiation of a kernel, and other things that all families of kernels need.
#pragma once
#include "core/kernel.h"
#include "core/operands.h"
#include "cuda/kernels/strided.cuh"
#include "cuda/launch.h"

namespace td::cuda {

/// Calls f with the tag of a float type: float, bfloat16 or half16.
template <class F>
void by_float(DType type, const F& f) {
  switch (type) {
    case DType::f32:
      return f(float{});
    case DType::bf16:
      return f(bfloat16{});
    default:
      return f(half16{});
  }
}

/// Calls f with an unsigned integer of the size of a number.
template <class F>
void by_size(DType type, const F& f) {
  switch (size_of(type)) {
    case 4:
      return f(uint32_t{});
    case 2:
      return f(uint16_t{});
    default:
      return f(uint8_t{});
  }
}

/// Calls f with the tag of any type; int32_t and uint8_t stand for themselves.
template <class F>
void by_type(DType type, const F& f) {
  if (type == DType::i32) return f(int32_t{});
  if (type == DType::boolean) return f(uint8_t{});
  by_float(type, f);
}

template <int K>
Walk<K> walk_of(const BroadcastPlan& plan) {
  Walk<K> walk{};
  walk.rank = plan.rank;
  for (int axis = 0; axis < plan.rank; ++axis) {
    walk.dims[axis] = plan.dims[axis];
    for (int k = 0; k < K; ++k) walk.strides[k][axis] = plan.strides[k][axis];
  }
  return walk;
}

/// The tensor itself when it has that type already.
Tensor as_type(const Tensor& x, DType type);
/// Converts `count` numbers on the device.
void convert(DType from_type, const void* from, DType to_type, void* to, int64_t count);
/// Copies with arbitrary strides (in elements, negative and zero allowed) on both sides.
void strided_copy(DType type, const Shape& dims, const void* from, const int64_t* from_strides, void* to, const int64_t* to_strides);
/// Every number becomes `value`.
void fill(Tensor& y, double value);
/// Numbers of the host as a tensor.
Tensor upload_tensor(DType type, const Shape& shape, const void* numbers);
/// Waits for the GPU and fetches them.
void fetch(const void* from, void* to, size_t bytes);

}  // namespace td::cuda

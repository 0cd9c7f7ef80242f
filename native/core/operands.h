#pragma once
#include "core/tensor.h"

namespace td {

/// Operands of an element-wise kernel after broadcasting: dimensions of size 1 dropped, neighbours merged where every
/// operand allows it. The result is contiguous; strides count elements.
struct BroadcastPlan {
  static constexpr int kOperands = 3;
  int rank = 0;
  int64_t dims[kMaxRank];
  int64_t strides[kOperands][kMaxRank];

  int64_t inner() const { return rank ? dims[rank - 1] : 1; }
  int64_t outer() const {
    int64_t n = 1;
    for (int i = 0; i + 1 < rank; ++i) n *= dims[i];
    return n;
  }
  /// Offset of operand `k` at the outer index.
  int64_t offset(int k, int64_t index) const {
    int64_t at = 0;
    for (int i = rank - 2; i >= 0; --i) {
      at += index % dims[i] * strides[k][i];
      index /= dims[i];
    }
    return at;
  }
  int64_t inner_stride(int k) const { return rank ? strides[k][rank - 1] : 0; }
};

/// The shape that both broadcast to; a KernelError when they do not fit.
Shape broadcast_shape(const Shape& a, const Shape& b);
BroadcastPlan plan_broadcast(const Shape& result, std::initializer_list<const Shape*> operands);

/// Strides of a contiguous array.
void contiguous_strides(const Shape& shape, int64_t* strides);

/// The axis of a copy from strides to strides.
struct CopyAxis {
  int64_t dim, from, to;
};
/// Drops axes of size 1, orders by the stride of the destination and merges neighbours; returns how many are left.
int simplify_copy(const Shape& dims, const int64_t* from, const int64_t* to, CopyAxis* axes);

/// Type of the result of mixing two floats: a single number does not widen the other's type.
DType promote(const Tensor& a, const Tensor& b);

}  // namespace td

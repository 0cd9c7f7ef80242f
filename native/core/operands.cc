#include "core/operands.h"

#include <algorithm>
#include <cstdlib>

namespace td {

Shape broadcast_shape(const Shape& a, const Shape& b) {
  if (a == b) return a;
  Shape result;
  result.rank = std::max(a.rank, b.rank);
  for (int i = 1; i <= result.rank; ++i) {
    const int64_t x = i <= a.rank ? a.dims[a.rank - i] : 1, y = i <= b.rank ? b.dims[b.rank - i] : 1;
    require(x == y || x == 1 || y == 1, "shapes ", a, " and ", b, " cannot be broadcast together");
    result.dims[result.rank - i] = x == 1 ? y : x;
  }
  return result;
}

BroadcastPlan plan_broadcast(const Shape& result, std::initializer_list<const Shape*> operands) {
  BroadcastPlan plan;
  int64_t strides[BroadcastPlan::kOperands][kMaxRank];
  int count = 0;
  for (const Shape* shape : operands) {
    int64_t step = 1;
    for (int i = 1; i <= result.rank; ++i) {
      const int64_t dim = i <= shape->rank ? shape->dims[shape->rank - i] : 1;
      strides[count][result.rank - i] = dim == 1 ? 0 : step;
      step *= dim;
    }
    ++count;
  }
  for (int i = 0; i < result.rank; ++i) {
    if (result.dims[i] == 1) continue;
    bool merge = plan.rank > 0;
    for (int k = 0; k < count && merge; ++k) merge = plan.strides[k][plan.rank - 1] == strides[k][i] * result.dims[i];
    if (merge) {
      plan.dims[plan.rank - 1] *= result.dims[i];
    } else {
      plan.dims[plan.rank++] = result.dims[i];
    }
    for (int k = 0; k < count; ++k) plan.strides[k][plan.rank - 1] = strides[k][i];
  }
  return plan;
}

void contiguous_strides(const Shape& shape, int64_t* strides) {
  int64_t step = 1;
  for (int i = shape.rank - 1; i >= 0; --i) {
    strides[i] = step;
    step *= shape.dims[i];
  }
}

int simplify_copy(const Shape& dims, const int64_t* from, const int64_t* to, CopyAxis* axes) {
  int rank = 0;
  for (int i = 0; i < dims.rank; ++i)
    if (dims.dims[i] != 1) axes[rank++] = {dims.dims[i], from[i], to[i]};
  std::stable_sort(axes, axes + rank, [](const CopyAxis& a, const CopyAxis& b) { return std::llabs(a.to) > std::llabs(b.to); });
  int merged = 0;
  for (int i = 0; i < rank; ++i) {
    if (merged) {
      CopyAxis& last = axes[merged - 1];
      if (last.from == axes[i].from * axes[i].dim && last.to == axes[i].to * axes[i].dim) {
        last = {last.dim * axes[i].dim, axes[i].from, axes[i].to};
        continue;
      }
    }
    axes[merged++] = axes[i];
  }
  return merged;
}

DType promote(const Tensor& a, const Tensor& b) {
  if (a.dtype() == b.dtype()) return a.dtype();
  if (a.elements() == 1 && b.elements() != 1) return b.dtype();
  if (b.elements() == 1 && a.elements() != 1) return a.dtype();
  return DType::f32;
}

}  // namespace td

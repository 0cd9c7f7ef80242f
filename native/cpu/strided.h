#pragma once
#include "core/operands.h"

namespace td {

/// Copies an array of `element` bytes with arbitrary strides (in elements, negative and zero allowed) on both sides.
void strided_copy(size_t element, const Shape& dims, const void* from, const int64_t* from_strides, void* to,
                  const int64_t* to_strides);

}  // namespace td

#pragma once
#include "core/operands.h"

namespace td {

/// Numbers from one physical type to another: floats to int32 by truncation, anything but 0 to true.
void convert(DType from_type, const void* from, DType to_type, void* to, int64_t n);
/// The tensor itself when it has that type already.
Tensor as_type(const Tensor& tensor, DType type);

}  // namespace td

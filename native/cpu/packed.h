#pragma once
#include "cpu/dnnl_api.h"

namespace td::onednn {

/// The weights in the format asked for: the copy kept with the storage when it fits, else made now and kept. Drops the
/// plain numbers of a storage marked as weight. `plain` and `wanted` are of the compute type.
std::shared_ptr<const Packed> pack(const Tensor& weights, char kind, DType computed, const Desc& plain, const Desc& wanted);

/// Appends a part made from numbers of the compute type.
void pack_part(Packed& packed, const Desc& plain, const void* numbers, const Desc& wanted, Purpose purpose);

/// The format that `weights` was packed to for that kind, or null.
const Desc* packed_format(const Tensor& weights, char kind);

}  // namespace td::onednn

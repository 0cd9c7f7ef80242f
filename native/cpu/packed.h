#pragma once
#include "cpu/dnnl_api.h"

namespace td::onednn {

struct PartRequest {
  Desc plain, wanted;
  size_t offset;
};

/// The weights in the formats asked for: the copy kept with the storage when it fits, else made now and kept.
/// Drops the plain numbers of a storage marked as weight.
std::shared_ptr<const Packed> pack(const Tensor& weights, char kind, const std::vector<PartRequest>& parts);

/// The formats that `weights` was packed to for that kind, or empty.
std::vector<Desc> packed_formats(const Tensor& weights, char kind);

}  // namespace td::onednn

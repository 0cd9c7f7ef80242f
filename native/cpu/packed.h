#pragma once
#include <array>
#include <memory>
#include <typeinfo>

#include "cpu/dnnl_api.h"

namespace td::onednn {

/// The packed weights as that form of them, or null. Compares types for equality: a dynamic cast walks the bases, at a tenth of the time
/// of a small product.
template <typename Form>
std::shared_ptr<Form> packed_as(const std::shared_ptr<PackedWeights>& weights) {
  const PackedWeights* form = weights.get();
  return form && typeid(*form) == typeid(Form) ? std::static_pointer_cast<Form>(weights) : nullptr;
}

/// The weights in the format asked for: the copy kept with the storage when it fits, else made now and kept. Drops the
/// plain numbers of a storage marked as weight. `order` is that of the plain numbers; `wanted` is of the compute type.
std::shared_ptr<const Packed> pack(const Tensor& weights, char kind, DType computed, const Dims& dims, Tag order, const Desc& wanted);

/// Appends a part made from numbers of the compute type.
void pack_part(Packed& packed, const Dims& dims, Tag order, const void* numbers, const Desc& wanted, Purpose purpose);

/// The format that `weights` was packed to for that kind, as a tensor of those dimensions, or null.
const Desc* packed_format(const Tensor& weights, char kind, const Dims& dims);

/// Three matrices [in, out] of one type as one [in, 3 out], packed to the format asked for; each of the three storages keeps it in
/// the place of its own packed form, and drops its plain numbers when it is marked as weight.
std::shared_ptr<const Packed> pack_together(const std::array<Tensor, 3>& weights, DType computed, const Desc& wanted);

/// The format that the three were packed to together, or null.
const Desc* packed_together_format(const std::array<Tensor, 3>& weights);

}  // namespace td::onednn

#include "cpu/packed.h"

#include "cpu/convert.h"

namespace td::onednn {

void reorder(const Desc& from_desc, const void* from, const Desc& to_desc, void* to) {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const dnnl::reorder::primitive_desc description(engine(), from_desc, engine(), to_desc, attr);
  execute(dnnl::reorder(description), description.scratchpad_desc(),
          {{DNNL_ARG_FROM, memory(from_desc, from)}, {DNNL_ARG_TO, memory(to_desc, to)}});
}

BufferPtr Packed::numbers(size_t part) const {
  const Part& p = parts[part];
  if (stored != DType::f16) return p.data;
  if (BufferPtr held = p.widened.lock()) return held;
  const auto wide = std::make_shared<Buffer>(p.packed.get_size());
  convert(DType::f16, p.data->data(), DType::f32, wide->data(), static_cast<int64_t>(p.packed.get_size() / sizeof(float)));
  p.widened = wide;
  return wide;
}

void Packed::unpack(void* plain) const {
  require(parts.size() == 1, "these weights have no plain form");
  const Part& part = parts[0];
  const BufferPtr packed = numbers(0);
  if (stored != DType::f16) return reorder(part.packed, packed->data(), part.plain, plain);
  Buffer wide(part.plain.get_size());
  reorder(part.packed, packed->data(), part.plain, wide.data());
  convert(DType::f32, wide.data(), DType::f16, plain, static_cast<int64_t>(wide.bytes() / sizeof(float)));
}

const Desc* packed_format(const Tensor& weights, char kind) {
  const auto* packed = dynamic_cast<const Packed*>(weights.storage->packed.get());
  return packed && packed->kind == kind ? &packed->parts[0].packed : nullptr;
}

Packed::Part pack_part(const Desc& plain, const void* numbers, const Desc& wanted, DType stored, Purpose purpose) {
  const size_t bytes = wanted.get_size();
  const auto data = std::make_shared<Buffer>(stored == DType::f16 ? bytes / 2 : bytes, purpose);
  if (stored == DType::f16) {
    Buffer wide(bytes);
    reorder(plain, numbers, wanted, wide.data());
    convert(DType::f32, wide.data(), DType::f16, data->data(), static_cast<int64_t>(bytes / sizeof(float)));
  } else {
    reorder(plain, numbers, wanted, data->data());
  }
  return {plain, wanted, data, {}};
}

std::shared_ptr<const Packed> pack(const Tensor& weights, char kind, const Desc& plain, const Desc& wanted) {
  Storage& storage = *weights.storage;
  if (auto packed = std::dynamic_pointer_cast<Packed>(storage.packed)) {
    if (packed->kind == kind && packed->parts[0].packed == wanted && packed->parts[0].plain == plain) return packed;
  }
  Tensor numbers(weights.storage, weights.shape);
  if (storage.dtype == DType::f16) numbers = as_type(numbers, DType::f32);
  auto packed = std::make_shared<Packed>();
  packed->kind = kind;
  packed->stored = storage.dtype;
  packed->parts.push_back(
      pack_part(plain, numbers.raw(), wanted, storage.dtype, storage.weight ? Purpose::weights : Purpose::work));
  storage.packed = packed;
  if (storage.weight) storage.plain.reset();
  return packed;
}

}  // namespace td::onednn

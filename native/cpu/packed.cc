#include "cpu/packed.h"

namespace td::onednn {

void reorder(const Desc& from_desc, const void* from, const Desc& to_desc, void* to) {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const dnnl::reorder::primitive_desc description(engine(), from_desc, engine(), to_desc, attr);
  execute(dnnl::reorder(description), description.scratchpad_desc(),
          {{DNNL_ARG_FROM, memory(from_desc, from)}, {DNNL_ARG_TO, memory(to_desc, to)}});
}

std::vector<Desc> packed_formats(const Tensor& weights, char kind) {
  std::vector<Desc> formats;
  const auto* packed = dynamic_cast<const Packed*>(weights.storage->packed.get());
  if (packed && packed->kind == kind)
    for (const Packed::Part& part : packed->parts) formats.push_back(part.packed);
  return formats;
}

std::shared_ptr<const Packed> pack(const Tensor& weights, char kind, const std::vector<PartRequest>& parts) {
  Storage& storage = *weights.storage;
  if (auto packed = std::dynamic_pointer_cast<Packed>(storage.packed)) {
    bool fits = packed->kind == kind && packed->parts.size() == parts.size();
    for (size_t i = 0; fits && i < parts.size(); ++i)
      fits = packed->parts[i].packed == parts[i].wanted && packed->parts[i].plain == parts[i].plain;
    if (fits) return packed;
  }
  const BufferPtr plain = storage.plain_buffer();
  auto packed = std::make_shared<Packed>();
  packed->kind = kind;
  for (const PartRequest& part : parts) {
    const auto data = std::make_shared<Buffer>(part.wanted.get_size(), storage.weight ? Purpose::weights : Purpose::work);
    reorder(part.plain, static_cast<const char*>(plain->data()) + part.offset, part.wanted, data->data());
    packed->parts.push_back({part.plain, part.wanted, data, part.offset});
  }
  storage.packed = packed;
  if (storage.weight) storage.plain.reset();
  return packed;
}

}  // namespace td::onednn

#include "cpu/packed.h"

#include <cstring>

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
  if (stored == computed) return p.data;
  if (BufferPtr held = p.widened.lock()) return held;
  const auto wide = std::make_shared<Buffer>(p.packed.get_size());
  convert(stored, p.data->data(), computed, wide->data(), static_cast<int64_t>(p.packed.get_size() / size_of(computed)));
  p.widened = wide;
  return wide;
}

void Packed::unpack(void* plain) const {
  require(parts.size() == 1, "these weights have no plain form");
  const Part& part = parts[0];
  const BufferPtr packed = numbers(0);
  if (stored == computed) return reorder(part.packed, packed->data(), part.plain, plain);
  Buffer wide(part.plain.get_size());
  reorder(part.packed, packed->data(), part.plain, wide.data());
  convert(computed, wide.data(), stored, plain, static_cast<int64_t>(wide.bytes() / size_of(computed)));
}

const Desc* packed_format(const Tensor& weights, char kind, const Dims& dims) {
  const auto packed = packed_as<Packed>(weights.storage->packed);
  return packed && packed->kind == kind && packed->parts[0].dims == dims ? &packed->parts[0].packed : nullptr;
}

void pack_part(Packed& packed, const Dims& dims, Tag order, const void* numbers, const Desc& wanted, Purpose purpose) {
  const Desc plain = desc(dims, packed.computed, order);
  const size_t count = wanted.get_size() / size_of(packed.computed);
  const auto data = std::make_shared<Buffer>(count * size_of(packed.stored), purpose);
  if (packed.stored == packed.computed) {
    reorder(plain, numbers, wanted, data->data());
  } else {
    Buffer wide(wanted.get_size());
    reorder(plain, numbers, wanted, wide.data());
    convert(packed.computed, wide.data(), packed.stored, data->data(), static_cast<int64_t>(count));
  }
  packed.parts.push_back({dims, plain, wanted, data, {}});
}

std::shared_ptr<const Packed> pack(const Tensor& weights, char kind, DType computed, const Dims& dims, Tag order, const Desc& wanted) {
  Storage& storage = *weights.storage;
  if (const auto packed = packed_as<Packed>(storage.packed)) {
    if (packed->kind == kind && packed->parts[0].dims == dims && packed->parts[0].packed == wanted) return packed;
  }
  const Tensor numbers = as_type(Tensor(weights.storage, weights.shape), computed);
  auto packed = std::make_shared<Packed>();
  packed->kind = kind;
  packed->stored = storage.dtype;
  packed->computed = computed;
  pack_part(*packed, dims, order, numbers.raw(), wanted, storage.weight ? Purpose::weights : Purpose::work);
  storage.packed = packed;
  if (storage.weight) storage.plain.reset();
  return packed;
}

namespace {

/// One of three matrices that are packed as one.
struct PackedTogether : PackedWeights {
  std::shared_ptr<const Packed> whole;
  int index;

  PackedTogether(std::shared_ptr<const Packed> w, int i) : whole(std::move(w)), index(i) {}

  void unpack(void* plain) const override {
    const Dims& dims = whole->parts[0].dims;
    const size_t row = static_cast<size_t>(dims[1]) * size_of(whole->stored), part = row / 3;
    Buffer all(static_cast<size_t>(dims[0]) * row);
    whole->unpack(all.data());
    for (int64_t i = 0; i < dims[0]; ++i) {
      std::memcpy(static_cast<char*>(plain) + i * part, static_cast<const char*>(all.data()) + i * row + index * part, part);
    }
  }
};

std::shared_ptr<const Packed> packed_together(const std::array<Tensor, 3>& weights) {
  const Dims dims{weights[0].shape[0], 3 * weights[0].shape[1]};
  std::shared_ptr<const Packed> whole;
  for (int i = 0; i < 3; ++i) {
    const auto one = packed_as<PackedTogether>(weights[i].storage->packed);
    if (!one || one->index != i || (whole && one->whole != whole)) return nullptr;
    whole = one->whole;
  }
  return whole->parts[0].dims == dims ? whole : nullptr;
}

}  // namespace

const Desc* packed_together_format(const std::array<Tensor, 3>& weights) {
  const auto whole = packed_together(weights);
  return whole ? &whole->parts[0].packed : nullptr;
}

std::shared_ptr<const Packed> pack_together(const std::array<Tensor, 3>& weights, DType computed, const Desc& wanted) {
  const int64_t in = weights[0].shape[0], out = weights[0].shape[1];
  if (auto whole = packed_together(weights); whole && whole->parts[0].packed == wanted) return whole;
  const size_t part = static_cast<size_t>(out) * size_of(computed);
  Buffer all(static_cast<size_t>(in) * 3 * part);
  for (int i = 0; i < 3; ++i) {
    const Tensor numbers = as_type(weights[i], computed);
    const char* from = numbers.data<char>();
    for (int64_t row = 0; row < in; ++row) {
      std::memcpy(static_cast<char*>(all.data()) + (row * 3 + i) * part, from + row * part, part);
    }
  }
  const bool kept = !weights[0].storage->weight;
  auto whole = std::make_shared<Packed>();
  whole->kind = 't';
  whole->stored = weights[0].dtype();
  whole->computed = computed;
  pack_part(*whole, {in, 3 * out}, Tag::ab, all.data(), wanted, kept ? Purpose::work : Purpose::weights);
  for (int i = 0; i < 3; ++i) {
    Storage& storage = *weights[i].storage;
    storage.packed = std::make_shared<PackedTogether>(whole, i);
    if (storage.weight) storage.plain.reset();
  }
  return whole;
}

}  // namespace td::onednn

#include "core/tensor.h"

namespace td {

const char* name_of(DType type) {
  switch (type) {
    case DType::f32:
      return "float32";
    case DType::bf16:
      return "bfloat16";
    case DType::f16:
      return "float16";
    case DType::i32:
      return "int32";
    default:
      return "bool";
  }
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  out << '[';
  for (int i = 0; i < shape.rank; ++i) out << (i ? "," : "") << shape.dims[i];
  return out << ']';
}

Storage::Storage(DType type, int64_t count, Purpose purpose) : dtype(type), elements(count) {
  plain = std::make_shared<Buffer>(static_cast<size_t>(count) * size_of(type), purpose);
}

BufferPtr Storage::plain_buffer(Purpose purpose) const {
  if (plain) return plain;
  auto buffer = std::make_shared<Buffer>(static_cast<size_t>(elements) * size_of(dtype), purpose);
  packed->unpack(buffer->data());
  return buffer;
}

Tensor Tensor::empty(DType type, const Shape& shape, Purpose purpose) {
  int64_t count = 1;
  for (int i = 0; i < shape.rank; ++i) {
    require(shape.dims[i] >= 0, "shape ", shape, " has a negative dimension");
    require(!__builtin_mul_overflow(count, shape.dims[i], &count) && count < (int64_t{1} << 44), "shape ", shape,
            " is too large");
  }
  return Tensor(std::make_shared<Storage>(type, count, purpose), shape);
}

std::string Tensor::text() const {
  if (!storage) return "none";
  std::ostringstream out;
  out << name_of(dtype()) << shape;
  return out.str();
}

const void* Tensor::raw() const {
  if (!held_) held_ = storage->plain_buffer();
  return held_->data();
}

}  // namespace td

#pragma once
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>

#include "core/errors.h"
#include "core/memory.h"

namespace td {

constexpr int kMaxRank = 8;

enum class DType : uint8_t { f32 = 0, bf16 = 1, f16 = 2, i32 = 3, boolean = 4 };

inline size_t size_of(DType type) {
  switch (type) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
    case DType::f16:
      return 2;
    default:
      return 1;
  }
}
inline bool is_float(DType type) { return type <= DType::f16; }
const char* name_of(DType type);

struct Shape {
  int rank = 0;
  int64_t dims[kMaxRank] = {};

  Shape() = default;
  Shape(std::initializer_list<int64_t> values) {
    for (int64_t value : values) push(value);
  }
  int64_t operator[](int axis) const { return dims[axis < 0 ? axis + rank : axis]; }
  int64_t& operator[](int axis) { return dims[axis < 0 ? axis + rank : axis]; }
  void push(int64_t dim) {
    require(rank < kMaxRank, "supports at most ", kMaxRank, " dimensions");
    dims[rank++] = dim;
  }
  int64_t elements() const { return product(0, rank); }
  int64_t product(int from, int to) const {
    int64_t n = 1;
    for (int i = from; i < to; ++i) n *= dims[i];
    return n;
  }
  bool operator==(const Shape& other) const {
    if (rank != other.rank) return false;
    for (int i = 0; i < rank; ++i)
      if (dims[i] != other.dims[i]) return false;
    return true;
  }
  bool operator!=(const Shape& other) const { return !(*this == other); }
};

/// Shapes go to require() as they are: a text made for each call costs more than a small kernel.
std::ostream& operator<<(std::ostream& out, const Shape& shape);

/// A weight in the blocked format of the matrix engine; made by the kernels that use it (cpu/packed.h).
struct PackedWeights {
  virtual ~PackedWeights() = default;
  /// Writes the numbers back in plain C order.
  virtual void unpack(void* plain) const = 0;
};

/// The numbers of one or more tensors. Immutable once a kernel has filled it.
struct Storage {
  DType dtype;
  int64_t elements;
  /// Empty when the weight is kept in packed form only.
  BufferPtr plain;
  std::shared_ptr<PackedWeights> packed;
  /// The plain copy may be dropped once a packed one holds the same numbers.
  bool weight = false;

  Storage(DType type, int64_t count, Purpose purpose = Purpose::work);
  /// The numbers that lie in `buffer`.
  Storage(DType type, BufferPtr buffer) : dtype(type), elements(static_cast<int64_t>(buffer->bytes() / size_of(type))), plain(std::move(buffer)) {}
  /// The numbers in C order; unpacks them when only the packed form is left.
  BufferPtr plain_buffer(Purpose purpose = Purpose::work) const;
};
using StoragePtr = std::shared_ptr<Storage>;

/// A view of a storage by a shape, in C order.
struct Tensor {
  StoragePtr storage;
  Shape shape;

  Tensor() = default;
  Tensor(StoragePtr s, const Shape& sh) : storage(std::move(s)), shape(sh) {}
  /// Uninitialised numbers.
  static Tensor empty(DType type, const Shape& shape, Purpose purpose = Purpose::work);

  explicit operator bool() const { return static_cast<bool>(storage); }
  DType dtype() const { return storage->dtype; }
  int64_t elements() const { return shape.elements(); }
  size_t bytes() const { return elements() * size_of(dtype()); }
  std::string text() const;

  /// Pointer to the numbers; they live as long as this object.
  const void* raw() const;
  template <typename T>
  const T* data() const {
    return static_cast<const T*>(raw());
  }
  void* mutable_raw() { return storage->plain->data(); }
  template <typename T>
  T* mutable_data() {
    return static_cast<T*>(mutable_raw());
  }

 private:
  mutable BufferPtr held_;
};

}  // namespace td

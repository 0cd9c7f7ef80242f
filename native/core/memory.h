#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace td {

/// Bytes of the device's memory.
struct MemoryInfo {
  /// `free` is what the system could still give.
  size_t in_use, pooled, peak, limit, free;
};

/// What a block is for: weights stay for long, so they lie apart from what comes and goes with every kernel.
enum class Purpose : uint8_t { work, weights };

/// A block of the device's memory that lives as long as the last reference to it.
class Buffer {
 public:
  explicit Buffer(size_t bytes, Purpose purpose = Purpose::work);
  /// Memory of someone else, who releases it after the last use of this buffer.
  Buffer(void* borrowed, size_t bytes) : data_(borrowed), bytes_(bytes), capacity_(0), purpose_(Purpose::work), owned_(false) {}
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void* data_;
  size_t bytes_, capacity_;
  Purpose purpose_;
  bool owned_ = true;
};

using BufferPtr = std::shared_ptr<Buffer>;

}  // namespace td

#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace td {

struct MemoryInfo {
  size_t in_use, pooled, peak, limit, free;
};

/// What a block is for: weights stay for long, so they lie apart from what comes and goes with every kernel.
enum class Purpose : uint8_t { work, weights };

/// Blocks aligned to 64 bytes; freed ones are kept for reuse. Thread-safe. Throws OutOfMemory above the limit or above
/// what the system has left.
class MemoryPool {
 public:
  static MemoryPool& instance();
  void* allocate(size_t bytes, Purpose purpose, size_t* capacity);
  void release(void* block, size_t capacity, Purpose purpose);
  MemoryInfo info() const;
  void reset_peak();
  void set_limit(size_t bytes);
  /// Gives pooled memory back to the system until at most `keep` bytes are pooled.
  void trim(size_t keep = 0);

 private:
  MemoryPool();
  struct State;
  State* state_;
};

/// A block of the pool that lives as long as the last reference to it.
class Buffer {
 public:
  explicit Buffer(size_t bytes, Purpose purpose = Purpose::work);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void* data_;
  size_t bytes_, capacity_;
  Purpose purpose_;
};

using BufferPtr = std::shared_ptr<Buffer>;

}  // namespace td

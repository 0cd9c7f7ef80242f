#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace td {

struct MemoryInfo {
  size_t in_use, pooled, peak, limit, free;
};

/// Blocks aligned to 64 bytes; freed ones are kept for reuse by size. Large ones are mapped with huge pages.
/// Thread-safe. Throws OutOfMemory above the limit or above what the system has left.
class MemoryPool {
 public:
  static MemoryPool& instance();
  void* allocate(size_t bytes, size_t* capacity);
  /// `keep` false gives the block back to the system at once: for blocks whose size will not be asked for again.
  void release(void* block, size_t capacity, bool keep);
  MemoryInfo info() const;
  void reset_peak();
  void set_limit(size_t bytes);
  /// Gives pooled blocks back to the system until at most `keep` bytes are pooled.
  void trim(size_t keep = 0);

 private:
  MemoryPool();
  struct State;
  State* state_;
};

/// A block of the pool that lives as long as the last reference to it.
class Buffer {
 public:
  explicit Buffer(size_t bytes);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  void do_not_pool() { keep_ = false; }

 private:
  void* data_;
  size_t bytes_, capacity_;
  bool keep_ = true;
};

using BufferPtr = std::shared_ptr<Buffer>;

}  // namespace td

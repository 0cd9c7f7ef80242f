#pragma once
#include <cstddef>

#include "core/memory.h"

namespace td {

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

}  // namespace td

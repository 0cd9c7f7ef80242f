// Memory of the card: an exact limit, statistics, and blocks that are kept for reuse.
#pragma once
#include <memory>
#include <mutex>

#include "core/memory.h"
#include "cuda/arena.h"

namespace td::cuda {

/// Thread-safe. Throws OutOfMemory above the limit or when the card has no more.
class DeviceMemory {
 public:
  static DeviceMemory& instance();

  void* allocate(size_t bytes, Purpose purpose, size_t* capacity);
  void release(void* block, size_t capacity, Purpose purpose);
  MemoryInfo info();
  void reset_peak();
  /// 0 lifts the limit.
  void set_limit(size_t bytes);
  /// Gives segments that nobody uses back to the driver.
  void trim();

  /// Blocks come from an arena of their own until end_private, which hands it over: a graph holds it, so that the addresses that it
  /// knows serve nobody else. It goes back when the graph and the last of its blocks are gone.
  void begin_private();
  std::shared_ptr<Arena> end_private();

 private:
  DeviceMemory();
  char* take(size_t bytes, Arena& arena);
  char* grow(size_t bytes, Arena& arena);
  void give_back(size_t keep);
  size_t pooled() const { return arenas_[0].free_bytes() + arenas_[1].free_bytes(); }

  mutable std::mutex mutex_;
  Arena arenas_[2];
  std::shared_ptr<Arena> private_;
  /// Blocks in use that belong to arenas of graphs.
  std::map<void*, std::shared_ptr<Arena>> owners_;
  size_t in_use_ = 0, peak_ = 0, limit_ = 0;
  /// Every block is an allocation of the driver's by itself: on the emulator each then ends at a page that nobody may touch.
  bool separate_;
};

}  // namespace td::cuda

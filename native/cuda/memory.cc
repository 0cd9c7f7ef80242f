#include "cuda/memory.h"

#include <algorithm>
#include <cstdlib>

#include "core/errors.h"
#include "cuda/stream.h"

namespace td::cuda {
namespace {

constexpr size_t kSegment = size_t{32} << 20;

size_t round_up(size_t value, size_t step) { return (value + step - 1) / step * step; }

CUdeviceptr address(void* block) { return reinterpret_cast<CUdeviceptr>(block); }

/// Memory of the driver, or null when the card has no more.
char* driver_block(size_t bytes) {
  use_card();
  CUdeviceptr block = 0;
  const CUresult result = driver().mem_alloc(&block, bytes);
  if (result == kOutOfMemory) return nullptr;
  check(result, "cuMemAlloc");
  return reinterpret_cast<char*>(block);
}

/// Work that still uses the block is waited for by the driver.
void free_driver_block(char* block) {
  use_card();
  driver().mem_free(address(block));
}

std::string amount(size_t bytes) { return std::to_string(bytes) + " bytes"; }

}  // namespace

DeviceMemory::DeviceMemory() : separate_(std::getenv("TFJS_DIFFUSERS_CUDA_SEPARATE") != nullptr) {}

DeviceMemory& DeviceMemory::instance() {
  static DeviceMemory* memory = new DeviceMemory;  // buffers may outlive static destructors
  return *memory;
}

void DeviceMemory::give_back(size_t keep) {
  for (Arena& arena : arenas_) {
    const size_t others = pooled() - arena.free_bytes();
    arena.release(keep > others ? keep - others : 0, free_driver_block);
  }
}

char* DeviceMemory::grow(size_t bytes, Arena& arena) {
  if (limit_ && in_use_ + pooled() + bytes > limit_) give_back(limit_ - std::min(limit_, in_use_ + bytes));
  // A segment larger than the block serves the next ones too, where the limit and the card allow it.
  const bool room = !limit_ || in_use_ + pooled() + kSegment <= limit_;
  if (bytes < kSegment && room) {
    if (char* segment = driver_block(kSegment)) {
      arena.add_segment(segment, kSegment);
      return arena.allocate(bytes);
    }
  }
  char* segment = driver_block(bytes);
  if (!segment) {
    give_back(0);
    segment = driver_block(bytes);
  }
  if (!segment) return nullptr;
  arena.add_segment(segment, bytes);
  return arena.allocate(bytes);
}

char* DeviceMemory::take(size_t bytes, Arena& arena) {
  if (char* block = arena.allocate(bytes)) return block;
  return grow(bytes, arena);
}

void* DeviceMemory::allocate(size_t bytes, Purpose purpose, size_t* capacity) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (bytes > (size_t{1} << 46)) throw OutOfMemory("a block of " + amount(bytes) + " does not fit any card");
  *capacity = round_up(std::max<size_t>(bytes, 1), Arena::kGranule);
  if (limit_ && in_use_ + *capacity > limit_) {
    throw OutOfMemory("needs " + amount(*capacity) + " more, " + std::to_string(in_use_) + " are in use and the limit is " +
                      std::to_string(limit_));
  }
  char* block = separate_ ? driver_block(std::max<size_t>(bytes, 1))
                          : take(*capacity, private_ ? *private_ : arenas_[static_cast<int>(purpose)]);
  if (!block) {
    throw OutOfMemory("needs " + amount(*capacity) + " more, " + std::to_string(in_use_) + " are in use and " + card().name + " has " +
                      std::to_string(card().memory));
  }
  if (private_ && !separate_) owners_[block] = private_;
  in_use_ += *capacity;
  peak_ = std::max(peak_, in_use_);
  return block;
}

void DeviceMemory::release(void* block, size_t capacity, Purpose purpose) {
  std::shared_ptr<Arena> owner;  // is let go after the lock
  const std::lock_guard<std::mutex> lock(mutex_);
  in_use_ -= capacity;
  if (separate_) return free_driver_block(static_cast<char*>(block));
  const auto found = owners_.find(block);
  if (found != owners_.end()) {
    owner = std::move(found->second);
    owners_.erase(found);
  }
  (owner ? *owner : arenas_[static_cast<int>(purpose)]).free(static_cast<char*>(block), capacity);
}

MemoryInfo DeviceMemory::info() {
  use_card();
  size_t free = 0, total = 0;
  check(driver().mem_get_info(&free, &total), "cuMemGetInfo");
  const std::lock_guard<std::mutex> lock(mutex_);
  return {in_use_, pooled(), peak_, limit_, free};
}

void DeviceMemory::reset_peak() {
  const std::lock_guard<std::mutex> lock(mutex_);
  peak_ = in_use_;
}

void DeviceMemory::set_limit(size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  limit_ = bytes;
}

void DeviceMemory::trim() {
  const std::lock_guard<std::mutex> lock(mutex_);
  give_back(0);
}

void DeviceMemory::begin_private() {
  const std::lock_guard<std::mutex> lock(mutex_);
  private_ = std::shared_ptr<Arena>(new Arena, [](Arena* arena) {
    arena->release(0, free_driver_block);
    delete arena;
  });
}

std::shared_ptr<Arena> DeviceMemory::end_private() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::move(private_);
}

}  // namespace td::cuda

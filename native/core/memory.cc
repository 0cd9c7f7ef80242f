#include "core/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "core/errors.h"

namespace td {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kMapped = size_t{1} << 20;     // from here on blocks are mapped by themselves
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kCheckSystem = size_t{32} << 20;

size_t round_up(size_t value, size_t step) { return (value + step - 1) / step * step; }

/// Small blocks: four sizes per power of two. Mapped ones: multiples of an eighth of their power of two.
size_t capacity_for(size_t bytes) {
  if (bytes <= 64) return 64;
  size_t power = 64;
  while (power * 2 <= bytes) power *= 2;
  const size_t step = std::max(kAlignment, power / (bytes >= kMapped ? 8 : 4));
  return round_up(bytes, bytes >= kMapped ? std::max<size_t>(step, 4096) : step);
}

size_t read_number(const char* path, const char* key) {
  FILE* file = std::fopen(path, "r");
  if (!file) return SIZE_MAX;
  char line[256];
  size_t found = SIZE_MAX;
  const size_t length = std::strlen(key);
  while (std::fgets(line, sizeof line, file)) {
    if (std::strncmp(line, key, length) != 0) continue;
    char* end = nullptr;
    const unsigned long long value = std::strtoull(line + length, &end, 10);
    if (end != line + length) found = std::strstr(end, "kB") ? value * 1024 : value;
    break;
  }
  std::fclose(file);
  return found;
}

/// What the system, or the control group that the process lives in, can still give.
size_t system_free() {
  size_t available = read_number("/proc/meminfo", "MemAvailable:");
  const size_t group_limit = read_number("/sys/fs/cgroup/memory.max", "");
  const size_t group_used = read_number("/sys/fs/cgroup/memory.current", "");
  if (group_limit != SIZE_MAX && group_used != SIZE_MAX) {
    const size_t cache = read_number("/sys/fs/cgroup/memory.stat", "inactive_file ");
    const size_t used = group_used - std::min(group_used, cache == SIZE_MAX ? 0 : cache);
    available = std::min(available, group_limit - std::min(group_limit, used));
  }
  return available == SIZE_MAX ? 0 : available;
}

void* map_block(size_t capacity) {
  if (capacity < 2 * kHugePage) {
    void* block = mmap(nullptr, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return block == MAP_FAILED ? nullptr : block;
  }
  const size_t total = capacity + kHugePage;
  void* raw = mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  char* begin = static_cast<char*>(raw);
  char* aligned = reinterpret_cast<char*>(round_up(reinterpret_cast<uintptr_t>(begin), kHugePage));
  if (aligned > begin) munmap(begin, aligned - begin);
  char* end = begin + total;
  char* used = aligned + round_up(capacity, 4096);
  if (end > used) munmap(used, end - used);
  madvise(aligned, capacity, MADV_HUGEPAGE);
  return aligned;
}

void* system_allocate(size_t capacity) {
  if (capacity >= kMapped) return map_block(capacity);
  return std::aligned_alloc(kAlignment, round_up(capacity, kAlignment));
}

void system_free_block(void* block, size_t capacity) {
  if (capacity >= kMapped)
    munmap(block, round_up(capacity, 4096));
  else
    std::free(block);
}

}  // namespace

struct MemoryPool::State {
  mutable std::mutex mutex;
  std::map<size_t, std::vector<void*>> blocks;
  size_t in_use = 0, pooled = 0, peak = 0, limit = 0;

  void trim(size_t keep) {
    for (auto group = blocks.rbegin(); group != blocks.rend() && pooled > keep; ++group) {
      while (!group->second.empty() && pooled > keep) {
        system_free_block(group->second.back(), group->first);
        group->second.pop_back();
        pooled -= group->first;
      }
    }
  }

  /// A pooled block of that size, or a mapped one that is up to an eighth larger.
  void* take(size_t wanted, size_t* capacity) {
    const size_t most = wanted >= kMapped ? wanted + wanted / 8 : wanted;
    for (auto group = blocks.lower_bound(wanted); group != blocks.end() && group->first <= most; ++group) {
      if (group->second.empty()) continue;
      void* block = group->second.back();
      group->second.pop_back();
      pooled -= group->first;
      *capacity = group->first;
      return block;
    }
    return nullptr;
  }
};

// Never destroyed: buffers may outlive static destructors when the process exits.
MemoryPool::MemoryPool() : state_(new State) {}

MemoryPool& MemoryPool::instance() {
  static MemoryPool* pool = new MemoryPool;
  return *pool;
}

void* MemoryPool::allocate(size_t bytes, size_t* capacity) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  State& s = *state_;
  if (bytes > (size_t{1} << 46)) throw OutOfMemory("a block of " + std::to_string(bytes) + " bytes does not fit any machine");
  const size_t wanted = capacity_for(bytes);
  *capacity = wanted;
  if (s.limit && s.in_use + wanted > s.limit) {
    throw OutOfMemory("needs " + std::to_string(wanted) + " bytes more, " + std::to_string(s.in_use) +
                      " are in use and the limit is " + std::to_string(s.limit));
  }
  void* block = s.take(wanted, capacity);
  if (!block) {
    if (s.limit && s.in_use + s.pooled + wanted > s.limit) s.trim(s.limit - s.in_use - wanted);
    // Blocks of other sizes that nothing has asked for pile up otherwise, when the picture size changes.
    if (wanted >= kMapped && s.pooled > s.in_use / 2 + (size_t{256} << 20)) s.trim(s.in_use / 4);
    if (wanted >= kCheckSystem) {
      if (system_free() < wanted + (size_t{64} << 20)) s.trim(0);
      const size_t available = system_free();
      if (available < wanted) {
        throw OutOfMemory("needs " + std::to_string(wanted) + " bytes more, the system has " + std::to_string(available));
      }
    }
    block = system_allocate(wanted);
    if (!block) {
      s.trim(0);
      block = system_allocate(wanted);
    }
    if (!block) throw OutOfMemory("the system refuses " + std::to_string(wanted) + " bytes");
  }
  s.in_use += *capacity;
  s.peak = std::max(s.peak, s.in_use);
  return block;
}

void MemoryPool::release(void* block, size_t capacity, bool keep) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->in_use -= capacity;
  if (!keep) return system_free_block(block, capacity);
  state_->blocks[capacity].push_back(block);
  state_->pooled += capacity;
}

MemoryInfo MemoryPool::info() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return {state_->in_use, state_->pooled, state_->peak, state_->limit, system_free()};
}

void MemoryPool::reset_peak() {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->peak = state_->in_use;
}

void MemoryPool::set_limit(size_t bytes) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->limit = bytes;
}

void MemoryPool::trim(size_t keep) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->trim(keep);
}

Buffer::Buffer(size_t bytes) : bytes_(bytes) { data_ = MemoryPool::instance().allocate(bytes, &capacity_); }
Buffer::~Buffer() { MemoryPool::instance().release(data_, capacity_, keep_); }

}  // namespace td

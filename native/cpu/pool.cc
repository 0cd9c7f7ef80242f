#include "cpu/pool.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "core/errors.h"
#include "cpu/arena.h"

namespace td {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kLarge = size_t{1} << 20;  // from here on blocks come from the arenas
constexpr size_t kCheckSystem = size_t{32} << 20;
/// Large blocks after which an old peak of use is forgotten: some dozen steps of a denoiser.
constexpr size_t kWindow = 20000;

size_t round_up(size_t value, size_t step) { return (value + step - 1) / step * step; }

/// Small blocks: four sizes per power of two. Large ones: whole pages.
size_t capacity_for(size_t bytes) {
  if (bytes <= 64) return 64;
  if (bytes > kLarge) return round_up(bytes, Arena::kGranule);
  size_t power = 64;
  while (power * 2 <= bytes) power *= 2;
  return round_up(bytes, std::max(kAlignment, power / 4));
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

}  // namespace

struct MemoryPool::State {
  mutable std::mutex mutex;
  std::map<size_t, std::vector<void*>> small;
  Arena arenas[2] = {Arena(true), Arena(false)};
  size_t in_use = 0, small_pooled = 0, peak = 0, limit = 0;
  /// The most bytes in use in this window of kWindow large blocks and in the one before.
  size_t window_peak = 0, previous_peak = 0, window_blocks = 0;

  size_t pooled() const { return small_pooled + arenas[0].resident_free() + arenas[1].resident_free(); }

  void trim(size_t keep) {
    for (Arena& arena : arenas) {
      const size_t others = pooled() - arena.resident_free();
      arena.release(keep > others ? keep - others : 0);
    }
    if (pooled() <= keep) return;
    for (auto& group : small) {
      for (void* block : group.second) std::free(block);
      small_pooled -= group.first * group.second.size();
      group.second.clear();
    }
  }

  void* allocate_small(size_t capacity) {
    const auto group = small.find(capacity);
    if (group != small.end() && !group->second.empty()) {
      void* block = group->second.back();
      group->second.pop_back();
      small_pooled -= capacity;
      return block;
    }
    if (limit && in_use + pooled() + capacity > limit) trim(limit - in_use - capacity);
    return std::aligned_alloc(kAlignment, capacity);
  }

  void* allocate_large(size_t capacity, Arena& arena) {
    if (++window_blocks > kWindow) {
      previous_peak = window_peak;
      window_peak = in_use;
      window_blocks = 0;
    }
    const size_t fresh = arena.missing(capacity);
    if (fresh > 0) {
      if (limit && in_use + pooled() + fresh > limit) trim(limit - in_use - capacity);
      const size_t usual = std::max({window_peak, previous_peak, in_use + capacity});
      if (in_use + pooled() + fresh > usual + usual / 4 + 4 * kCheckSystem) trim(usual - in_use - capacity);
      if (fresh >= kCheckSystem && system_free() < fresh + kCheckSystem) {
        trim(0);
        const size_t available = system_free();
        if (available < capacity) {
          throw OutOfMemory("needs " + std::to_string(capacity) + " bytes more, the system has " + std::to_string(available));
        }
      }
    }
    return arena.allocate(capacity);
  }
};

// Never destroyed: buffers may outlive static destructors when the process exits.
MemoryPool::MemoryPool() : state_(new State) {}

MemoryPool& MemoryPool::instance() {
  static MemoryPool* pool = new MemoryPool;
  return *pool;
}

void* MemoryPool::allocate(size_t bytes, Purpose purpose, size_t* capacity) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  State& s = *state_;
  if (bytes > (size_t{1} << 46)) throw OutOfMemory("a block of " + std::to_string(bytes) + " bytes does not fit any machine");
  *capacity = capacity_for(bytes);
  if (s.limit && s.in_use + *capacity > s.limit) {
    throw OutOfMemory("needs " + std::to_string(*capacity) + " bytes more, " + std::to_string(s.in_use) +
                      " are in use and the limit is " + std::to_string(s.limit));
  }
#if defined(__SANITIZE_ADDRESS__)
  // Every block by itself and no larger than asked for, so that the sanitizer sees who leaves it.
  void* alone = nullptr;
  if (posix_memalign(&alone, kAlignment, std::max<size_t>(bytes, 1)) != 0) throw OutOfMemory("the system refuses memory");
  s.in_use += *capacity;
  s.peak = std::max(s.peak, s.in_use);
  return alone;
#endif
  const bool large = bytes > kLarge;
  void* block = large ? s.allocate_large(*capacity, s.arenas[static_cast<int>(purpose)]) : s.allocate_small(*capacity);
  if (!block) throw OutOfMemory("the system refuses " + std::to_string(*capacity) + " bytes");
  s.in_use += *capacity;
  s.peak = std::max(s.peak, s.in_use);
  s.window_peak = std::max(s.window_peak, s.in_use);
  return block;
}

void MemoryPool::release(void* block, size_t capacity, Purpose purpose) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  State& s = *state_;
  s.in_use -= capacity;
#if defined(__SANITIZE_ADDRESS__)
  return std::free(block);
#endif
  if (capacity > kLarge) {
    s.arenas[static_cast<int>(purpose)].free(block, capacity);
    // A model was disposed of: its memory is not going to be used again soon.
    const size_t pooled = s.pooled();
    if (pooled > 64 * kCheckSystem && s.in_use < pooled / 8) s.trim(0);
    return;
  }
  s.small[capacity].push_back(block);
  s.small_pooled += capacity;
}

MemoryInfo MemoryPool::info() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return {state_->in_use, state_->pooled(), state_->peak, state_->limit, system_free()};
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

}  // namespace td

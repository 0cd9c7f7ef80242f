#include "cpu/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>

namespace td {
namespace {

constexpr size_t kRegion = size_t{256} << 20;
constexpr size_t kHugePage = size_t{2} << 20;

char* align(char* address, size_t step) {
  const uintptr_t value = reinterpret_cast<uintptr_t>(address);
  return address + (step - value % step) % step;
}

}  // namespace

Arena::Ranges::const_iterator Arena::best(size_t bytes) const {
  // The smallest that fits, unless a larger one up to twice that size has its pages already.
  auto candidate = by_size_.lower_bound({bytes, nullptr});
  if (candidate == by_size_.end()) return free_.end();
  const auto smallest = free_.find(candidate->second);
  for (int tries = 0; candidate != by_size_.end() && tries < 64; ++candidate, ++tries) {
    const auto range = free_.find(candidate->second);
    if (range->second.resident >= bytes) return range;
  }
  return smallest;
}

void Arena::insert(char* begin, Range range) {
  auto next = free_.lower_bound(begin);
  if (next != free_.end() && begin + range.bytes == next->first) {
    const Range joined = remove(next);
    range.bytes += joined.bytes;
    range.resident += joined.resident;
  }
  auto previous = free_.lower_bound(begin);
  if (previous != free_.begin()) {
    --previous;
    if (previous->first + previous->second.bytes == begin) {
      begin = previous->first;
      const Range joined = remove(previous);
      range.bytes += joined.bytes;
      range.resident += joined.resident;
    }
  }
  free_.emplace(begin, range);
  by_size_.emplace(range.bytes, begin);
  resident_free_ += range.resident;
}

Arena::Range Arena::remove(Ranges::const_iterator at) {
  const Range range = at->second;
  by_size_.erase({range.bytes, at->first});
  resident_free_ -= range.resident;
  free_.erase(at);
  return range;
}

bool Arena::grow(size_t bytes) {
  const size_t wanted = std::max((bytes + kHugePage - 1) / kHugePage * kHugePage, kRegion);
  void* raw = mmap(nullptr, wanted + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return false;
  char* begin = static_cast<char*>(raw);
  char* aligned = align(begin, kHugePage);
  if (aligned > begin) munmap(begin, aligned - begin);
  char* end = begin + wanted + kHugePage;
  if (end > aligned + wanted) munmap(aligned + wanted, end - aligned - wanted);
  madvise(aligned, wanted, huge_next_ ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  huge_next_ = false;
  insert(aligned, {wanted, 0});
  return true;
}

void* Arena::allocate(size_t bytes) {
  auto range = best(bytes);
  if (range == free_.end()) {
    if (!grow(bytes)) return nullptr;
    range = best(bytes);
  }
  char* begin = range->first;
  const Range whole = remove(range);
  const size_t rest = whole.bytes - bytes;
  if (rest > 0) insert(begin + bytes, {rest, whole.resident > bytes ? whole.resident - bytes : 0});
  return begin;
}

void Arena::free(void* block, size_t bytes) { insert(static_cast<char*>(block), {bytes, bytes}); }

size_t Arena::missing(size_t bytes) const {
  const auto range = best(bytes);
  if (range == free_.end()) return bytes;
  return bytes - std::min(bytes, range->second.resident);
}

void Arena::release(size_t keep) {
  for (auto entry = by_size_.rbegin(); entry != by_size_.rend() && resident_free_ > keep; ++entry) {
    Range& range = free_.find(entry->second)->second;
    if (range.resident == 0) continue;
    madvise(entry->second, range.bytes, MADV_DONTNEED);
    resident_free_ -= range.resident;
    range.resident = 0;
  }
}

}  // namespace td

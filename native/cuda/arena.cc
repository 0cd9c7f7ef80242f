#include "cuda/arena.h"

#include <vector>

namespace td::cuda {

void Arena::insert(char* begin, size_t bytes) {
  free_.emplace(begin, bytes);
  by_size_.emplace(bytes, begin);
  free_bytes_ += bytes;
}

void Arena::remove(std::map<char*, size_t>::iterator range) {
  by_size_.erase({range->second, range->first});
  free_bytes_ -= range->second;
  free_.erase(range);
}

char* Arena::allocate(size_t bytes) {
  const auto best = by_size_.lower_bound({bytes, nullptr});
  if (best == by_size_.end()) return nullptr;
  const auto [size, begin] = *best;
  remove(free_.find(begin));
  if (size > bytes) insert(begin + bytes, size - bytes);
  return begin;
}

void Arena::free(char* block, size_t bytes) {
  // Ranges of two segments never join, even where these lie side by side: a segment goes back as a whole.
  auto next = free_.lower_bound(block);
  if (next != free_.end() && next->first == block + bytes && !segments_.count(next->first)) {
    bytes += next->second;
    const auto joined = next++;
    remove(joined);
  }
  if (next != free_.begin() && !segments_.count(block)) {
    const auto before = std::prev(next);
    if (before->first + before->second == block) {
      block = before->first;
      bytes += before->second;
      remove(before);
    }
  }
  insert(block, bytes);
}

void Arena::add_segment(char* begin, size_t bytes) {
  segments_.emplace(begin, bytes);
  insert(begin, bytes);
}

void Arena::release(size_t keep, const std::function<void(char*)>& give_back) {
  std::vector<std::pair<size_t, char*>> whole;
  for (const auto& [bytes, begin] : by_size_) {
    const auto segment = segments_.find(begin);
    if (segment != segments_.end() && segment->second == bytes) whole.emplace_back(bytes, begin);
  }
  for (auto range = whole.rbegin(); range != whole.rend() && free_bytes_ > keep; ++range) {
    remove(free_.find(range->second));
    segments_.erase(range->second);
    give_back(range->second);
  }
}

}  // namespace td::cuda

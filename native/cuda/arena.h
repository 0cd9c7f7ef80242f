// Blocks cut from few large segments of the driver. Addresses stay, so that graphs can be replayed; one stream uses them all, so
// that a freed block serves again at once.
#pragma once
#include <cstddef>
#include <functional>
#include <map>
#include <set>

namespace td::cuda {

/// Best fit; neighbours join when they are freed. Knows no memory by itself: it is given segments. Not thread-safe.
class Arena {
 public:
  static constexpr size_t kGranule = 512;

  /// A block of a multiple of kGranule bytes, or null when no free range is large enough.
  char* allocate(size_t bytes);
  void free(char* block, size_t bytes);
  void add_segment(char* begin, size_t bytes);
  /// Hands segments that are free as a whole to `give_back`, largest first, until at most `keep` bytes are free.
  void release(size_t keep, const std::function<void(char*)>& give_back);
  size_t free_bytes() const { return free_bytes_; }

 private:
  void insert(char* begin, size_t bytes);
  void remove(std::map<char*, size_t>::iterator range);

  std::map<char*, size_t> segments_, free_;
  std::set<std::pair<size_t, char*>> by_size_;
  size_t free_bytes_ = 0;
};

}  // namespace td::cuda

#pragma once
#include <cstddef>
#include <map>
#include <set>
#include <utility>

namespace td {

/// Large blocks cut from mapped regions, best fit, neighbours joined when they are freed. Pages stay with the process
/// after a block is freed until release(): a page fault costs more than most kernels spend on the page. Not thread-safe.
class Arena {
 public:
  /// With `huge_first` the first region asks for huge pages: it serves the blocks that are used over and over.
  explicit Arena(bool huge_first) : huge_next_(huge_first) {}
  /// Sizes are multiples of the granule. Null when the system gives no address space.
  void* allocate(size_t bytes);
  void free(void* block, size_t bytes);
  /// Bytes of free ranges that hold memory of the system.
  size_t resident_free() const { return resident_free_; }
  /// How much of a block of that size would have to come from the system.
  size_t missing(size_t bytes) const;
  /// Gives pages of free ranges back, largest ranges first, until at most `keep` bytes are left.
  void release(size_t keep);

  static constexpr size_t kGranule = 4096;

 private:
  struct Range {
    size_t bytes, resident;
  };
  using Ranges = std::map<char*, Range>;

  Ranges::const_iterator best(size_t bytes) const;
  void insert(char* begin, Range range);
  Range remove(Ranges::const_iterator at);
  bool grow(size_t bytes);

  Ranges free_;
  std::set<std::pair<size_t, char*>> by_size_;
  size_t resident_free_ = 0;
  bool huge_next_;
};

}  // namespace td

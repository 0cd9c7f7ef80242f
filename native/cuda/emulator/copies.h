// cp.async: copies from global to shared memory that move their bytes at some time between issue and wait. Options::copies
// chooses the extreme: a kernel that waits one group too few reads NaN (late), one that fetches too soon overwrites (early).
#pragma once
#include "block.h"

namespace td::cuda::emulator {

inline void do_copy(const Copy& copy) {
  std::memcpy(copy.to, copy.from, copy.valid);
  std::memset(static_cast<char*>(copy.to) + copy.valid, 0, copy.bytes - copy.valid);
}

inline void cp_async(void* to, const void* from, int bytes, int valid) {
  forbid_alone("cp.async");
  Block& b = block();
  const char* at = static_cast<char*>(to);
  if (at < b.shared || at + bytes > b.shared + b.shared_bytes) die("cp.async writes outside of shared memory");
  if ((at - b.shared) % bytes || (valid && reinterpret_cast<uintptr_t>(from) % bytes)) die("cp.async is misaligned");
  ++b.counts.copies;
  b.counts.copy_bytes += valid;
  const Copy copy{to, from, bytes, valid};
  if (options().copies == Copies::early) {
    do_copy(copy);
  } else {
    std::memset(to, 0xff, bytes);  // whoever still reads the old contents, or reads too early, gets NaN
    self().open.push_back(copy);
  }
}

inline void cp_commit() {
  Lane& lane = self();
  lane.groups.push_back(std::move(lane.open));
  lane.open.clear();
}

/// Waits until at most `left` groups are in flight.
inline void cp_wait(int left) {
  auto& groups = self().groups;
  while (static_cast<int>(groups.size()) > left) {
    for (const Copy& copy : groups.front()) do_copy(copy);
    groups.erase(groups.begin());
  }
}

}  // namespace td::cuda::emulator

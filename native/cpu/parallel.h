#pragma once
#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace td {

/// Calls body(begin, end) for pieces of [0, n), on several threads when there are more than `grain` items.
/// The body must not throw.
template <typename Body>
void parallel_for(int64_t n, int64_t grain, const Body& body) {
  const int threads = omp_get_max_threads();
  if (n <= grain || threads == 1) {
    if (n > 0) body(int64_t{0}, n);
    return;
  }
  const int64_t pieces = std::min<int64_t>((n + grain - 1) / grain, threads * 4);
#pragma omp parallel for schedule(dynamic)
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const int64_t begin = n * piece / pieces, end = n * (piece + 1) / pieces;
    if (end > begin) body(begin, end);
  }
}

/// Work below this many numbers is done on the calling thread: waking the others costs more.
constexpr int64_t kSerial = 32768;

}  // namespace td

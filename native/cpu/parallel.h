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

/// Keeps products of a few million operations on the calling thread: waking the others takes as long as the work.
/// What is small depends on sizes only, so a primitive runs with as many threads as it was made for.
class ThreadsFor {
 public:
  explicit ThreadsFor(double multiply_adds) : threads_(omp_get_max_threads()), few_(multiply_adds < 2e6 && threads_ > 1) {
    if (few_) omp_set_num_threads(1);
  }
  ~ThreadsFor() {
    if (few_) omp_set_num_threads(threads_);
  }
  ThreadsFor(const ThreadsFor&) = delete;
  ThreadsFor& operator=(const ThreadsFor&) = delete;

 private:
  int threads_;
  bool few_;
};

/// Work below this many numbers is done on the calling thread: waking the others costs more.
constexpr int64_t kSerial = 32768;

}  // namespace td

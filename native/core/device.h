#pragma once
#include <array>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/kernel.h"
#include "core/memory.h"
#include "core/tensor.h"

namespace td {

/// Axes of the result in terms of the source's, as in tf.transpose; the first `rank` entries count.
using Permutation = std::array<int, kMaxRank>;

/// What an addon says of itself under these names: "detail" (one line of text, what it runs on), "advice" (what would make it
/// faster; may be absent), "threads", and whatever else the device has to tell.
using Description = std::vector<std::pair<std::string, Attributes::Value>>;

/// Where tensors live and kernels run. Each addon links exactly one definition of these functions (cpu/device.cc, ...), so that
/// there is no virtual call between JavaScript and a kernel. Failures are thrown as KernelError or OutOfMemory.
class Device {
 public:
  /// Why nothing can run on this machine (no driver, no card), or "". Asked once, before anything else.
  std::string problem();
  Description describe();
  /// Adds every kernel that this device has.
  void register_kernels(Registry& registry);
  /// Threads of the host that kernels may use.
  void set_threads(int threads);

  /// A block of at least `bytes` bytes, aligned to 64. Thread-safe, as is its release.
  void* allocate(size_t bytes, Purpose purpose, size_t* capacity);
  void release(void* block, size_t capacity, Purpose purpose);
  MemoryInfo memory();
  void reset_peak();
  /// 0 lifts the limit.
  void set_limit(size_t bytes);
  /// Gives memory that is kept for reuse back to the system.
  void trim();

  // The calls below, and kernels, come from one thread at a time.

  /// Fills `to` with numbers of the host in C order of `shape`: converted to to.dtype and moved by `permutation`, when there is one.
  /// The bytes are read during the call only.
  void upload(const void* bytes, DType from, const Shape& shape, const Permutation* permutation, Storage& to);
  /// Writes the numbers to the host as `type`, in C order.
  void download(const Storage& from, DType type, void* to);
  /// The same, begun here; the function that is returned waits for the end of it, on any thread. `from` and `to` live that long.
  std::function<void()> begin_download(const Storage& from, DType type, void* to);
};

/// The device of this addon.
Device& device();

}  // namespace td

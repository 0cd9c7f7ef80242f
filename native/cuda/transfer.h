// Numbers between the host and the card, through memory that the driver has pinned.
#pragma once
#include <functional>
#include <memory>

#include "cuda/stream.h"

namespace td::cuda {

/// Pinned host memory; comes from a pool and goes back to it.
class Pinned {
 public:
  explicit Pinned(size_t bytes);
  ~Pinned();
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  size_t bytes_;
};

/// Copies to the card in the stream of copies; kernels launched from now on see the numbers. Returns when the host's are read.
void send(const void* from, void* to, size_t bytes);
/// Begins a copy to the host after everything that was launched; the function that is returned waits for it, on any thread.
std::function<void()> begin_receive(std::shared_ptr<const void> keep, const void* from, void* to, size_t bytes);

}  // namespace td::cuda

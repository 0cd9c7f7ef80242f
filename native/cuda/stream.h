// The device that was chosen, and the two streams that work on it: kernels run in one, copies from the host in the other.
#pragma once
#include <memory>
#include <string>

#include "cuda/driver.h"

namespace td::cuda {

/// A point in a stream that others can wait for.
class Event {
 public:
  Event();
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(CUstream stream);
  /// Blocks the host. May be called on any thread.
  void wait() const;
  bool done() const;
  CUevent get() const { return event_; }

 private:
  CUevent event_ = nullptr;
};

struct Card {
  CUdevice device = 0;
  CUcontext context = nullptr;
  std::string name;
  /// Compute capability, 10 * major + minor.
  int capability = 0;
  int multiprocessors = 0;
  /// Bytes of shared memory that one block may have.
  int max_shared = 0;
  size_t memory = 0;
  CUstream compute = nullptr, copies = nullptr;
};

/// Why no kernel can run here, or "".
std::string card_problem();
/// The card of this process: number TFJS_DIFFUSERS_CUDA_DEVICE, else 0. Throws a KernelError where there is none.
Card& card();
/// Makes the card's context the current one of this thread.
void use_card();

/// Later work of `stream` begins after what `other` holds now.
void wait_for_stream(CUstream stream, CUstream other);
/// Blocks until the compute stream is empty; a KernelError while a graph is captured.
void synchronize();
/// A KernelError while a graph is captured: `what` says what would have to wait.
void require_no_capture(const char* what);
/// Set by graph.cc.
bool& capturing();

}  // namespace td::cuda

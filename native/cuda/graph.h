// A step that is captured once and replayed: the GPU gets hundreds of launches in one call.
#pragma once
#include <memory>

#include "cuda/arena.h"
#include "cuda/driver.h"

namespace td::cuda {

/// What was launched between begin_capture and end_capture. Its addresses are its own as long as it lives.
class Graph {
 public:
  Graph(CUgraphExec executable, std::shared_ptr<Arena> memory) : executable_(executable), memory_(std::move(memory)) {}
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  /// Runs it once more, on the same addresses, in the compute stream.
  void replay() const;

 private:
  CUgraphExec executable_;
  std::shared_ptr<Arena> memory_;
};

/// Launches are recorded instead of run. Until end_capture or cancel_capture nothing may wait for the GPU or send numbers to it.
void begin_capture();
std::unique_ptr<Graph> end_capture();
/// Forgets what was recorded; after an error in the step.
void cancel_capture();

}  // namespace td::cuda

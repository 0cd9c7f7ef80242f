#include "cuda/graph.h"

#include "core/errors.h"
#include "cuda/memory.h"
#include "cuda/stream.h"

namespace td::cuda {
namespace {

CUgraph stop_capture(std::shared_ptr<Arena>* memory) {
  require(capturing(), "no step is being compiled");
  capturing() = false;
  *memory = DeviceMemory::instance().end_private();
  CUgraph graph = nullptr;
  check(driver().stream_end_capture(card().compute, &graph), "cuStreamEndCapture");
  return graph;
}

}  // namespace

Graph::~Graph() {
  use_card();
  driver().stream_synchronize(card().compute);
  driver().graph_exec_destroy(executable_);
}

void Graph::replay() const {
  use_card();
  check(driver().graph_launch(executable_, card().compute), "cuGraphLaunch");
}

void begin_capture() {
  use_card();
  require(!capturing(), "a step is being compiled already");
  check(driver().stream_begin_capture(card().compute, kCaptureThreadLocal), "cuStreamBeginCapture");
  DeviceMemory::instance().begin_private();
  capturing() = true;
}

std::unique_ptr<Graph> end_capture() {
  std::shared_ptr<Arena> memory;
  CUgraph graph = stop_capture(&memory);
  CUgraphExec executable = nullptr;
  const CUresult result = driver().graph_instantiate(&executable, graph, 0);
  driver().graph_destroy(graph);
  check(result, "cuGraphInstantiate");
  return std::make_unique<Graph>(executable, std::move(memory));
}

void cancel_capture() {
  if (!capturing()) return;
  std::shared_ptr<Arena> memory;
  driver().graph_destroy(stop_capture(&memory));
}

}  // namespace td::cuda

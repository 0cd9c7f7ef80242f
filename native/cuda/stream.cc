#include "cuda/stream.h"

#include <cstdlib>

#include "core/errors.h"

namespace td::cuda {
namespace {

int attribute(const Driver& d, int which, CUdevice device) {
  int value = 0;
  check(d.device_get_attribute(&value, which, device), "cuDeviceGetAttribute");
  return value;
}

int chosen_index() {
  const char* text = std::getenv("TFJS_DIFFUSERS_CUDA_DEVICE");
  if (!text || !*text) return 0;
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  require(!*end && value >= 0, "TFJS_DIFFUSERS_CUDA_DEVICE expects the number of a GPU, got '", text, "'");
  return static_cast<int>(value);
}

/// Why a card of that compute capability cannot be used, or "".
std::string capability_problem(const std::string& name, int capability) {
  if (capability >= 75) return "";
  return name + " has compute capability " + std::to_string(capability / 10) + "." + std::to_string(capability % 10) +
         "; 7.5 (Turing: T4, RTX 20) or newer is needed";
}

Card open_card() {
  const Driver& d = driver();
  require(d.problem.empty(), d.problem);
  Card card;
  int count = 0;
  check(d.device_get_count(&count), "cuDeviceGetCount");
  const int index = chosen_index();
  require(index < count, "TFJS_DIFFUSERS_CUDA_DEVICE is ", index, ", but there are ", count, " GPUs");
  check(d.device_get(&card.device, index), "cuDeviceGet");
  char name[256] = {};
  check(d.device_get_name(name, sizeof name, card.device), "cuDeviceGetName");
  card.name = name;
  card.capability = 10 * attribute(d, kMajor, card.device) + attribute(d, kMinor, card.device);
  const std::string problem = capability_problem(card.name, card.capability);
  require(problem.empty(), problem);
  card.multiprocessors = attribute(d, kMultiprocessors, card.device);
  card.max_shared = attribute(d, kMaxSharedOptin, card.device);
  check(d.device_total_mem(&card.memory, card.device), "cuDeviceTotalMem");
  check(d.primary_ctx_retain(&card.context, card.device), "cuDevicePrimaryCtxRetain");
  check(d.ctx_set_current(card.context), "cuCtxSetCurrent");
  check(d.stream_create(&card.compute, kStreamNonBlocking), "cuStreamCreate");
  check(d.stream_create(&card.copies, kStreamNonBlocking), "cuStreamCreate");
  return card;
}

}  // namespace

Event::Event() {
  use_card();
  check(driver().event_create(&event_, kEventNoTiming), "cuEventCreate");
}
Event::~Event() {
  use_card();
  driver().event_destroy(event_);
}
void Event::record(CUstream stream) { check(driver().event_record(event_, stream), "cuEventRecord"); }
void Event::wait() const {
  use_card();
  check(driver().event_synchronize(event_), "cuEventSynchronize");
}
bool Event::done() const {
  const CUresult result = driver().event_query(event_);
  if (result == kNotReady) return false;
  check(result, "cuEventQuery");
  return true;
}

std::string card_problem() {
  if (!driver().problem.empty()) return driver().problem;
  try {
    card();
    return "";
  } catch (const std::exception& error) {
    return error.what();
  }
}

Card& card() {
  static Card* opened = new Card(open_card());
  return *opened;
}

void use_card() {
  static thread_local bool current = false;
  if (current) return;
  check(driver().ctx_set_current(card().context), "cuCtxSetCurrent");
  current = true;
}

void wait_for_stream(CUstream stream, CUstream other) {
  Event event;
  event.record(other);
  check(driver().stream_wait_event(stream, event.get(), 0), "cuStreamWaitEvent");
}

bool& capturing() {
  static bool now = false;
  return now;
}

void require_no_capture(const char* what) {
  require(!capturing(), what, " waits for the GPU, which a step that is being compiled must not do");
}

void synchronize() {
  require_no_capture("this call");
  check(driver().stream_synchronize(card().compute), "cuStreamSynchronize");
}

}  // namespace td::cuda

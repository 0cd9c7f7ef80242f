// A driver whose GPU is the emulator: the same functions as libcuda's, on the memory of the process. What is launched runs at once;
// while a stream is captured it is recorded, and a graph runs the record. So everything above the driver is what a GPU will see.
#include "cuda/driver.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "cuda/emulator/hopper.h"
#include "cuda/launch.h"

namespace td::cuda {
namespace {

constexpr CUresult kInvalidValue = 1, kIllegalAddress = 700, kCaptureUnsupported = 900, kLaunchFailed = 719;
constexpr int kVersion = 13000;
constexpr size_t kPage = 4096;

using Record = std::vector<std::function<void()>>;

struct State {
  std::mutex mutex;
  /// Device memory: blocks with a page after them that nobody may touch.
  std::map<CUdeviceptr, size_t> blocks;
  size_t used = 0;
  Record* recording = nullptr;
  /// What the last launch did wrong; every later call fails with it, as on a GPU.
  std::string fault;
};
State& state() {
  static State* state = new State;
  return *state;
}

size_t total_memory() {
  const char* text = std::getenv("TFJS_DIFFUSERS_EMULATED_MEMORY");
  return text ? std::strtoull(text, nullptr, 10) : size_t{8} << 30;
}

/// Runs it, or records it.
template <class F>
CUresult work(F run) {
  State& s = state();
  if (s.recording) {
    s.recording->push_back(run);
    return kSuccess;
  }
  try {
    run();
    return kSuccess;
  } catch (const emulator::Fault& fault) {
    s.fault = fault.what();
    return kLaunchFailed;
  }
}

CUresult get_error_name(CUresult error, const char** name) {
  static const std::map<CUresult, const char*> names{{kSuccess, "CUDA_SUCCESS"},
                                                     {kInvalidValue, "CUDA_ERROR_INVALID_VALUE"},
                                                     {kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY"},
                                                     {kIllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS"},
                                                     {kLaunchFailed, "CUDA_ERROR_LAUNCH_FAILED"},
                                                     {kCaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"}};
  const auto found = names.find(error);
  *name = found == names.end() ? "CUDA_ERROR_UNKNOWN" : found->second;
  return kSuccess;
}
CUresult get_error_string(CUresult error, const char** text) {
  *text = error == kLaunchFailed ? state().fault.c_str() : error == kOutOfMemory ? "out of memory" : "the emulated driver refuses";
  return kSuccess;
}

CUresult device_get_attribute(int* value, int attribute, CUdevice) {
  const std::map<int, int> values{{kMultiprocessors, 4}, {kMajor, 9}, {kMinor, 0}, {kMaxSharedOptin, 227 << 10}};
  const auto found = values.find(attribute);
  if (found == values.end()) return kInvalidValue;
  *value = found->second;
  return kSuccess;
}

CUresult tensor_map_encode(void* to, int type, unsigned rank, void* base, const unsigned long long* dims, const unsigned long long* strides,
                           const unsigned* box, const unsigned* steps, int, int swizzle, int, int) {
  if (type != kMapFloat16 || rank < 1 || rank > 4 || swizzle != kMapSwizzle128 || reinterpret_cast<uintptr_t>(base) % 16) return kInvalidValue;
  emulator::TensorMap map{};
  map.base = static_cast<const char*>(base);
  map.rank = static_cast<int>(rank), map.size = 2, map.swizzle = 128;
  for (unsigned i = 0; i < rank; ++i) {
    map.dims[i] = dims[i], map.box[i] = box[i];
    map.strides[i] = i == 0 ? 2 : strides[i - 1];
    if (dims[i] == 0 || box[i] == 0 || box[i] > 256 || steps[i] != 1 || (i > 0 && strides[i - 1] % 16)) return kInvalidValue;
  }
  if (box[0] * 2 > 128) return kInvalidValue;
  *static_cast<emulator::TensorMap*>(to) = map;
  return kSuccess;
}

CUresult mem_alloc(CUdeviceptr* to, size_t bytes) {
  State& s = state();
  const std::lock_guard<std::mutex> lock(s.mutex);
  if (!bytes) return kInvalidValue;
  if (s.used + bytes > total_memory()) return kOutOfMemory;
  const size_t length = (bytes + kPage - 1) / kPage * kPage + kPage;
  char* map = static_cast<char*>(mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (map == MAP_FAILED) return kOutOfMemory;
  mprotect(map + length - kPage, kPage, PROT_NONE);
  // As near to the guard as vectors of 16 bytes allow.
  char* begin = map + (length - kPage - bytes) / 16 * 16;
  *to = reinterpret_cast<CUdeviceptr>(begin);
  s.blocks[*to] = bytes;
  s.used += bytes;
  return kSuccess;
}
CUresult mem_free(CUdeviceptr block) {
  State& s = state();
  const std::lock_guard<std::mutex> lock(s.mutex);
  const auto found = s.blocks.find(block);
  if (found == s.blocks.end()) return kInvalidValue;
  char* map = reinterpret_cast<char*>(block / kPage * kPage);
  munmap(map, (found->second + kPage - 1) / kPage * kPage + kPage);
  s.used -= found->second;
  s.blocks.erase(found);
  return kSuccess;
}
CUresult mem_get_info(size_t* free, size_t* total) {
  *total = total_memory();
  *free = *total - state().used;
  return kSuccess;
}

/// Whether bytes [at, at + bytes) lie in one block of device memory.
bool on_device(CUdeviceptr at, size_t bytes) {
  State& s = state();
  const std::lock_guard<std::mutex> lock(s.mutex);
  auto next = s.blocks.upper_bound(at);
  if (next == s.blocks.begin()) return false;
  --next;
  return at + bytes <= next->first + next->second;
}
CUresult copy(void* to, const void* from, size_t bytes) {
  return work([=] { std::memcpy(to, from, bytes); });
}
void* host(CUdeviceptr at) { return reinterpret_cast<void*>(at); }

CUresult launch_kernel(CUfunction function, unsigned bx, unsigned by, unsigned bz, unsigned tx, unsigned ty, unsigned tz, unsigned shared,
                       CUstream, void** parameters, void**) {
  const KernelEntry& entry = *reinterpret_cast<const KernelEntry*>(function);
  const Grid grid{dim3(bx, by, bz), dim3(tx, ty, tz), shared, emulator::next_is_independent()};
  return work(entry.bind(grid, parameters));
}

CUresult begin_capture(CUstream, int) {
  if (state().recording) return kInvalidValue;
  state().recording = new Record;
  return kSuccess;
}
CUresult end_capture(CUstream, CUgraph* graph) {
  if (!state().recording) return kInvalidValue;
  *graph = reinterpret_cast<CUgraph>(state().recording);
  state().recording = nullptr;
  return kSuccess;
}
CUresult graph_instantiate(CUgraphExec* executable, CUgraph graph, unsigned long long) {
  *executable = reinterpret_cast<CUgraphExec>(new Record(*reinterpret_cast<Record*>(graph)));
  return kSuccess;
}
CUresult graph_launch(CUgraphExec executable, CUstream) {
  return work([executable] {
    for (const auto& step : *reinterpret_cast<Record*>(executable)) step();
  });
}

/// What waits for the GPU is an error while a stream is captured.
CUresult wait() { return state().recording ? kCaptureUnsupported : kSuccess; }

}  // namespace

Driver open_driver() {
  Driver d;
  d.version = kVersion;
  d.path = "emulator";
  d.init = [](unsigned) { return kSuccess; };
  d.driver_get_version = [](int* version) { return *version = kVersion, kSuccess; };
  d.get_error_name = get_error_name;
  d.get_error_string = get_error_string;
  d.device_get_count = [](int* count) { return *count = 1, kSuccess; };
  d.device_get = [](CUdevice* device, int) { return *device = 0, kSuccess; };
  d.device_get_name = [](char* name, int length, CUdevice) { return std::strncpy(name, "emulated GPU", length), kSuccess; };
  d.device_get_attribute = device_get_attribute;
  d.device_total_mem = [](size_t* bytes, CUdevice) { return *bytes = total_memory(), kSuccess; };
  d.primary_ctx_retain = [](CUcontext* context, CUdevice) { return *context = nullptr, kSuccess; };
  d.ctx_set_current = [](CUcontext) { return kSuccess; };
  d.mem_get_info = mem_get_info;
  d.mem_alloc = mem_alloc;
  d.mem_free = mem_free;
  d.mem_alloc_host = [](void** to, size_t bytes) { return (*to = std::malloc(bytes ? bytes : 1)) ? kSuccess : kOutOfMemory; };
  d.mem_free_host = [](void* block) { return std::free(block), kSuccess; };
  d.memcpy_host_to_device = [](CUdeviceptr to, const void* from, size_t bytes, CUstream) {
    return on_device(to, bytes) ? copy(host(to), from, bytes) : kInvalidValue;
  };
  d.memcpy_device_to_host = [](void* to, CUdeviceptr from, size_t bytes, CUstream) {
    return on_device(from, bytes) ? copy(to, host(from), bytes) : kInvalidValue;
  };
  d.memcpy_device_to_device = [](CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream) {
    return on_device(to, bytes) && on_device(from, bytes) ? copy(host(to), host(from), bytes) : kInvalidValue;
  };
  d.memset8 = [](CUdeviceptr to, unsigned char value, size_t bytes, CUstream) {
    return on_device(to, bytes) ? work([=] { std::memset(host(to), value, bytes); }) : kInvalidValue;
  };
  d.tensor_map_encode = tensor_map_encode;
  d.stream_create = [](CUstream* stream, unsigned) { return *stream = nullptr, kSuccess; };
  d.stream_synchronize = [](CUstream) { return wait(); };
  d.stream_wait_event = [](CUstream, CUevent, unsigned) { return kSuccess; };
  d.event_create = [](CUevent* event, unsigned) { return *event = nullptr, kSuccess; };
  d.event_record = [](CUevent, CUstream) { return kSuccess; };
  d.event_synchronize = [](CUevent) { return wait(); };
  d.event_query = [](CUevent) { return kSuccess; };
  d.event_destroy = [](CUevent) { return kSuccess; };
  d.module_load_data = [](CUmodule*, const void*) { return kInvalidValue; };
  d.module_get_function = [](CUfunction*, CUmodule, const char*) { return kInvalidValue; };
  d.func_set_attribute = [](CUfunction, int, int) { return kSuccess; };
  d.launch_kernel = launch_kernel;
  d.stream_begin_capture = begin_capture;
  d.stream_end_capture = end_capture;
  d.graph_instantiate = graph_instantiate;
  d.graph_launch = graph_launch;
  d.graph_exec_destroy = [](CUgraphExec executable) { return delete reinterpret_cast<Record*>(executable), kSuccess; };
  d.graph_destroy = [](CUgraph graph) { return delete reinterpret_cast<Record*>(graph), kSuccess; };
  return d;
}

CUfunction load_function(const KernelEntry& entry) {
  return reinterpret_cast<CUfunction>(const_cast<KernelEntry*>(&entry));
}

}  // namespace td::cuda

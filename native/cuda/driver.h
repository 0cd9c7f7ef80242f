// The CUDA driver API, opened by name when it is first needed: nothing of CUDA is there when the addon is built or loaded.
#pragma once
#include <cstddef>
#include <string>

namespace td::cuda {

// The types of cuda.h that are used here; opaque handles are pointers.
using CUresult = int;
using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUcontext = struct CUctx_st*;
using CUstream = struct CUstream_st*;
using CUevent = struct CUevent_st*;
using CUmodule = struct CUmod_st*;
using CUfunction = struct CUfunc_st*;
using CUgraph = struct CUgraph_st*;
using CUgraphExec = struct CUgraphExec_st*;

constexpr CUresult kSuccess = 0, kOutOfMemory = 2, kNotReady = 600;
constexpr int kMultiprocessors = 16, kMajor = 75, kMinor = 76, kMaxSharedOptin = 97;  // CUdevice_attribute
constexpr int kMaxDynamicShared = 8;                                                  // CUfunction_attribute
constexpr unsigned kStreamNonBlocking = 1, kEventNoTiming = 2;
constexpr int kCaptureThreadLocal = 1;
constexpr int kMapFloat16 = 6, kMapSwizzle128 = 3, kMapPromote256 = 3;  // of CUtensorMap: data type, swizzle, promotion in the L2 cache

/// X(member, symbol, parameters): every function that the backend calls. Symbols carry the version whose signature this is.
#define TD_CUDA_DRIVER(X)                                                                                                     \
  X(init, cuInit, (unsigned))                                                                                                 \
  X(driver_get_version, cuDriverGetVersion, (int*))                                                                           \
  X(get_error_name, cuGetErrorName, (CUresult, const char**))                                                                 \
  X(get_error_string, cuGetErrorString, (CUresult, const char**))                                                             \
  X(device_get_count, cuDeviceGetCount, (int*))                                                                               \
  X(device_get, cuDeviceGet, (CUdevice*, int))                                                                                \
  X(device_get_name, cuDeviceGetName, (char*, int, CUdevice))                                                                 \
  X(device_get_attribute, cuDeviceGetAttribute, (int*, int, CUdevice))                                                        \
  X(device_total_mem, cuDeviceTotalMem_v2, (size_t*, CUdevice))                                                               \
  X(primary_ctx_retain, cuDevicePrimaryCtxRetain, (CUcontext*, CUdevice))                                                     \
  X(ctx_set_current, cuCtxSetCurrent, (CUcontext))                                                                            \
  X(mem_get_info, cuMemGetInfo_v2, (size_t*, size_t*))                                                                        \
  X(mem_alloc, cuMemAlloc_v2, (CUdeviceptr*, size_t))                                                                         \
  X(mem_free, cuMemFree_v2, (CUdeviceptr))                                                                                    \
  X(mem_alloc_host, cuMemAllocHost_v2, (void**, size_t))                                                                      \
  X(mem_free_host, cuMemFreeHost, (void*))                                                                                    \
  X(memcpy_host_to_device, cuMemcpyHtoDAsync_v2, (CUdeviceptr, const void*, size_t, CUstream))                                \
  X(memcpy_device_to_host, cuMemcpyDtoHAsync_v2, (void*, CUdeviceptr, size_t, CUstream))                                      \
  X(memcpy_device_to_device, cuMemcpyDtoDAsync_v2, (CUdeviceptr, CUdeviceptr, size_t, CUstream))                              \
  X(memset8, cuMemsetD8Async, (CUdeviceptr, unsigned char, size_t, CUstream))                                                 \
  X(stream_create, cuStreamCreate, (CUstream*, unsigned))                                                                     \
  X(stream_synchronize, cuStreamSynchronize, (CUstream))                                                                      \
  X(stream_wait_event, cuStreamWaitEvent, (CUstream, CUevent, unsigned))                                                      \
  X(event_create, cuEventCreate, (CUevent*, unsigned))                                                                        \
  X(event_record, cuEventRecord, (CUevent, CUstream))                                                                         \
  X(event_synchronize, cuEventSynchronize, (CUevent))                                                                         \
  X(event_query, cuEventQuery, (CUevent))                                                                                     \
  X(event_destroy, cuEventDestroy_v2, (CUevent))                                                                              \
  X(module_load_data, cuModuleLoadData, (CUmodule*, const void*))                                                             \
  X(module_get_function, cuModuleGetFunction, (CUfunction*, CUmodule, const char*))                                           \
  X(func_set_attribute, cuFuncSetAttribute, (CUfunction, int, int))                                                           \
  X(launch_kernel, cuLaunchKernel,                                                                                            \
    (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void**, void**))             \
  X(tensor_map_encode, cuTensorMapEncodeTiled,                                                                                \
    (void*, int, unsigned, void*, const unsigned long long*, const unsigned long long*, const unsigned*, const unsigned*, int, int, int, int)) \
  X(stream_begin_capture, cuStreamBeginCapture_v2, (CUstream, int))                                                           \
  X(stream_end_capture, cuStreamEndCapture, (CUstream, CUgraph*))                                                             \
  X(graph_instantiate, cuGraphInstantiateWithFlags, (CUgraphExec*, CUgraph, unsigned long long))                              \
  X(graph_launch, cuGraphLaunch, (CUgraphExec, CUstream))                                                                     \
  X(graph_exec_destroy, cuGraphExecDestroy, (CUgraphExec))                                                                    \
  X(graph_destroy, cuGraphDestroy, (CUgraph))

struct Driver {
#define TD_MEMBER(member, symbol, parameters) CUresult(*member) parameters = nullptr;
  TD_CUDA_DRIVER(TD_MEMBER)
#undef TD_MEMBER

  /// As cuDriverGetVersion tells it: 1000 * major + 10 * minor.
  int version = 0;
  /// Where it came from.
  std::string path;
  /// Why there is none, or "".
  std::string problem;
};

/// Fills the table; never throws. Defined by driver_library.cc (libcuda) or by emulator/driver.cc.
Driver open_driver();

/// The driver of this process; opened once.
const Driver& driver();

/// Throws OutOfMemory for that, KernelError with the driver's own words for everything else.
void check(CUresult result, const char* what);

}  // namespace td::cuda

// The driver of NVIDIA: libcuda.so.1, which comes with the kernel module and with nothing else.
#include "cuda/driver.h"
#include "cuda/libraries.h"

namespace td::cuda {
namespace {

constexpr int kOldest = 12000;

/// The first symbol that the library lacks, or null.
const char* resolve(const Library& library, Driver* driver) {
#define TD_RESOLVE(member, name, parameters)                                       \
  driver->member = reinterpret_cast<CUresult(*) parameters>(library.symbol(#name));   \
  if (!driver->member) return #name;
  TD_CUDA_DRIVER(TD_RESOLVE)
#undef TD_RESOLVE
  return nullptr;
}

std::string version_text(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

std::string try_driver(Driver* driver) {
  const Library library = open_library({"libcuda.so.1"}, "install the NVIDIA driver (525.60 or newer)");
  if (!library) return "there is no NVIDIA driver here: " + library.problem;
  driver->path = library.path;
  if (const char* missing = resolve(library, driver)) {
    return std::string("the NVIDIA driver lacks ") + missing + "; install 525.60 or newer";
  }
  if (const CUresult result = driver->init(0)) {
    const char* text = nullptr;
    driver->get_error_string(result, &text);
    return std::string("the NVIDIA driver does not start: ") + (text ? text : "error " + std::to_string(result));
  }
  driver->driver_get_version(&driver->version);
  if (driver->version < kOldest) {
    return "the NVIDIA driver knows CUDA up to " + version_text(driver->version) + "; 525.60 or newer (CUDA 12.0) is needed";
  }
  int count = 0;
  driver->device_get_count(&count);
  return count > 0 ? "" : "the NVIDIA driver finds no GPU";
}

}  // namespace

Driver open_driver() {
  Driver driver;
  driver.problem = try_driver(&driver);
  return driver;
}

}  // namespace td::cuda

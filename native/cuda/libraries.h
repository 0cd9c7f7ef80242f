// Shared libraries that may or may not be on the machine, looked for where drivers, toolkits and pip put them.
#pragma once
#include <string>
#include <vector>

namespace td::cuda {

struct Library {
  void* handle = nullptr;
  std::string path;
  /// Why it is not there: what was looked for and what would bring it.
  std::string problem;

  explicit operator bool() const { return handle; }
  void* symbol(const char* name) const;
};

/// Opens the first of `names` that exists in the folders of TFJS_DIFFUSERS_CUDA_PATH, on the system's own path, in the folders of
/// CUDA toolkits, or in pip's nvidia-* packages. `remedy` is what the user can do when none does.
Library open_library(const std::vector<std::string>& names, const std::string& remedy);

/// NVRTC, which compiles kernels; opened once.
const Library& nvrtc_library();

}  // namespace td::cuda

// Kernels compiled on the user's machine by NVRTC, with the results kept on disk.
#pragma once
#include <map>
#include <string>
#include <vector>

namespace td::cuda {

/// Machine code of one module: what the driver loads, and what the kernels are called in it.
struct Image {
  std::string code;
  /// From the C++ expression of a kernel to its name in the code.
  std::map<std::string, std::string> names;
};

struct CompileRequest {
  /// Folder of the sources, and the file in it that is compiled.
  std::string folder, source;
  /// The kernels that are wanted, as C++ expressions.
  std::vector<std::string> expressions;
  /// sm_90a, ... for machine code; compute_90 for PTX.
  std::string target;
};

/// Compiles by NVRTC, or takes the result from the cache: a file under $XDG_CACHE_HOME/tfjs-diffusers/cuda whose name is a hash of the
/// sources, the kernels, the target and the version of NVRTC. Throws a KernelError with the compiler's own words, or with what would
/// bring NVRTC where it is not. `report`, when given, becomes what the assembler says of registers, shared memory and spills.
Image compile(const CompileRequest& request, std::string* report = nullptr);

/// Whether a kernel exists for a target: Turing has no bfloat16, and wgmma is Hopper's alone.
bool exists_for(const std::string& expression, int capability);

/// An image as bytes in a file, and back. An unreadable file gives an empty image.
std::string serialize(const Image& image);
Image deserialize(const std::string& bytes);

}  // namespace td::cuda

// Where the kernels of a real card come from: images that were packed when the addon was built, in the folder beside it, else NVRTC.
#include <dlfcn.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>

#include "core/errors.h"
#include "cuda/compiler.h"
#include "cuda/launch.h"

namespace td::cuda {
namespace {

struct LoadedModule {
  CUmodule module = nullptr;
  std::map<std::string, std::string> names;
};

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return file ? text.str() : "";
}

/// The folder of images and sources: TFJS_DIFFUSERS_CUDA_KERNELS, else kernels/ beside the addon.
std::string kernels_folder() {
  if (const char* given = std::getenv("TFJS_DIFFUSERS_CUDA_KERNELS")) return given;
  Dl_info info{};
  dladdr(reinterpret_cast<const void*>(&kernels_folder), &info);
  const std::string addon = info.dli_fname ? info.dli_fname : "";
  const size_t slash = addon.rfind('/');
  return (slash == std::string::npos ? "." : addon.substr(0, slash)) + "/kernels";
}

/// The targets whose packed images run on a card, best first: its own, with the instructions of that generation alone where there are
/// some (sm_90a), then older ones of the same generation, then PTX, which the driver compiles.
std::vector<std::string> targets_for(int capability) {
  std::vector<std::string> targets;
  const std::string own = std::to_string(capability);
  if (capability >= 90) targets.push_back("sm_" + own + "a");
  for (int older = capability; older >= capability / 10 * 10; --older) targets.push_back("sm_" + std::to_string(older));
  for (int older : {120, 100, 90, 80, 75}) {
    if (older <= capability) targets.push_back("compute_" + std::to_string(older));
  }
  return targets;
}

/// All kernels of a module that the addon launches somewhere: they are compiled together.
std::vector<std::string> expressions_of(const KernelModule& module) {
  std::vector<std::string> expressions;
  for (const KernelEntry* entry = KernelEntry::first(); entry; entry = entry->next) {
    if (std::string(entry->module->source) == module.source) expressions.push_back(entry->expression);
  }
  return expressions;
}

bool try_load(const Image& image, LoadedModule* loaded) {
  if (image.code.empty() || driver().module_load_data(&loaded->module, image.code.c_str()) != kSuccess) return false;
  loaded->names = image.names;
  return true;
}

/// A driver that is older than the toolkit of the packed images refuses them; NVRTC then compiles for exactly this card.
LoadedModule load_module(const KernelModule& module, const std::string& expression) {
  const std::string folder = kernels_folder(), source = module.source;
  LoadedModule loaded;
  for (const std::string& target : targets_for(card().capability)) {
    const Image image = deserialize(read_file(folder + "/" + source + "." + target));
    if (image.names.count(expression) && try_load(image, &loaded)) return loaded;
  }
  const int capability = card().capability;
  const std::string target = "sm_" + std::to_string(capability) + (capability == 90 ? "a" : "");
  const Image image = compile({folder, source, expressions_of(module), target});
  check(driver().module_load_data(&loaded.module, image.code.c_str()), "cuModuleLoadData");
  loaded.names = image.names;
  return loaded;
}

}  // namespace

CUfunction load_function(const KernelEntry& entry) {
  static auto* modules = new std::map<std::string, LoadedModule>;
  static auto* mutex = new std::mutex;
  const std::lock_guard<std::mutex> lock(*mutex);
  require(exists_for(entry.expression, card().capability), card().name, " has no bfloat16; use float16");
  auto found = modules->find(entry.module->source);
  if (found == modules->end()) found = modules->emplace(entry.module->source, load_module(*entry.module, entry.expression)).first;
  const auto name = found->second.names.find(entry.expression);
  require(name != found->second.names.end(), entry.module->source, " was packed without ", entry.expression);
  CUfunction function = nullptr;
  check(driver().module_get_function(&function, found->second.module, name->second.c_str()), "cuModuleGetFunction");
  return function;
}

}  // namespace td::cuda

#include "cuda/libraries.h"

#include <dlfcn.h>
#include <glob.h>

#include <cstdlib>
#include <sstream>

namespace td::cuda {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

void add_matches(const std::string& pattern, std::vector<std::string>* folders) {
  glob_t found{};
  if (glob(pattern.c_str(), GLOB_ONLYDIR, nullptr, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; ++i) folders->emplace_back(found.gl_pathv[i]);
  }
  globfree(&found);
}

std::vector<std::string> folders() {
  std::vector<std::string> result;
  std::istringstream given(variable("TFJS_DIFFUSERS_CUDA_PATH"));
  for (std::string folder; std::getline(given, folder, ':');) {
    if (!folder.empty()) result.push_back(folder);
  }
  result.emplace_back("");  // the system's own path
  for (const char* name : {"CUDA_HOME", "CUDA_PATH"}) {
    if (!variable(name).empty()) result.push_back(variable(name) + "/lib64");
  }
  add_matches("/usr/local/cuda*/lib64", &result);
  for (const std::string& root : {variable("VIRTUAL_ENV"), variable("CONDA_PREFIX"), variable("HOME") + "/.local", std::string("/usr"),
                                  std::string("/usr/local"), std::string("/opt/conda")}) {
    if (!root.empty()) add_matches(root + "/lib/python3*/*-packages/nvidia/*/lib", &result);
  }
  return result;
}

/// NVRTC opens its other half by name alone: one that lies beside it is opened before.
void open_builtins(const std::string& nvrtc) {
  const size_t slash = nvrtc.rfind('/');
  if (slash == std::string::npos) return;
  glob_t found{};
  if (glob((nvrtc.substr(0, slash) + "/libnvrtc-builtins.so.*").c_str(), 0, nullptr, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; ++i) dlopen(found.gl_pathv[i], RTLD_NOW | RTLD_LOCAL);
  }
  globfree(&found);
}

Library open_nvrtc() {
  Library library =
      open_library({"libnvrtc.so.13", "libnvrtc.so.12"}, "pip install nvidia-cuda-nvrtc (or nvidia-cuda-nvrtc-cu12) brings it");
  if (library) open_builtins(library.path);
  return library;
}

}  // namespace

void* Library::symbol(const char* name) const { return handle ? dlsym(handle, name) : nullptr; }

Library open_library(const std::vector<std::string>& names, const std::string& remedy) {
  std::string reason;
  for (const std::string& folder : folders()) {
    for (const std::string& name : names) {
      const std::string path = folder.empty() ? name : folder + "/" + name;
      if (void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return {handle, path, ""};
      const std::string error = dlerror();
      // That a file is not there says nothing; that one is there and does not load says everything.
      if (error.find("No such file") == std::string::npos) reason = error;
    }
  }
  std::string wanted;
  for (const std::string& name : names) wanted += (wanted.empty() ? "" : " or ") + name;
  return {nullptr, "", (reason.empty() ? wanted + " was not found" : reason) + "; " + remedy};
}

const Library& nvrtc_library() {
  static const Library* library = new Library(open_nvrtc());
  return *library;
}

}  // namespace td::cuda

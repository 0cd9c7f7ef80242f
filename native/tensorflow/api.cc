#include "tensorflow/api.h"

#include <dlfcn.h>

#include "core/errors.h"

namespace td::tensorflow {
namespace {
Api functions;
}

const Api& api() { return functions; }

void load(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  require(library, "TensorFlow's library ", path, " is not loaded");
  Api found;
#define TD_FIND(name, result, arguments)                                        \
  found.name = reinterpret_cast<result(*) arguments>(dlsym(library, #name)); \
  require(found.name, "TensorFlow's library ", path, " has no " #name);
  TD_TENSORFLOW_FUNCTIONS(TD_FIND)
#undef TD_FIND
  functions = found;
}

}  // namespace td::tensorflow

#include "cuda/driver.h"

#include "core/errors.h"

namespace td::cuda {

const Driver& driver() {
  static const Driver* opened = new Driver(open_driver());
  return *opened;
}

void check(CUresult result, const char* what) {
  if (result == kSuccess) return;
  const char *name = nullptr, *text = nullptr;
  driver().get_error_name(result, &name);
  driver().get_error_string(result, &text);
  const std::string message = std::string(what) + " failed: " + (name ? name : std::to_string(result)) + (text ? std::string(", ") + text : "");
  if (result == kOutOfMemory) throw OutOfMemory(message);
  throw KernelError(message);
}

}  // namespace td::cuda

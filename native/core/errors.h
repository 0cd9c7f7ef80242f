#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

namespace td {

/// An input or attribute that a kernel cannot work with; reaches JavaScript as an Error naming the kernel.
struct KernelError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// An allocation above the limit or above what the system has; reaches JavaScript as OutOfMemoryError.
struct OutOfMemory : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// fail("expects rank ", 4, ", got ", rank) throws a KernelError of the joined parts.
template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw KernelError(text.str());
}

template <typename... Parts>
void require(bool condition, const Parts&... parts) {
  if (!condition) fail(parts...);
}

}  // namespace td

#include "cuda/launch.h"

#include <cxxabi.h>

#include <cstdlib>

#include "core/errors.h"

namespace td::cuda {

std::string kernel_expression(const char* mangled) {
  int status = 0;
  char* demangled = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
  const std::string text = demangled ? demangled : "";
  std::free(demangled);
  // "td::cuda::detail::KernelName<&(void td::cuda::name<arguments>(parameters))>", without void where name is no template
  const std::string mark = "KernelName<&";
  size_t begin = text.find(mark);
  if (begin == std::string::npos) return "";
  begin += mark.size();
  if (text[begin] == '(') ++begin;
  if (text.compare(begin, 5, "void ") == 0) begin += 5;
  size_t end = begin;
  for (int depth = 0; end < text.size() && (depth > 0 || (text[end] != '(' && text[end] != '>')); ++end) {
    if (text[end] == '<') ++depth;
    if (text[end] == '>') --depth;
  }
  return text.substr(begin, end - begin);
}

void launch_entry(KernelEntry& entry, const Grid& grid, void** parameters) {
  use_card();
  if (!entry.function) entry.function = load_function(entry);
  const Driver& d = driver();
  if (grid.shared > entry.shared_allowed) {
    require(grid.shared <= static_cast<size_t>(card().max_shared), entry.expression, " needs ", grid.shared,
            " bytes of shared memory, a block of ", card().name, " has ", card().max_shared);
    check(d.func_set_attribute(entry.function, kMaxDynamicShared, static_cast<int>(grid.shared)), "cuFuncSetAttribute");
    entry.shared_allowed = grid.shared;
  }
#if TD_CUDA_EMULATED
  emulator::next_is_independent() = grid.independent;
#endif
  const dim3 &b = grid.blocks, &t = grid.threads;
  check(d.launch_kernel(entry.function, b.x, b.y, b.z, t.x, t.y, t.z, static_cast<unsigned>(grid.shared), card().compute, parameters, nullptr),
        entry.expression.c_str());
}

}  // namespace td::cuda

// Typed launches. launch<module, kernel<...>>(grid, arguments...) converts the arguments to the kernel's own parameter types and
// hands them to the driver; the same instantiation tells the build which kernels there are, by the C++ name that NVRTC knows.
#pragma once
#include <functional>
#include <string>
#include <tuple>
#include <typeinfo>
#include <utility>

#include "cuda/driver.h"
#include "cuda/kernels/device.cuh"
#include "cuda/stream.h"

namespace td::cuda {

/// Blocks, threads per block, bytes of dynamic shared memory; `independent` where threads never meet (the emulator is faster then).
using Grid = emulator::Grid;

/// A file of kernels/, which is compiled as one module. A launch names it as a template argument.
struct KernelModule {
  const char* source;
};

/// A kernel that some launch uses; all of them form a list.
struct KernelEntry {
  const KernelModule* module;
  /// The C++ expression that names it, such as td::cuda::softmax_kernel<float>.
  std::string expression;
  /// The launch as something to run on the emulator, with copies of its arguments; null in the addon for GPUs.
  std::function<void()> (*bind)(const Grid& grid, void** parameters);
  KernelEntry* next;
  CUfunction function = nullptr;
  size_t shared_allowed = 48 << 10;

  KernelEntry(const KernelModule* m, std::string e, std::function<void()> (*b)(const Grid&, void**))
      : module(m), expression(std::move(e)), bind(b), next(first()) {
    first() = this;
  }
  static KernelEntry*& first() {
    static KernelEntry* entry = nullptr;
    return entry;
  }
};

/// Finds the kernel in its module, which is loaded, or compiled, first. Defined by modules.cc or by emulator/driver.cc.
CUfunction load_function(const KernelEntry& entry);

/// Launches on the compute stream; checks the result.
void launch_entry(KernelEntry& entry, const Grid& grid, void** parameters);

/// Blocks of `per_block` for `count` items.
inline unsigned blocks_for(int64_t count, int64_t per_block) { return static_cast<unsigned>((count + per_block - 1) / per_block); }

/// One thread per item, threads that never meet.
inline Grid grid_for(int64_t count, unsigned threads = 256) { return {dim3(blocks_for(count, threads)), dim3(threads), 0, true}; }

/// The C++ expression of the function that a mangled KernelName<function> names.
std::string kernel_expression(const char* mangled);

namespace detail {

template <auto Kernel>
struct KernelName {};

template <auto Kernel>
std::string expression_of() {
  return kernel_expression(typeid(KernelName<Kernel>).name());
}

template <auto Kernel>
struct KernelTraits;
template <class... P, void (*Kernel)(P...)>
struct KernelTraits<Kernel> {
  using Parameters = std::tuple<P...>;

  template <size_t... I>
  static std::function<void()> bind(const Grid& grid, void** parameters, std::index_sequence<I...>) {
    return [grid, copies = Parameters(*static_cast<P*>(parameters[I])...)] {
      emulator::run_grid(grid, [&] { std::apply(Kernel, copies); });
    };
  }
  static std::function<void()> bind(const Grid& grid, void** parameters) { return bind(grid, parameters, std::index_sequence_for<P...>()); }
};

template <const KernelModule& Module, auto Kernel>
struct Registered {
#if TD_CUDA_EMULATED
  static inline KernelEntry entry{&Module, expression_of<Kernel>(), &KernelTraits<Kernel>::bind};
#else
  static inline KernelEntry entry{&Module, expression_of<Kernel>(), nullptr};
#endif
};

template <class Parameters, size_t... I, class... A>
void launch_typed(KernelEntry& entry, const Grid& grid, std::index_sequence<I...>, A... arguments) {
  Parameters values(static_cast<std::tuple_element_t<I, Parameters>>(arguments)...);
  void* pointers[] = {&std::get<I>(values)...};
  launch_entry(entry, grid, pointers);
}

}  // namespace detail

template <const KernelModule& Module, auto Kernel, class... A>
void launch(const Grid& grid, A... arguments) {
  using Parameters = typename detail::KernelTraits<Kernel>::Parameters;
  static_assert(std::tuple_size_v<Parameters> == sizeof...(A), "the kernel takes another number of arguments");
  detail::launch_typed<Parameters>(detail::Registered<Module, Kernel>::entry, grid, std::index_sequence_for<A...>(), arguments...);
}

}  // namespace td::cuda

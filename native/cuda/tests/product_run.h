// Runs products on the emulator, with the sums of several blocks where a case asks for it.
#pragma once
#include "cuda/kernels/convolution.cuh"
#include "cuda/kernels/gemm.cuh"
#include "numbers.h"

namespace td::cuda::test {

template <class T, class Problem, class Tile>
void run_product(typename Problem::Arguments p, int rows, int columns, int batch, int splits) {
  DeviceArray<float> sums(splits > 1 ? size_t(batch) * splits * rows * columns : 0);
  p.partial = {splits > 1 ? sums.data() : nullptr, splits};
  const dim3 grid((rows + Tile::kRows - 1) / Tile::kRows, (columns + Tile::kColumns - 1) / Tile::kColumns, batch * splits);
  emulator::run_grid(product_kernel<Tile, Problem>, {grid, dim3(Tile::kThreads), size_t(Tile::kShared), false}, p);
  if (splits == 1) return;
  const int64_t quads = int64_t(rows) * ((p.epilogue.columns + 3) / 4);
  emulator::run_grid(product_finish_kernel<T, Problem>, {dim3((quads + 255) / 256, 1, batch), dim3(256), 0, true}, p);
}

inline double activated(Activation activation, double x, double gate = 0) {
  const auto sigmoid = [](double y) { return 1 / (1 + std::exp(-y)); };
  const auto gelu = [](double y) { return 0.5 * y * (1 + std::erf(y * M_SQRT1_2)); };
  switch (activation) {
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::gelu:
      return gelu(x);
    case Activation::quick_gelu:
      return x * sigmoid(1.702 * x);
    case Activation::geglu:
      return x * gelu(gate);
    default:
      return x;
  }
}

template <class T>
bool vectors_fit(const void* data, int64_t stride) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % (16 / sizeof(Number<T>)) == 0;
}

template <class T>
void check_error(const Error<T>& error, double float_limit = 1e-6) {
  if (sizeof(Number<T>) == 2) CHECK(error.times() < 1.5);
  else CHECK(error.relative() < float_limit);
}

}  // namespace td::cuda::test

// Which tile a product is computed by, how many blocks share the sums of one, and its launch.
#pragma once
#include <algorithm>

#include "cuda/dispatch.h"
#include "cuda/kernels/product_float32.cuh"

namespace td::cuda {

/// Rows and columns of a product, steps of 32 (or, in float32, 16) along k, and how many products there are.
struct ProductSize {
  int64_t rows, columns, steps, batch;
  int64_t tiles(int rows_of_tile, int columns_of_tile) const {
    return batch * blocks_for(rows, rows_of_tile) * blocks_for(columns, columns_of_tile);
  }
};

/// Blocks that share the sums of one tile: enough to fill the card, none with fewer than 8 steps.
inline int splits_of(const ProductSize& size, int64_t tiles) {
  const int64_t wanted = 2 * card().multiprocessors / std::max<int64_t>(1, tiles);
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>({wanted, size.steps / 8, 64})));
}

/// Whether tiles of 128 x 128 leave no part of the card without work.
inline bool fills_card(const ProductSize& size) { return size.tiles(128, 128) >= card().multiprocessors; }

template <const KernelModule& Module, class T, class Problem, class Tile>
void launch_tile(typename Problem::Arguments p, const ProductSize& size) {
  const int64_t tiles = size.tiles(Tile::kRows, Tile::kColumns);
  p.partial.splits = splits_of(size, tiles);
  Tensor sums;
  if (p.partial.splits > 1) {
    sums = Tensor::empty(DType::f32, {size.batch * p.partial.splits, size.rows, size.columns});
    p.partial.sums = sums.mutable_data<float>();
  }
  const dim3 grid(blocks_for(size.rows, Tile::kRows), blocks_for(size.columns, Tile::kColumns), static_cast<unsigned>(size.batch * p.partial.splits));
  launch<Module, product_kernel<Tile, Problem>>(Grid{grid, dim3(Tile::kThreads), Tile::kShared, false}, p);
  if (p.partial.splits == 1) return;
  const dim3 finish(blocks_for(size.rows * ((p.epilogue.columns + 3) / 4), 256), 1, static_cast<unsigned>(size.batch));
  launch<Module, product_finish_kernel<T, Problem>>(Grid{finish, dim3(256), 0, true}, p);
}

/// ProblemFor<Group> is the problem with columns in groups of that size.
template <const KernelModule& Module, class T, template <int> class ProblemFor, class Arguments>
void launch_product(const Arguments& p, const ProductSize& size, bool aligned) {
  require(size.rows < INT32_MAX && size.columns < (1 << 22), "a product of ", size.rows, " rows and ", size.columns, " columns is too large");
  if constexpr (sizeof(typename Stored<T>::type) == 4) {
    if (fills_card(size)) launch_tile<Module, T, ProblemFor<128>, FloatProduct<ProblemFor<128>, 128>>(p, size);
    else launch_tile<Module, T, ProblemFor<64>, FloatProduct<ProblemFor<64>, 64>>(p, size);
  } else {
    using P = ProblemFor<32>;
    if (!aligned) launch_tile<Module, T, P, Product<T, P, 64, 64, 32, 4, false>>(p, size);
    else if (fills_card(size)) launch_tile<Module, T, P, Product<T, P, 128, 128, 64, 3, true>>(p, size);
    else launch_tile<Module, T, P, Product<T, P, 64, 64, 32, 4, true>>(p, size);
  }
}

/// Whether rows of `stride` numbers from there on begin at multiples of 16 bytes.
inline bool rows_aligned(const void* data, int64_t stride, DType type) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride * static_cast<int64_t>(size_of(type)) % 16 == 0;
}

/// Constants per column for a product of that type; `converted` keeps those that had to be.
inline Offsets offsets_of(const Tensor& constants, DType type, Tensor* converted) {
  if (!constants) return {nullptr, true};
  *converted = constants.dtype() == type ? constants : as_type(constants, DType::f32);
  return {converted->raw(), converted->dtype() == DType::f32};
}

inline Activation activation_of(const std::string& name) {
  if (name == "linear") return Activation::linear;
  if (name == "silu") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "quick_gelu") return Activation::quick_gelu;
  fail("does not know activation '", name, "'");
}

/// y = activation(x weight + bias + embedding[image]) + residual on checked operands of y's type; the last three may be empty.
struct LinearOperands {
  const Tensor &x, &weight, &bias, &residual, &embedding;
  int64_t image_rows;
  Activation activation;
};
void linear(const LinearOperands& operands, Tensor& y);

}  // namespace td::cuda

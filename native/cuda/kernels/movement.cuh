// Kernels that move numbers and do not look at them. Bits is an unsigned integer of the size of a number.
#pragma once
#include "strided.cuh"

namespace td::cuda {

/// to[...] = from[...] by the strides of both: strides[0] of the source, strides[1] of the destination.
template <class Bits>
__global__ void copy_kernel(const Bits* from, Bits* to, int64_t n, Walk<2> walk) {
  const int64_t i = global_thread();
  if (i >= n) return;
  const Places<2> at = locate(walk, i);
  to[at.at[1]] = from[at.at[0]];
}

/// Matrices whose rows lie side by side in the destination and whose columns lie side by side in the source: squares of 32 x 32 go
/// through shared memory, so that both sides are read and written in whole lines. Blocks of 32 x 8 threads.
struct Transposition {
  int64_t rows, columns;
  int64_t from_column, to_row;    // strides; along rows of the source and along columns of the destination it is 1
  int64_t from_matrix, to_matrix;
};
template <class Bits>
__global__ void transpose_kernel(const Bits* from, Bits* to, Transposition t) {
  TD_SHARED(Bits, tile, 32 * 33);
  const int64_t row = int64_t(blockIdx.y) * 32, column = int64_t(blockIdx.x) * 32;
  const int x = threadIdx.x, y = threadIdx.y;
  from += blockIdx.z * t.from_matrix;
  to += blockIdx.z * t.to_matrix;
  for (int i = y; i < 32; i += 8) {
    if (column + i < t.columns && row + x < t.rows) tile[i * 33 + x] = from[(column + i) * t.from_column + row + x];
  }
  __syncthreads();
  for (int i = y; i < 32; i += 8) {
    if (row + i < t.rows && column + x < t.columns) to[(row + i) * t.to_row + column + x] = tile[x * 33 + i];
  }
}

template <class Bits>
__global__ void fill_kernel(Bits* to, Bits value, int64_t n) {
  const int64_t i = global_thread();
  if (i < n) to[i] = value;
}

/// Walk: dimensions of the result and strides of x; `before` and `size` per axis; edge 0 for reflect, 1 for symmetric.
struct Mirror {
  int64_t before[kRank], size[kRank];
  int edge;
};
template <class Bits>
__global__ void mirror_pad_kernel(const Bits* x, Bits* y, int64_t n, Walk<1> walk, Mirror mirror) {
  const int64_t i = global_thread();
  if (i >= n) return;
  int64_t rest = i, offset = 0;
  for (int axis = walk.rank - 1; axis >= 0; --axis) {
    int64_t at = rest % walk.dims[axis] - mirror.before[axis];
    rest /= walk.dims[axis];
    if (at < 0) at = -at - mirror.edge;
    if (at >= mirror.size[axis]) at = 2 * (mirror.size[axis] - 1) - at + mirror.edge;
    offset += at * walk.strides[0][axis];
  }
  y[i] = x[offset];
}

/// x [batch, outer, axis, inner] by index [batch, count] to y [batch, outer, count, inner]; an index outside gives zeros.
template <class Bits>
__global__ void gather_kernel(const Bits* x, const int32_t* index, Bits* y, int64_t n, int64_t outer, int64_t axis, int64_t count, int64_t inner) {
  const int64_t i = global_thread();
  if (i >= n) return;
  const int64_t row = i / inner / count, place = i / inner % count;
  const int64_t at = index[row / outer * count + place];
  y[i] = at >= 0 && at < axis ? x[(row * axis + at) * inner + i % inner] : Bits(0);
}
/// found[0] becomes 1 more than the place of some index outside of [0, axis), 0 stays where there is none.
__global__ void check_index_kernel(const int32_t* index, int64_t n, int64_t axis, int32_t* found) {
  const int64_t i = global_thread();
  if (i < n && (index[i] < 0 || index[i] >= axis)) *found = int32_t(i) + 1;
}

}  // namespace td::cuda

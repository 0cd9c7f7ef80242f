#include "cuda/kernels/movement.cuh"

#include <cmath>
#include <cstring>

#include "cuda/dispatch.h"
#include "cuda/kernels.h"

namespace td::cuda {
namespace {

constexpr KernelModule kModule{"movement.cuh"};

/// The copy as transposition of matrices, when it is one: the last axis of the destination jumps in the source, another one does not.
bool transposed(const CopyAxis* axes, int rank, Transposition* t, int64_t* matrices) {
  if (rank < 2 || rank > 3 || axes[rank - 1].to != 1 || axes[rank - 1].from == 1) return false;
  const int row = axes[rank - 2].from == 1 ? rank - 2 : rank == 3 && axes[0].from == 1 ? 0 : -1;
  if (row < 0 || axes[row].dim < 8 || axes[rank - 1].dim < 8) return false;
  const CopyAxis one{1, 0, 0};
  const CopyAxis &rows = axes[row], &columns = axes[rank - 1], &rest = rank == 3 ? axes[1 - row] : one;
  if (rest.dim > 65535 || rows.dim > 65535 * 32) return false;
  *t = {rows.dim, columns.dim, columns.from, rows.to, rest.from, rest.to};
  *matrices = rest.dim;
  return true;
}

template <class Bits>
void copy_bits(const CopyAxis* axes, int rank, const void* from, void* to) {
  const Bits* source = static_cast<const Bits*>(from);
  Bits* target = static_cast<Bits*>(to);
  Transposition t;
  int64_t matrices;
  if (transposed(axes, rank, &t, &matrices)) {
    const Grid grid{dim3(blocks_for(t.columns, 32), blocks_for(t.rows, 32), static_cast<unsigned>(matrices)), dim3(32, 8)};
    return launch<kModule, transpose_kernel<Bits>>(grid, source, target, t);
  }
  Walk<2> walk{};
  walk.rank = rank;
  int64_t n = 1;
  for (int i = 0; i < rank; ++i) {
    walk.dims[i] = axes[i].dim;
    walk.strides[0][i] = axes[i].from;
    walk.strides[1][i] = axes[i].to;
    n *= axes[i].dim;
  }
  launch<kModule, copy_kernel<Bits>>(grid_for(n), source, target, n, walk);
}

void identity(Call& call) { call.outputs.push_back(call.input(0)); }

void transpose(Call& call) {
  const Tensor& x = call.input(0);
  const std::vector<int64_t> permutation = call.attributes.integers("perm");
  require(static_cast<int>(permutation.size()) == x.shape.rank, "perm needs one entry per dimension");
  int64_t strides[kMaxRank], from[kMaxRank], to[kMaxRank];
  contiguous_strides(x.shape, strides);
  Shape shape;
  bool used[kMaxRank] = {};
  for (size_t i = 0; i < permutation.size(); ++i) {
    const int64_t axis = permutation[i];
    require(axis >= 0 && axis < x.shape.rank && !used[axis], "perm is not a permutation of the dimensions");
    used[axis] = true;
    shape.push(x.shape.dims[axis]);
    from[i] = strides[axis];
  }
  contiguous_strides(shape, to);
  Tensor& y = call.output(x.dtype(), shape);
  strided_copy(x.dtype(), shape, x.raw(), from, y.mutable_raw(), to);
}

/// begin + i * step per axis; the shape comes from tfjs-core's own slicing rules.
void strided_slice(Call& call) {
  const Tensor& x = call.input(0);
  const std::vector<int64_t> begin = call.attributes.integers("begin");
  const Shape shape = call.attributes.shape("size");
  std::vector<int64_t> step(x.shape.rank, 1);
  if (call.attributes.has("strides")) step = call.attributes.integers("strides");
  require(static_cast<int>(begin.size()) == x.shape.rank && shape.rank == x.shape.rank && step.size() == begin.size(),
          "begin, size and strides need one entry per dimension");
  int64_t strides[kMaxRank], from[kMaxRank], to[kMaxRank], offset = 0;
  contiguous_strides(x.shape, strides);
  contiguous_strides(shape, to);
  for (int i = 0; i < shape.rank; ++i) {
    const int64_t last = begin[i] + (shape.dims[i] - 1) * step[i];
    require(shape.dims[i] == 0 || (begin[i] >= 0 && begin[i] < x.shape.dims[i] && last >= 0 && last < x.shape.dims[i]),
            "slice ", begin[i], " + ", shape.dims[i], " x ", step[i], " leaves dimension ", i, " of ", x.shape);
    from[i] = strides[i] * step[i];
    offset += strides[i] * begin[i];
  }
  Tensor& y = call.output(x.dtype(), shape);
  if (shape.elements()) strided_copy(x.dtype(), shape, x.data<char>() + offset * size_of(x.dtype()), from, y.mutable_raw(), to);
}

DType common_type(const Call& call) {
  DType type = call.input(0).dtype();
  for (const Tensor& x : call.inputs) {
    require(static_cast<bool>(x), "an input is missing");
    if (x.dtype() != type) type = is_float(x.dtype()) || is_float(type) ? DType::f32 : DType::i32;
  }
  return type;
}

void concat(Call& call) {
  const Shape& first = call.input(0).shape;
  const int64_t axis = call.attributes.integer("axis");
  require(axis >= 0 && axis < first.rank, "axis ", axis, " is not one of the ", first.rank, " dimensions");
  Shape shape = first;
  shape[axis] = 0;
  for (const Tensor& x : call.inputs) {
    require(x && x.shape.rank == first.rank, "expects inputs of one rank");
    for (int i = 0; i < first.rank; ++i) {
      require(i == axis || x.shape[i] == first[i], "shapes ", first, " and ", x.shape, " differ outside axis ", axis);
    }
    shape[axis] += x.shape[axis];
  }
  const DType type = common_type(call);
  Tensor& y = call.output(type, shape);
  int64_t to[kMaxRank], from[kMaxRank], at = 0;
  contiguous_strides(shape, to);
  for (const Tensor& input : call.inputs) {
    const Tensor x = as_type(input, type);
    contiguous_strides(x.shape, from);
    strided_copy(type, x.shape, x.raw(), from, y.mutable_data<char>() + at * to[axis] * size_of(type), to);
    at += x.shape[axis];
  }
}

/// Stacks inputs of one shape along a new axis.
void pack(Call& call) {
  const Shape& first = call.input(0).shape;
  const int64_t axis = call.attributes.integer("axis");
  require(axis >= 0 && axis <= first.rank, "axis ", axis, " is not one of the ", first.rank + 1, " dimensions of the result");
  Shape shape;
  for (int i = 0; i <= first.rank; ++i) shape.push(i == axis ? static_cast<int64_t>(call.inputs.size()) : first[i < axis ? i : i - 1]);
  const DType type = common_type(call);
  Tensor& y = call.output(type, shape);
  int64_t strides[kMaxRank], to[kMaxRank], from[kMaxRank], at = 0;
  contiguous_strides(shape, strides);
  contiguous_strides(first, from);
  for (int i = 0; i < first.rank; ++i) to[i] = strides[i < axis ? i : i + 1];
  for (const Tensor& input : call.inputs) {
    require(input.shape == first, "expects inputs of one shape, got ", first, " and ", input.shape);
    const Tensor x = as_type(input, type);
    strided_copy(type, first, x.raw(), from, y.mutable_data<char>() + at++ * strides[axis] * size_of(type), to);
  }
}

void pad(Call& call) {
  const Tensor& x = call.input(0);
  const std::vector<int64_t> paddings = call.attributes.integers("paddings");
  require(static_cast<int>(paddings.size()) == 2 * x.shape.rank, "paddings needs two entries per dimension");
  Shape shape;
  for (int i = 0; i < x.shape.rank; ++i) {
    require(paddings[2 * i] >= 0 && paddings[2 * i + 1] >= 0, "paddings must not be negative");
    shape.push(paddings[2 * i] + x.shape.dims[i] + paddings[2 * i + 1]);
  }
  Tensor& y = call.output(x.dtype(), shape);
  fill(y, call.attributes.number("constantValue", 0));
  int64_t from[kMaxRank], to[kMaxRank], offset = 0;
  contiguous_strides(x.shape, from);
  contiguous_strides(shape, to);
  for (int i = 0; i < shape.rank; ++i) offset += paddings[2 * i] * to[i];
  strided_copy(x.dtype(), x.shape, x.raw(), from, y.mutable_data<char>() + offset * size_of(x.dtype()), to);
}

void mirror_pad(Call& call) {
  const Tensor& x = call.input(0);
  const std::vector<int64_t> paddings = call.attributes.integers("paddings");
  require(static_cast<int>(paddings.size()) == 2 * x.shape.rank, "paddings needs two entries per dimension");
  Mirror mirror{{}, {}, call.attributes.text("mode") == "reflect" ? 0 : 1};
  Walk<1> walk{};
  Shape shape;
  contiguous_strides(x.shape, walk.strides[0]);
  for (int i = 0; i < x.shape.rank; ++i) {
    const int64_t most = x.shape.dims[i] - 1 + mirror.edge;
    require(paddings[2 * i] >= 0 && paddings[2 * i] <= most && paddings[2 * i + 1] >= 0 && paddings[2 * i + 1] <= most,
            "paddings of dimension ", i, " must be between 0 and ", most);
    mirror.before[i] = paddings[2 * i];
    mirror.size[i] = x.shape.dims[i];
    shape.push(paddings[2 * i] + x.shape.dims[i] + paddings[2 * i + 1]);
    walk.dims[i] = shape.dims[i];
  }
  walk.rank = shape.rank;
  Tensor& y = call.output(x.dtype(), shape);
  if (y.elements() == 0) return;
  by_size(x.dtype(), [&](auto bits) {
    using B = decltype(bits);
    launch<kModule, mirror_pad_kernel<B>>(grid_for(y.elements()), x.data<B>(), y.mutable_data<B>(), y.elements(), walk, mirror);
  });
}

void tile(Call& call) {
  const Tensor& x = call.input(0);
  const Shape repeats = call.attributes.shape("reps");
  require(repeats.rank == x.shape.rank, "reps needs one entry per dimension");
  Tensor current = x;
  // One axis at a time, so that high ranks need no more dimensions than there are.
  for (int axis = x.shape.rank - 1; axis >= 0; --axis) {
    if (repeats.dims[axis] == 1) continue;
    Shape shape = current.shape;
    shape[axis] *= repeats.dims[axis];
    Tensor next = Tensor::empty(x.dtype(), shape);
    const int64_t block = current.shape.product(axis, current.shape.rank), outer = current.shape.product(0, axis);
    const Shape dims{outer, repeats.dims[axis], block};
    const int64_t from[] = {block, 0, 1}, to[] = {block * repeats.dims[axis], block, 1};
    strided_copy(x.dtype(), dims, current.raw(), from, next.mutable_raw(), to);
    current = next;
  }
  call.outputs.push_back(current);
}

void broadcast_to(Call& call) {
  const Tensor& x = call.input(0);
  const Shape shape = call.attributes.shape("shape");
  require(broadcast_shape(x.shape, shape) == shape, "cannot broadcast ", x.shape, " to ", shape);
  int64_t strides[kMaxRank], from[kMaxRank], to[kMaxRank];
  contiguous_strides(x.shape, strides);
  contiguous_strides(shape, to);
  for (int i = 0; i < shape.rank; ++i) {
    const int axis = i - (shape.rank - x.shape.rank);
    from[i] = axis < 0 || x.shape.dims[axis] == 1 ? 0 : strides[axis];
  }
  Tensor& y = call.output(x.dtype(), shape);
  strided_copy(x.dtype(), shape, x.raw(), from, y.mutable_raw(), to);
}

void reverse(Call& call) {
  const Tensor& x = call.input(0);
  int64_t from[kMaxRank], to[kMaxRank], offset = 0;
  contiguous_strides(x.shape, from);
  contiguous_strides(x.shape, to);
  for (int64_t axis : call.attributes.integers("dims")) {
    require(axis >= 0 && axis < x.shape.rank, "axis ", axis, " is not a dimension of ", x.shape);
    offset += (x.shape.dims[axis] - 1) * from[axis];
    from[axis] = -from[axis];
  }
  Tensor& y = call.output(x.dtype(), x.shape);
  if (x.elements()) strided_copy(x.dtype(), x.shape, x.data<char>() + offset * int64_t(size_of(x.dtype())), from, y.mutable_raw(), to);
}

/// An index outside is an error, where it can be known: while a step is compiled nothing may wait for the GPU, and such rows are zero.
void check_indices(const Tensor& indices, int64_t axis) {
  if (capturing()) return;
  Tensor found = Tensor::empty(DType::i32, {1});
  fill(found, 0);
  launch<kModule, check_index_kernel>(grid_for(indices.elements()), indices.data<int32_t>(), indices.elements(), axis, found.mutable_data<int32_t>());
  int32_t place = 0, index = 0;
  fetch(found.raw(), &place, sizeof place);
  if (place == 0) return;
  fetch(indices.data<int32_t>() + place - 1, &index, sizeof index);
  fail("GatherV2: the index value ", index, " is not in [0, ", axis - 1, "]");
}

/// x [batch, outer, axis, inner] by indices [batch, n] gives [batch, outer, n, inner]; the caller knows the final shape.
void gather(Call& call) {
  const Tensor &x = call.input(0), indices = as_type(call.input(1), DType::i32);
  require(x.shape.rank == 4 && indices.shape.rank == 2 && x.shape[0] == indices.shape[0],
          "expects x [batch, outer, axis, inner] and indices [batch, n]");
  const int64_t outer = x.shape[1], axis = x.shape[2], inner = x.shape[3], count = indices.shape[1];
  if (indices.elements()) check_indices(indices, axis);
  Tensor& y = call.output(x.dtype(), {x.shape[0], outer, count, inner});
  if (y.elements() == 0) return;
  by_size(x.dtype(), [&](auto bits) {
    using B = decltype(bits);
    launch<kModule, gather_kernel<B>>(grid_for(y.elements()), x.data<B>(), indices.data<int32_t>(), y.mutable_data<B>(), y.elements(), outer, axis,
                                      count, inner);
  });
}

uint16_t half_bits(DType type, float value) { return type == DType::f16 ? emulator::float_to_half(value) : emulator::float_to_bf16(value); }

/// The value as a number of that type, in the low bytes.
uint32_t bits_of(DType type, double value) {
  if (type == DType::i32) return static_cast<uint32_t>(static_cast<int64_t>(value));
  if (type == DType::boolean) return value != 0;
  const float number = static_cast<float>(value);
  if (type != DType::f32) return half_bits(type, number);
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof bits);
  return bits;
}

}  // namespace

void strided_copy(DType type, const Shape& dims, const void* from, const int64_t* from_strides, void* to, const int64_t* to_strides) {
  if (dims.elements() == 0) return;
  CopyAxis axes[kMaxRank];
  const int rank = simplify_copy(dims, from_strides, to_strides, axes);
  by_size(type, [&](auto bits) { copy_bits<decltype(bits)>(axes, rank, from, to); });
}

void fill(Tensor& y, double value) {
  if (y.elements() == 0) return;
  const uint32_t bits = bits_of(y.dtype(), value);
  by_size(y.dtype(), [&](auto size) {
    using B = decltype(size);
    launch<kModule, fill_kernel<B>>(grid_for(y.elements()), y.mutable_data<B>(), static_cast<B>(bits), y.elements());
  });
}

void register_movement(Registry& registry) {
  registry.add("Identity", identity);
  registry.add("Transpose", transpose);
  registry.add("StridedSlice", strided_slice);
  registry.add("Concat", concat);
  registry.add("Pack", pack);
  registry.add("PadV2", pad);
  registry.add("MirrorPad", mirror_pad);
  registry.add("Tile", tile);
  registry.add("BroadcastTo", broadcast_to);
  registry.add("Reverse", reverse);
  registry.add("GatherV2", gather);
}

}  // namespace td::cuda

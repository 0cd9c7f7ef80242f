#include <cstring>

#include "core/kernel.h"
#include "cpu/convert.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/strided.h"

namespace td {
namespace {

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
  strided_copy(size_of(x.dtype()), shape, x.raw(), from, y.mutable_raw(), to);
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
  const size_t size = size_of(x.dtype());
  if (shape.elements()) strided_copy(size, shape, x.data<char>() + offset * size, from, y.mutable_raw(), to);
}

DType common_type(const Call& call) {
  DType type = call.input(0).dtype();
  for (const Tensor& x : call.inputs) {
    require(static_cast<bool>(x), "an input is missing");
    if (x.dtype() == type) continue;
    type = is_float(x.dtype()) || is_float(type) ? DType::f32 : DType::i32;
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
    for (int i = 0; i < first.rank; ++i)
      require(i == axis || x.shape[i] == first[i], "shapes ", first, " and ", x.shape, " differ outside axis ", axis);
    shape[axis] += x.shape[axis];
  }
  const DType type = common_type(call);
  const size_t size = size_of(type);
  Tensor& y = call.output(type, shape);
  int64_t to[kMaxRank], from[kMaxRank];
  contiguous_strides(shape, to);
  int64_t at = 0;
  for (const Tensor& input : call.inputs) {
    const Tensor x = as_type(input, type);
    contiguous_strides(x.shape, from);
    if (x.elements()) strided_copy(size, x.shape, x.raw(), from, y.mutable_data<char>() + at * to[axis] * size, to);
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
  const size_t size = size_of(type);
  Tensor& y = call.output(type, shape);
  int64_t strides[kMaxRank], to[kMaxRank], from[kMaxRank], at = 0;
  contiguous_strides(shape, strides);
  contiguous_strides(first, from);
  for (int i = 0; i < first.rank; ++i) to[i] = strides[i < axis ? i : i + 1];
  for (const Tensor& input : call.inputs) {
    require(input.shape == first, "expects inputs of one shape, got ", first, " and ", input.shape);
    const Tensor x = as_type(input, type);
    if (x.elements()) strided_copy(size, first, x.raw(), from, y.mutable_data<char>() + at++ * strides[axis] * size, to);
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
  const float value = static_cast<float>(call.attributes.number("constantValue", 0));
  const size_t size = size_of(x.dtype());
  char pattern[4] = {};
  convert(DType::f32, &value, x.dtype(), pattern, 1);
  char* out = y.mutable_data<char>();
  const bool zero = value == 0.0f;
  parallel_for(shape.elements(), kSerial * 4, [&](int64_t begin, int64_t end) {
    if (zero) {
      std::memset(out + begin * size, 0, (end - begin) * size);
    } else {
      for (int64_t i = begin; i < end; ++i) std::memcpy(out + i * size, pattern, size);
    }
  });
  int64_t from[kMaxRank], to[kMaxRank], offset = 0;
  contiguous_strides(x.shape, from);
  contiguous_strides(shape, to);
  for (int i = 0; i < shape.rank; ++i) offset += paddings[2 * i] * to[i];
  if (x.elements()) strided_copy(size, x.shape, x.raw(), from, out + offset * size, to);
}

void mirror_pad(Call& call) {
  const Tensor& x = call.input(0);
  const std::vector<int64_t> paddings = call.attributes.integers("paddings");
  require(static_cast<int>(paddings.size()) == 2 * x.shape.rank, "paddings needs two entries per dimension");
  const int64_t edge = call.attributes.text("mode") == "reflect" ? 0 : 1;
  Shape shape;
  for (int i = 0; i < x.shape.rank; ++i) {
    const int64_t most = x.shape.dims[i] - 1 + edge;
    require(paddings[2 * i] >= 0 && paddings[2 * i] <= most && paddings[2 * i + 1] >= 0 && paddings[2 * i + 1] <= most,
            "paddings of dimension ", i, " must be between 0 and ", most);
    shape.push(paddings[2 * i] + x.shape.dims[i] + paddings[2 * i + 1]);
  }
  Tensor& y = call.output(x.dtype(), shape);
  int64_t strides[kMaxRank];
  contiguous_strides(x.shape, strides);
  const size_t size = size_of(x.dtype());
  const char* in = x.data<char>();
  char* out = y.mutable_data<char>();
  for (int64_t i = 0; i < shape.elements(); ++i) {
    int64_t rest = i, offset = 0;
    for (int axis = shape.rank - 1; axis >= 0; --axis) {
      int64_t at = rest % shape.dims[axis] - paddings[2 * axis];
      rest /= shape.dims[axis];
      if (at < 0) at = -at - edge;
      if (at >= x.shape.dims[axis]) at = 2 * (x.shape.dims[axis] - 1) - at + edge;
      offset += at * strides[axis];
    }
    std::memcpy(out + i * size, in + offset * size, size);
  }
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
    if (next.elements()) strided_copy(size_of(x.dtype()), dims, current.raw(), from, next.mutable_raw(), to);
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
  if (shape.elements()) strided_copy(size_of(x.dtype()), shape, x.raw(), from, y.mutable_raw(), to);
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
  const size_t size = size_of(x.dtype());
  if (x.elements()) strided_copy(size, x.shape, x.data<char>() + offset * size, from, y.mutable_raw(), to);
}

}  // namespace

void register_data_movement(Registry& registry) {
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
}

}  // namespace td

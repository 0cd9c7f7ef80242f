#include "cuda/kernels/reduction.cuh"

#include "cuda/dispatch.h"
#include "cuda/kernels.h"

namespace td::cuda {
namespace {

constexpr KernelModule kModule{"reduction.cuh"};

/// An input brought to [outer, middle, inner] with the reduced axes in the middle.
struct Grouped {
  Tensor x;
  int64_t outer, middle, inner;
  Shape result;

  int64_t columns() const { return outer * inner; }
};

/// Reduced axes that do not lie side by side move to the end.
Tensor move_to_end(const Tensor& x, const bool* reduced) {
  int64_t strides[kMaxRank], from[kMaxRank], to[kMaxRank];
  contiguous_strides(x.shape, strides);
  Shape moved;
  for (int pass = 0; pass < 2; ++pass) {
    for (int i = 0; i < x.shape.rank; ++i) {
      if (reduced[i] != (pass == 1)) continue;
      from[moved.rank] = strides[i];
      moved.push(x.shape.dims[i]);
    }
  }
  contiguous_strides(moved, to);
  Tensor y = Tensor::empty(x.dtype(), moved);
  strided_copy(x.dtype(), moved, x.raw(), from, y.mutable_raw(), to);
  return y;
}

Grouped group_axes(const Call& call) {
  const Tensor& x = call.input(0);
  std::vector<int64_t> axes;
  if (call.attributes.has("axis")) axes = call.attributes.integers("axis");
  const int rank = x.shape.rank;
  bool reduced[kMaxRank] = {};
  for (int64_t axis : axes) {
    require(axis >= 0 && axis < std::max(rank, 1), "axis ", axis, " is not a dimension of ", x.shape);
    reduced[axis] = true;
  }
  Grouped grouped{x, 1, 1, 1, {}};
  int first = -1, last = -1, count = 0;
  for (int i = 0; i < rank; ++i) {
    if (!reduced[i]) {
      grouped.result.push(x.shape.dims[i]);
      continue;
    }
    first = first < 0 ? i : first;
    last = i;
    ++count;
    grouped.middle *= x.shape.dims[i];
  }
  if (count == 0) {
    grouped.outer = x.elements();
  } else if (last - first + 1 == count) {
    grouped.outer = x.shape.product(0, first);
    grouped.inner = x.shape.product(last + 1, rank);
  } else {
    grouped.x = move_to_end(x, reduced);
    grouped.outer = grouped.result.elements();
  }
  return grouped;
}

/// Threads of a block for a row of `n` numbers.
unsigned threads_for(int64_t n) { return static_cast<unsigned>(std::min<int64_t>(512, std::max<int64_t>(1, (n + 127) / 128) * 32)); }

/// One step: x [outer, middle, inner] to y [outer, pieces, inner], each piece `chunk` numbers.
template <class From, class To>
void reduce_step(Reduce op, const void* x, void* y, const Grouped& g, int64_t pieces, int64_t chunk, float scale) {
  const auto* from = static_cast<const Number<From>*>(x);
  auto* to = static_cast<Number<To>*>(y);
  const unsigned parts = static_cast<unsigned>(pieces);
  if (g.inner == 1) {
    const Grid grid{dim3(static_cast<unsigned>(g.outer), parts), dim3(threads_for(chunk))};
    return launch<kModule, reduce_rows_kernel<From, To>>(grid, op, from, to, g.middle, chunk, scale);
  }
  const Grid grid{dim3(blocks_for(g.columns(), 256), parts), dim3(256), 0, true};
  launch<kModule, reduce_columns_kernel<From, To>>(grid, op, from, to, g.columns(), g.middle, g.inner, chunk, scale);
}

/// Few long reductions are split, so that the whole card works on them.
int64_t pieces_of(const Grouped& g) {
  constexpr int64_t kLong = 8192, kBusy = 256;
  const int64_t blocks = g.inner == 1 ? g.outer : (g.columns() + 255) / 256;
  return blocks >= kBusy || g.middle < 2 * kLong ? 1 : std::min<int64_t>((g.middle + kLong - 1) / kLong, kBusy);
}

void reduce_floats(Reduce op, Call& call, const Grouped& g, float scale) {
  Tensor& y = call.output(g.x.dtype(), g.result);
  if (y.elements() == 0) return;
  const int64_t pieces = pieces_of(g), chunk = (g.middle + pieces - 1) / pieces;
  by_float(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    if (pieces == 1) return reduce_step<T, T>(op, g.x.raw(), y.mutable_raw(), g, 1, g.middle, scale);
    Tensor partial = Tensor::empty(DType::f32, {g.outer, pieces, g.inner});
    reduce_step<T, float>(op, g.x.raw(), partial.mutable_raw(), g, pieces, chunk, 1.f);
    const Grouped rest{partial, g.outer, pieces, g.inner, {}};
    reduce_step<float, T>(op, partial.raw(), y.mutable_raw(), rest, 1, pieces, scale);
  });
}

void reduce_integers(Reduce op, Call& call, const Grouped& g) {
  const Tensor x = as_type(g.x, DType::i32);
  Tensor& y = call.output(DType::i32, g.result);
  if (y.elements() == 0) return;
  launch<kModule, reduce_integers_kernel>(grid_for(g.columns()), op, x.data<int32_t>(), y.mutable_data<int32_t>(), g.columns(), g.middle, g.inner);
}

template <Reduce op>
void reduce(Call& call) {
  const Grouped grouped = group_axes(call);
  if (is_float(grouped.x.dtype())) {
    reduce_floats(op, call, grouped, 1.f);
  } else {
    reduce_integers(op, call, grouped);
  }
}

void mean(Call& call) {
  Grouped grouped = group_axes(call);
  if (!is_float(grouped.x.dtype())) grouped.x = as_type(grouped.x, DType::f32);
  reduce_floats(Reduce::sum, call, grouped, 1.f / static_cast<float>(grouped.middle));
}

template <bool all>
void reduce_logic(Call& call) {
  const Grouped g = group_axes(call);
  const Tensor x = as_type(g.x, DType::boolean);
  Tensor& y = call.output(DType::boolean, g.result);
  if (y.elements() == 0) return;
  launch<kModule, reduce_logic_kernel>(grid_for(g.columns()), all, x.data<uint8_t>(), y.mutable_data<uint8_t>(), g.columns(), g.middle, g.inner);
}

template <bool largest>
void arg(Call& call) {
  const Grouped g = group_axes(call);
  require(g.middle > 0, "needs at least one number to choose from");
  const Tensor x = as_type(g.x, DType::f32);
  Tensor& y = call.output(DType::i32, g.result);
  if (y.elements() == 0) return;
  const Grid grid{dim3(static_cast<unsigned>(g.columns())), dim3(32)};
  launch<kModule, arg_kernel>(grid, largest, x.data<float>(), y.mutable_data<int32_t>(), g.middle, g.inner);
}

template <class T>
Tensor cumulate_as(const Tensor& x, const Attributes& attributes, bool product) {
  const int64_t axis = attributes.integer("axis");
  require(axis >= 0 && axis < x.shape.rank, "axis ", axis, " is not a dimension of ", x.shape);
  const int64_t n = x.shape[axis], inner = x.shape.product(axis + 1, x.shape.rank), columns = x.shape.product(0, axis) * inner;
  Tensor y = Tensor::empty(x.dtype(), x.shape);
  if (y.elements() == 0) return y;
  launch<kModule, cumulate_kernel<T>>(grid_for(columns), product, attributes.flag("exclusive"), attributes.flag("reverse"), x.data<T>(),
                                      y.mutable_data<T>(), columns, n, inner);
  return y;
}

template <bool product>
void cumulate(Call& call) {
  const Tensor& x = call.input(0);
  if (is_float(x.dtype())) {
    call.outputs.push_back(as_type(cumulate_as<float>(as_type(x, DType::f32), call.attributes, product), x.dtype()));
  } else {
    call.outputs.push_back(cumulate_as<int32_t>(as_type(x, DType::i32), call.attributes, product));
  }
}

}  // namespace

void register_reduction(Registry& registry) {
  registry.add("Sum", reduce<Reduce::sum>);
  registry.add("Prod", reduce<Reduce::prod>);
  registry.add("Max", reduce<Reduce::max>);
  registry.add("Min", reduce<Reduce::min>);
  registry.add("Mean", mean);
  registry.add("All", reduce_logic<true>);
  registry.add("Any", reduce_logic<false>);
  registry.add("ArgMax", arg<true>);
  registry.add("ArgMin", arg<false>);
  registry.add("Cumsum", cumulate<false>);
  registry.add("Cumprod", cumulate<true>);
}

}  // namespace td::cuda

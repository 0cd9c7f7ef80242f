#include <cmath>
#include <cstring>

#include "core/kernel.h"
#include "cpu/convert.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/simd/loops.h"
#include "cpu/strided.h"

namespace td {
namespace {

using simd::Reduce;

/// An input brought to [outer, middle, inner] with the reduced axes in the middle.
struct Grouped {
  Tensor x;
  int64_t outer, middle, inner;
  Shape result;
};

Grouped group_axes(Call& call, const char* name) {
  const Tensor& x = call.input(0);
  std::vector<int64_t> axes;
  if (call.attributes.has(name)) axes = call.attributes.integers(name);
  const int rank = x.shape.rank;
  bool reduced[kMaxRank] = {};
  for (int64_t axis : axes) {
    require(axis >= 0 && axis < std::max(rank, 1), "axis ", axis, " is not a dimension of ", x.shape);
    reduced[axis] = true;
  }
  Grouped grouped{x, 1, 1, 1, {}};
  int first = -1, last = -1, count = 0;
  for (int i = 0; i < rank; ++i) {
    if (reduced[i]) {
      first = first < 0 ? i : first;
      last = i;
      ++count;
      grouped.middle *= x.shape.dims[i];
    } else {
      grouped.result.push(x.shape.dims[i]);
    }
  }
  if (count == 0) {
    grouped.outer = x.elements();
    return grouped;
  }
  if (last - first + 1 == count) {
    grouped.outer = x.shape.product(0, first);
    grouped.inner = x.shape.product(last + 1, rank);
    return grouped;
  }
  int64_t strides[kMaxRank], from[kMaxRank], to[kMaxRank];
  contiguous_strides(x.shape, strides);
  Shape moved;
  for (int pass = 0; pass < 2; ++pass) {
    for (int i = 0; i < rank; ++i) {
      if (reduced[i] != (pass == 1)) continue;
      from[moved.rank] = strides[i];
      moved.push(x.shape.dims[i]);
    }
  }
  contiguous_strides(moved, to);
  grouped.x = Tensor::empty(x.dtype(), moved);
  strided_copy(size_of(x.dtype()), moved, x.raw(), from, grouped.x.mutable_raw(), to);
  grouped.outer = grouped.result.elements();
  return grouped;
}

float start_of(Reduce op) {
  return op == Reduce::sum ? 0.0f : op == Reduce::prod ? 1.0f : op == Reduce::max ? -INFINITY : INFINITY;
}

template <Reduce op>
void reduce_floats(Call& call, const Grouped& grouped, float scale) {
  const simd::Loops& loops = simd::loops();
  const DType type = grouped.x.dtype();
  const size_t size = size_of(type);
  Tensor& y = call.output(type, grouped.result);
  const char* in = grouped.x.data<char>();
  char* out = y.mutable_data<char>();
  const int64_t middle = grouped.middle, inner = grouped.inner;
  if (inner == 1) {
    const int64_t grain = std::max<int64_t>(1, kSerial / std::max<int64_t>(1, middle));
    parallel_for(grouped.outer, grain, [&](int64_t begin, int64_t end) {
      constexpr int64_t kTile = 4096;
      float tile[kTile];
      for (int64_t row = begin; row < end; ++row) {
        float value;
        const char* from = in + row * middle * size;
        if (type == DType::f32) {
          value = loops.reduce_row(op, reinterpret_cast<const float*>(from), middle);
        } else {
          value = start_of(op);
          for (int64_t at = 0; at < middle; at += kTile) {
            const int64_t count = std::min(kTile, middle - at);
            loops.to_f32(type, from + at * size, tile, count);
            const float part = loops.reduce_row(op, tile, count);
            loops.reduce_into(op, &part, &value, 1);
          }
        }
        value *= scale;
        loops.from_f32(type, &value, out + row * size, 1);
      }
    });
    return;
  }
  constexpr int64_t kColumns = 512;
  const int64_t blocks = (inner + kColumns - 1) / kColumns;
  if (y.elements() == 0) return;
  const int64_t grain = std::max<int64_t>(1, kSerial / (std::min(inner, kColumns) * std::max<int64_t>(1, middle)));
  parallel_for(grouped.outer * blocks, grain, [&](int64_t begin, int64_t end) {
    float total[kColumns], part[kColumns], tile[kColumns];
    for (int64_t item = begin; item < end; ++item) {
      const int64_t row = item / blocks, column = item % blocks * kColumns;
      const int64_t count = std::min(kColumns, inner - column);
      std::fill(total, total + count, start_of(op));
      // Partial results of some rows each keep the rounding error of long sums small.
      for (int64_t first = 0; first < middle; first += 256) {
        std::fill(part, part + count, start_of(op));
        for (int64_t k = first; k < std::min(first + 256, middle); ++k) {
          const char* from = in + ((row * middle + k) * inner + column) * size;
          const float* values = reinterpret_cast<const float*>(from);
          if (type != DType::f32) {
            loops.to_f32(type, from, tile, count);
            values = tile;
          }
          loops.reduce_into(op, values, part, count);
        }
        loops.reduce_into(op, part, total, count);
      }
      for (int64_t i = 0; i < count; ++i) total[i] *= scale;
      loops.from_f32(type, total, out + (row * inner + column) * size, count);
    }
  });
}

template <Reduce op>
void reduce_integers(Call& call, const Grouped& grouped) {
  const Tensor x = as_type(grouped.x, DType::i32);
  int32_t* out = call.output(DType::i32, grouped.result).mutable_data<int32_t>();
  const int32_t* in = x.data<int32_t>();
  for (int64_t row = 0; row < grouped.outer; ++row) {
    for (int64_t column = 0; column < grouped.inner; ++column) {
      int64_t value = op == Reduce::sum ? 0 : op == Reduce::prod ? 1 : op == Reduce::max ? INT32_MIN : INT32_MAX;
      for (int64_t k = 0; k < grouped.middle; ++k) {
        const int64_t v = in[(row * grouped.middle + k) * grouped.inner + column];
        if (op == Reduce::sum) value += v;
        if (op == Reduce::prod) value = static_cast<int32_t>(static_cast<uint64_t>(value) * static_cast<uint64_t>(v));
        if (op == Reduce::max) value = std::max(value, v);
        if (op == Reduce::min) value = std::min(value, v);
      }
      out[row * grouped.inner + column] = static_cast<int32_t>(value);
    }
  }
}

template <Reduce op>
void reduce_kernel(Call& call) {
  const Grouped grouped = group_axes(call, "axis");
  if (is_float(grouped.x.dtype()))
    reduce_floats<op>(call, grouped, 1.0f);
  else
    reduce_integers<op>(call, grouped);
}

void mean(Call& call) {
  Grouped grouped = group_axes(call, "axis");
  if (!is_float(grouped.x.dtype())) grouped.x = as_type(grouped.x, DType::f32);
  reduce_floats<Reduce::sum>(call, grouped, 1.0f / static_cast<float>(grouped.middle));
}

template <bool all>
void reduce_logic(Call& call) {
  const Grouped grouped = group_axes(call, "axis");
  const Tensor x = as_type(grouped.x, DType::boolean);
  uint8_t* out = call.output(DType::boolean, grouped.result).mutable_data<uint8_t>();
  const uint8_t* in = x.data<uint8_t>();
  for (int64_t row = 0; row < grouped.outer; ++row) {
    for (int64_t column = 0; column < grouped.inner; ++column) {
      bool value = all;
      for (int64_t k = 0; k < grouped.middle; ++k) {
        const bool v = in[(row * grouped.middle + k) * grouped.inner + column];
        value = all ? value && v : value || v;
      }
      out[row * grouped.inner + column] = value;
    }
  }
}

template <bool largest>
void arg_kernel(Call& call) {
  const Grouped grouped = group_axes(call, "axis");
  require(grouped.middle > 0, "needs at least one number to choose from");
  const Tensor x = as_type(grouped.x, DType::f32);
  int32_t* out = call.output(DType::i32, grouped.result).mutable_data<int32_t>();
  const float* in = x.data<float>();
  for (int64_t row = 0; row < grouped.outer; ++row) {
    for (int64_t column = 0; column < grouped.inner; ++column) {
      const float* values = in + row * grouped.middle * grouped.inner + column;
      int64_t best = 0;
      for (int64_t k = 1; k < grouped.middle; ++k) {
        const float v = values[k * grouped.inner], b = values[best * grouped.inner];
        if (largest ? v > b : v < b) best = k;
      }
      out[row * grouped.inner + column] = static_cast<int32_t>(best);
    }
  }
}

template <bool log>
void softmax(Call& call) {
  const Tensor x = is_float(call.input(0).dtype()) ? call.input(0) : as_type(call.input(0), DType::f32);
  const simd::Loops& loops = simd::loops();
  require(x.shape.rank > 0, "expects at least one dimension");
  const int64_t n = x.shape[-1], rows = n ? x.elements() / n : 0;
  const DType type = x.dtype();
  Tensor& y = call.output(type, x.shape);
  const char* in = x.data<char>();
  char* out = y.mutable_data<char>();
  const int threads = omp_get_max_threads();
  Buffer scratch(type == DType::f32 ? 64 : static_cast<size_t>(threads) * n * sizeof(float));
  parallel_for(rows, std::max<int64_t>(1, kSerial / 2 / std::max<int64_t>(1, n)), [&](int64_t begin, int64_t end) {
    float* tile = static_cast<float*>(scratch.data()) + (type == DType::f32 ? 0 : omp_get_thread_num() * n);
    for (int64_t row = begin; row < end; ++row) {
      if (type == DType::f32) {
        loops.softmax_row(reinterpret_cast<const float*>(in) + row * n, reinterpret_cast<float*>(out) + row * n, n, log);
      } else {
        loops.to_f32(type, in + row * n * size_of(type), tile, n);
        loops.softmax_row(tile, tile, n, log);
        loops.from_f32(type, tile, out + row * n * size_of(type), n);
      }
    }
  });
}

template <bool product>
void cumulate(Call& call) {
  const bool integers = !is_float(call.input(0).dtype());
  const Tensor x = as_type(call.input(0), integers ? DType::i32 : DType::f32);
  const int64_t axis = call.attributes.integer("axis");
  require(axis >= 0 && axis < x.shape.rank, "axis ", axis, " is not a dimension of ", x.shape);
  const bool exclusive = call.attributes.flag("exclusive"), backwards = call.attributes.flag("reverse");
  const int64_t n = x.shape[axis], inner = x.shape.product(axis + 1, x.shape.rank);
  Tensor y = Tensor::empty(x.dtype(), x.shape);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const T* in = x.data<T>();
    T* out = y.mutable_data<T>();
    for (int64_t row = 0; row < x.shape.product(0, axis); ++row) {
      for (int64_t column = 0; column < inner; ++column) {
        double total = product ? 1 : 0;
        for (int64_t i = 0; i < n; ++i) {
          const int64_t at = (row * n + (backwards ? n - 1 - i : i)) * inner + column;
          const double before = total;
          total = product ? total * in[at] : total + in[at];
          if (integers) total = static_cast<int32_t>(static_cast<int64_t>(total));
          out[at] = static_cast<T>(exclusive ? before : total);
        }
      }
    }
  };
  if (integers)
    run(int32_t{});
  else
    run(float{});
  call.outputs.push_back(integers ? y : as_type(y, call.input(0).dtype()));
}

}  // namespace

void register_reduction(Registry& registry) {
  registry.add("Sum", reduce_kernel<Reduce::sum>);
  registry.add("Prod", reduce_kernel<Reduce::prod>);
  registry.add("Max", reduce_kernel<Reduce::max>);
  registry.add("Min", reduce_kernel<Reduce::min>);
  registry.add("Mean", mean);
  registry.add("All", reduce_logic<true>);
  registry.add("Any", reduce_logic<false>);
  registry.add("ArgMax", arg_kernel<true>);
  registry.add("ArgMin", arg_kernel<false>);
  registry.add("Softmax", softmax<false>);
  registry.add("LogSoftmax", softmax<true>);
  registry.add("Cumsum", cumulate<false>);
  registry.add("Cumprod", cumulate<true>);
}

}  // namespace td

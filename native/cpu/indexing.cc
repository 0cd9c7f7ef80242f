#include <cstring>
#include <numeric>

#include "core/kernel.h"
#include "cpu/convert.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace td {
namespace {

/// x [batch, outer, axis, inner] by indices [batch, n] gives [batch, outer, n, inner]; the caller knows the final shape.
void gather(Call& call) {
  const Tensor &x = call.input(0), indices = as_type(call.input(1), DType::i32);
  require(x.shape.rank == 4 && indices.shape.rank == 2 && x.shape[0] == indices.shape[0],
          "expects x [batch, outer, axis, inner] and indices [batch, n]");
  const int64_t outer = x.shape[1], axis = x.shape[2], inner = x.shape[3], n = indices.shape[1];
  const int32_t* index = indices.data<int32_t>();
  for (int64_t i = 0; i < indices.elements(); ++i)
    require(index[i] >= 0 && index[i] < axis, "GatherV2: the index value ", index[i], " is not in [0, ", axis - 1, "]");
  Tensor& y = call.output(x.dtype(), {x.shape[0], outer, n, inner});
  const size_t bytes = inner * size_of(x.dtype());
  const char* in = x.data<char>();
  char* out = y.mutable_data<char>();
  parallel_for(x.shape[0] * outer * n, std::max<int64_t>(1, kSerial / std::max<int64_t>(1, inner)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) {
                   const int64_t row = i / n, at = index[row / outer * n + i % n];
                   std::memcpy(out + i * bytes, in + (row * axis + at) * bytes, bytes);
                 }
               });
}

void one_hot(Call& call) {
  const Tensor indices = as_type(call.input(0), DType::i32);
  const int64_t depth = call.attributes.integer("depth");
  const std::string name = call.attributes.text("dtype", "int32");
  const DType type = name == "float32" ? DType::f32 : name == "bool" ? DType::boolean : DType::i32;
  require(depth >= 0, "depth must not be negative");
  Shape shape = indices.shape;
  shape.push(depth);
  Tensor hot = Tensor::empty(DType::f32, shape);
  const float on = static_cast<float>(call.attributes.number("onValue", 1));
  const float off = static_cast<float>(call.attributes.number("offValue", 0));
  float* out = hot.mutable_data<float>();
  std::fill(out, out + hot.elements(), off);
  for (int64_t i = 0; i < indices.elements(); ++i) {
    const int32_t at = indices.data<int32_t>()[i];
    if (at >= 0 && at < depth) out[i * depth + at] = on;
  }
  call.outputs.push_back(as_type(hot, type));
}

void top_k(Call& call) {
  const Tensor& input = call.input(0);
  const Tensor x = as_type(input, DType::f32);
  require(x.shape.rank > 0, "expects at least one dimension");
  const int64_t n = x.shape[-1], k = call.attributes.integer("k");
  require(k >= 0 && k <= n, "k must be between 0 and ", n, ", got ", k);
  Shape shape = x.shape;
  shape[-1] = k;
  Tensor values = Tensor::empty(DType::f32, shape), places = Tensor::empty(DType::i32, shape);
  std::vector<int32_t> order(n);
  for (int64_t row = 0; row < (n ? x.elements() / n : 0); ++row) {
    const float* in = x.data<float>() + row * n;
    std::iota(order.begin(), order.end(), 0);
    const auto before = [in](int32_t a, int32_t b) {
      const bool a_nan = in[a] != in[a], b_nan = in[b] != in[b];
      if (a_nan || b_nan) return a_nan == b_nan ? a < b : b_nan;
      return in[a] > in[b] || (in[a] == in[b] && a < b);
    };
    std::partial_sort(order.begin(), order.begin() + k, order.end(), before);
    for (int64_t i = 0; i < k; ++i) {
      values.mutable_data<float>()[row * k + i] = in[order[i]];
      places.mutable_data<int32_t>()[row * k + i] = order[i];
    }
  }
  call.outputs.push_back(as_type(values, input.dtype()));
  call.outputs.push_back(places);
}

/// Adds the rows of x [n, inner] to zeros [segments, inner] by segment number; numbers outside are left out.
void unsorted_segment_sum(Call& call) {
  const Tensor& input = call.input(0);
  const Tensor ids = as_type(call.input(1), DType::i32);
  const int64_t segments = call.attributes.integer("numSegments");
  require(input.shape.rank == 2 && ids.elements() == input.shape[0], "expects x [n, inner] and n segment ids");
  const bool integers = !is_float(input.dtype());
  const Tensor x = as_type(input, integers ? DType::i32 : DType::f32);
  const int64_t inner = x.shape[1];
  Tensor y = Tensor::empty(x.dtype(), {segments, inner});
  std::memset(y.mutable_raw(), 0, y.bytes());
  for (int64_t i = 0; i < ids.elements(); ++i) {
    const int32_t id = ids.data<int32_t>()[i];
    if (id < 0 || id >= segments) continue;
    for (int64_t j = 0; j < inner; ++j) {
      if (integers)
        y.mutable_data<int32_t>()[id * inner + j] += x.data<int32_t>()[i * inner + j];
      else
        y.mutable_data<float>()[id * inner + j] += x.data<float>()[i * inner + j];
    }
  }
  call.outputs.push_back(integers ? y : as_type(y, input.dtype()));
}

}  // namespace

void register_indexing(Registry& registry) {
  registry.add("GatherV2", gather);
  registry.add("OneHot", one_hot);
  registry.add("TopK", top_k);
  registry.add("UnsortedSegmentSum", unsorted_segment_sum);
}

}  // namespace td

#include "cuda/kernels/indexing.cuh"

#include "cuda/dispatch.h"
#include "cuda/kernels.h"

namespace td::cuda {
namespace {

constexpr KernelModule kModule{"indexing.cuh"};

void one_hot(Call& call) {
  const Tensor indices = as_type(call.input(0), DType::i32);
  const int64_t depth = call.attributes.integer("depth");
  const std::string name = call.attributes.text("dtype", "int32");
  const DType type = name == "float32" ? DType::f32 : name == "bool" ? DType::boolean : DType::i32;
  require(depth >= 0, "depth must not be negative");
  Shape shape = indices.shape;
  shape.push(depth);
  Tensor hot = Tensor::empty(DType::f32, shape);
  const float on = static_cast<float>(call.attributes.number("onValue", 1)), off = static_cast<float>(call.attributes.number("offValue", 0));
  if (hot.elements()) {
    launch<kModule, one_hot_kernel>(grid_for(hot.elements()), indices.data<int32_t>(), hot.mutable_data<float>(), hot.elements(), depth, on, off);
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
  if (values.elements()) {
    const Grid grid{dim3(static_cast<unsigned>(x.elements() / n)), dim3(32)};
    launch<kModule, top_k_kernel>(grid, x.data<float>(), values.mutable_data<float>(), places.mutable_data<int32_t>(), n, k);
  }
  call.outputs.push_back(as_type(values, input.dtype()));
  call.outputs.push_back(places);
}

template <class T>
Tensor segment_sum(const Tensor& x, const Tensor& ids, int64_t segments) {
  Tensor y = Tensor::empty(x.dtype(), {segments, x.shape[1]});
  fill(y, 0);
  if (y.elements() == 0) return y;
  launch<kModule, segment_sum_kernel<T>>(grid_for(x.shape[1]), x.data<T>(), ids.data<int32_t>(), y.mutable_data<T>(), x.shape[0], segments, x.shape[1]);
  return y;
}

/// Adds the rows of x [n, inner] to zeros [segments, inner] by segment number; numbers outside are left out.
void unsorted_segment_sum(Call& call) {
  const Tensor& x = call.input(0);
  const Tensor ids = as_type(call.input(1), DType::i32);
  const int64_t segments = call.attributes.integer("numSegments");
  require(x.shape.rank == 2 && ids.elements() == x.shape[0], "expects x [n, inner] and n segment ids");
  if (is_float(x.dtype())) {
    call.outputs.push_back(as_type(segment_sum<float>(as_type(x, DType::f32), ids, segments), x.dtype()));
  } else {
    call.outputs.push_back(segment_sum<int32_t>(as_type(x, DType::i32), ids, segments));
  }
}

}  // namespace

void register_indexing(Registry& registry) {
  registry.add("OneHot", one_hot);
  registry.add("TopK", top_k);
  registry.add("UnsortedSegmentSum", unsorted_segment_sum);
}

}  // namespace td::cuda

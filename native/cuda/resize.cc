#include "cuda/kernels/resize.cuh"

#include "cuda/dispatch.h"
#include "cuda/kernels.h"

namespace td::cuda {
namespace {

constexpr KernelModule kModule{"resize.cuh"};

ResizeAxis axis_of(int64_t in, int64_t out, const Attributes& attributes) {
  const bool align = attributes.flag("alignCorners");
  const float scale = align && out > 1 ? static_cast<float>(in - 1) / static_cast<float>(out - 1) : static_cast<float>(in) / static_cast<float>(out);
  return {in, out, scale, align, attributes.flag("halfPixelCenters")};
}

/// The shape of the result of a resize of images [batch, height, width, channels].
Shape result_of(const Call& call) {
  const Shape& x = call.input(0).shape;
  require(x.rank == 4, "expects images [batch, height, width, channels]");
  const std::vector<int64_t> size = call.attributes.integers("size");
  require(size.size() == 2 && size[0] > 0 && size[1] > 0, "size must be [height, width]");
  const Shape result{x[0], size[0], size[1], x[3]};
  require(x.elements() > 0 || result.elements() == 0, "cannot enlarge an empty image");
  return result;
}

void resize_nearest(Call& call) {
  const Tensor& x = call.input(0);
  const Shape shape = result_of(call);
  Tensor& y = call.output(x.dtype(), shape);
  if (y.elements() == 0) return;
  const ResizeAxis height = axis_of(x.shape[1], shape[1], call.attributes), width = axis_of(x.shape[2], shape[2], call.attributes);
  by_size(x.dtype(), [&](auto bits) {
    using B = decltype(bits);
    launch<kModule, resize_nearest_kernel<B>>(grid_for(y.elements()), x.data<B>(), y.mutable_data<B>(), y.elements(), height, width, shape[3]);
  });
}

/// inputs images, dy
void resize_nearest_gradient(Call& call) {
  const Tensor &images = call.input(0), dy = as_type(call.input(1), DType::f32);
  require(images.shape.rank == 4 && dy.shape.rank == 4, "expects images and dy of rank 4");
  require(dy.shape[0] == images.shape[0] && dy.shape[3] == images.shape[3], "dy ", dy.shape, " differs from images ", images.shape,
          " in batch or channels");
  require(images.elements() > 0 || dy.elements() == 0, "cannot enlarge an empty image");
  Tensor dx = Tensor::empty(DType::f32, images.shape);
  if (dy.elements() == 0) {
    fill(dx, 0);
  } else {
    const ResizeAxis height = axis_of(images.shape[1], dy.shape[1], call.attributes), width = axis_of(images.shape[2], dy.shape[2], call.attributes);
    launch<kModule, resize_nearest_gradient_kernel>(grid_for(dx.elements()), dy.data<float>(), dx.mutable_data<float>(), dx.elements(), height, width,
                                                    images.shape[3]);
  }
  call.outputs.push_back(as_type(dx, call.input(1).dtype()));
}

void resize_bilinear(Call& call) {
  const Tensor& input = call.input(0);
  const Tensor x = as_type(input, DType::f32);
  const Shape shape = result_of(call);
  Tensor y = Tensor::empty(DType::f32, shape);
  if (y.elements()) {
    const ResizeAxis height = axis_of(x.shape[1], shape[1], call.attributes), width = axis_of(x.shape[2], shape[2], call.attributes);
    launch<kModule, resize_bilinear_kernel>(grid_for(y.elements()), x.data<float>(), y.mutable_data<float>(), y.elements(), height, width, shape[3]);
  }
  call.outputs.push_back(is_float(input.dtype()) ? as_type(y, input.dtype()) : y);
}

}  // namespace

void register_resize(Registry& registry) {
  registry.add("ResizeNearestNeighbor", resize_nearest);
  registry.add("ResizeNearestNeighborGrad", resize_nearest_gradient);
  registry.add("ResizeBilinear", resize_bilinear);
}

}  // namespace td::cuda

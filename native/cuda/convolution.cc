#include "cuda/kernels/convolution.cuh"

#include "cuda/kernels.h"
#include "cuda/product_launch.h"

namespace td::cuda {
namespace {

constexpr KernelModule kModule{"convolution.cuh"};

template <template <class> class Problem, class T>
struct Grouped {
  template <int>
  using Of = Problem<T>;
};

int64_t length(int64_t n, int64_t filter, int64_t stride, int64_t dilation, int64_t pad) {
  const int64_t room = n + pad - ((filter - 1) * dilation + 1);
  return room < 0 ? 0 : room / stride + 1;
}

/// Sizes of a convolution over N,H,W,C with H,W,I,O filters.
struct Geometry {
  ConvolutionShape s{};
  Shape output;
  int64_t bottom, right;

  Geometry(const Shape& x, const Shape& filter, const Attributes& attributes, int64_t factor = 1) {
    require(x.rank == 4, "expects x [batch, height, width, channels], got rank ", x.rank);
    require(filter.rank == 4, "expects a filter [height, width, in, out], got rank ", filter.rank);
    require(x[3] == filter[2], "filter expects ", filter[2], " input channels, got ", x[3]);
    const auto strides = attributes.integers("strides"), pad = attributes.integers("pad");
    std::vector<int64_t> dilations{1, 1};
    if (attributes.has("dilations")) dilations = attributes.integers("dilations");
    require(strides.size() == 2 && strides[0] > 0 && strides[1] > 0, "strides must be two positive numbers");
    require(dilations.size() == 2 && dilations[0] > 0 && dilations[1] > 0, "dilations must be two positive numbers");
    require(pad.size() == 4, "pad must be [[top, bottom], [left, right]]");
    for (int64_t p : pad) require(p >= 0 && p < (1 << 24), "pad must not be negative, got ", p);
    require(filter[0] > 0 && filter[1] > 0, "needs a filter of at least one pixel");
    bottom = pad[1], right = pad[3];
    output = {x[0], length(factor * x[1], filter[0], strides[0], dilations[0], pad[0] + pad[1]),
              length(factor * x[2], filter[1], strides[1], dilations[1], pad[2] + pad[3]), filter[3]};
    for (int64_t n : {factor * x[1], factor * x[2], x[3], filter[3], strides[0], strides[1], (filter[0] - 1) * dilations[0], (filter[1] - 1) * dilations[1]})
      require(n < (1 << 26), "a size of ", n, " is too large");
    require(output.product(0, 3) < INT32_MAX && x.product(0, 3) < INT32_MAX / (factor * factor), "images of ", x, " have too many pixels");
    const auto i = [](int64_t n) { return static_cast<int>(n); };
    s = {i(x[0]), i(factor * x[1]), i(factor * x[2]), i(x[3]), i(output[1]), i(output[2]), i(filter[3]), i(filter[0]), i(filter[1]),
         i(strides[0]), i(strides[1]), i(dilations[0]), i(dilations[1]), i(pad[0]), i(pad[2]), factor == 2};
  }
  /// Stride 1 and no dilation, this many pixels on every side.
  bool plain(int filter, int pad) const {
    return s.filter_height == filter && s.filter_width == filter && s.stride_h == 1 && s.stride_w == 1 && s.dilation_h == 1 && s.dilation_w == 1 &&
           s.top == pad && s.left == pad && bottom == pad && right == pad;
  }
};

/// Steps along k that begin anew for each of `outer`.
int64_t steps_of(int64_t outer, int64_t depth, DType type) { return outer * blocks_for(depth, type == DType::f32 ? 16 : 32); }

/// The four filters of 2 x 2 that a 3 x 3 filter is on an enlarged image, kept with the filter.
struct PhaseFilters : PackedWeights {
  Tensor filters;
  void unpack(void*) const override { fail("the plain numbers of a filter stay beside its phases"); }
};

Tensor phase_filters(const Tensor& filter) {
  Storage& storage = *filter.storage;
  if (const auto kept = std::dynamic_pointer_cast<PhaseFilters>(storage.packed)) return kept->filters;
  const int64_t count = filter.shape[2] * filter.shape[3];
  auto phases = std::make_shared<PhaseFilters>();
  phases->filters = Tensor::empty(filter.dtype(), {4, 2, 2, filter.shape[2], filter.shape[3]}, Purpose::weights);
  by_float(filter.dtype(), [&](auto tag) {
    using T = decltype(tag);
    using Number = typename Stored<T>::type;
    launch<kModule, phase_filters_kernel<T>>(Grid{dim3(blocks_for(count, 256), 16), dim3(256), 0, true}, filter.data<Number>(),
                                             phases->filters.mutable_data<Number>(), count);
  });
  storage.packed = phases;
  return phases->filters;
}

ConvolutionArguments arguments_of(const Geometry& g, const Tensor& image, int64_t image_channels, const Tensor& filter, Tensor& y) {
  ConvolutionArguments p{};
  p.image = image.raw();
  p.filter = filter.raw();
  p.image_aligned = rows_aligned(p.image, image_channels, image.dtype());
  p.filter_aligned = rows_aligned(p.filter, filter.shape[-1], filter.dtype());
  p.shape = g.s;
  Epilogue& e = p.epilogue;
  e.out = y.mutable_raw();
  e.columns = static_cast<int>(y.shape[-1]);
  e.stride = e.columns;
  e.image_rows = 1;
  e.bias.wide = e.embedding.wide = true;
  e.aligned = rows_aligned(e.out, e.stride, y.dtype());
  return p;
}

template <template <class> class Problem>
void launch_convolution(const ConvolutionArguments& p, const ProductSize& size, DType type) {
  by_float(type, [&](auto tag) { launch_product<kModule, decltype(tag), Grouped<Problem, decltype(tag)>::template Of>(p, size, p.image_aligned && p.filter_aligned); });
}

struct Extras {
  Tensor bias, residual, embedding;
  Activation activation;
};

void convolve(const Geometry& g, const Tensor& x, const Tensor& filter, const Extras& extras, Tensor& y) {
  const ConvolutionShape& s = g.s;
  if (g.plain(1, 0) && !s.enlarge) {
    return linear({x, filter, extras.bias, extras.residual, extras.embedding, int64_t(s.height) * s.width, extras.activation}, y);
  }
  const DType type = y.dtype();
  Tensor bias, embedding;
  ConvolutionArguments p = arguments_of(g, x, s.in, filter, y);
  ProductSize size{y.elements() / s.out, s.out, steps_of(s.filter_height * s.filter_width, s.in, type), 1};
  Tensor phases;
  if (s.enlarge && g.plain(3, 1)) {
    phases = phase_filters(filter);
    p.phases = true;
    p.filter = phases.raw();
    p.shape.enlarge = 0;
    p.shape.height = p.shape.out_height = s.height / 2;
    p.shape.width = p.shape.out_width = s.width / 2;
    p.shape.filter_height = p.shape.filter_width = 2;
    size = {size.rows / 4, s.out, steps_of(4, s.in, type), 4};
  }
  p.epilogue.bias = offsets_of(extras.bias, type, &bias);
  p.epilogue.embedding = offsets_of(extras.embedding, type, &embedding);
  p.epilogue.image_rows = p.shape.out_height * p.shape.out_width;
  p.epilogue.activation = extras.activation;
  p.epilogue.residual = extras.residual ? extras.residual.raw() : nullptr;
  launch_convolution<ConvolutionForward>(p, size, type);
}

/// inputs x, filter, bias?, residual?, timeEmbedding?
void fused(Call& call) {
  const Tensor &x = call.input(0), &filter = call.input(1), &bias = call.optional(2), &residual = call.optional(3), &embedding = call.optional(4);
  require(is_float(x.dtype()) && is_float(filter.dtype()), "expects float32 tensors");
  const int64_t factor = call.attributes.integer("upsample", 1);
  require(factor == 1 || factor == 2, "upsample must be 1 or 2, got ", factor);
  const Activation activation = activation_of(call.attributes.text("activation", "linear"));
  const Geometry g(x.shape, filter.shape, call.attributes, factor);
  require(!bias || (is_float(bias.dtype()) && bias.elements() == g.s.out), "bias needs ", g.s.out, " numbers");
  require(!residual || (is_float(residual.dtype()) && residual.shape == g.output), "residual needs the shape of the result, ", g.output);
  require(!embedding || (is_float(embedding.dtype()) && embedding.shape == Shape{g.s.batch, g.s.out}), "timeEmbedding needs shape [", g.s.batch, ",",
          g.s.out, "]");
  const DType type = filter.dtype();
  Tensor y = Tensor::empty(type, g.output);
  if (y.elements() > 0) {
    require(g.s.in > 0, "needs at least one input channel");
    convolve(g, as_type(x, type), filter, {bias, residual ? as_type(residual, type) : residual, embedding, activation}, y);
  }
  call.outputs.push_back(as_type(y, x.dtype()));
}

/// inputs dy, filter; attribute inputShape
void backprop_input(Call& call) {
  const Tensor &given = call.input(0), &given_filter = call.input(1);
  const Shape shape = call.attributes.shape("inputShape");
  const Geometry g(shape, given_filter.shape, call.attributes);
  require(given.shape == g.output, "dy has shape ", given.shape, " where ", g.output, " is expected");
  const DType type = given.dtype() == given_filter.dtype() && is_float(given.dtype()) ? given.dtype() : DType::f32;
  const Tensor dy = as_type(given, type), filter = as_type(given_filter, type);
  Tensor dx = Tensor::empty(type, shape);
  if (dx.elements() == 0 || dy.elements() == 0) {
    fill(dx, 0);
  } else {
    const ConvolutionArguments p = arguments_of(g, dy, g.s.out, filter, dx);
    launch_convolution<ConvolutionInputGradient>(p, {shape.product(0, 3), g.s.in, steps_of(g.s.filter_height * g.s.filter_width, g.s.out, type), 1}, type);
  }
  call.outputs.push_back(as_type(dx, given.dtype()));
}

/// inputs x, dy; attribute filterShape
void backprop_filter(Call& call) {
  const Tensor &given = call.input(0), &given_dy = call.input(1);
  const Shape shape = call.attributes.shape("filterShape");
  const Geometry g(given.shape, shape, call.attributes);
  require(given_dy.shape == g.output, "dy has shape ", given_dy.shape, " where ", g.output, " is expected");
  const DType type = given.dtype() == given_dy.dtype() && is_float(given.dtype()) ? given.dtype() : DType::f32;
  const Tensor x = as_type(given, type), dy = as_type(given_dy, type);
  Tensor dw = Tensor::empty(type, shape);
  if (dw.elements() == 0 || dy.elements() == 0) {
    fill(dw, 0);
  } else {
    const ConvolutionArguments p = arguments_of(g, x, g.s.in, dy, dw);
    const int64_t vector = 16 / size_of(type), rows = shape[0] * shape[1] * blocks_for(shape[2], vector) * vector;
    launch_convolution<ConvolutionFilterGradient>(p, {rows, shape[3], steps_of(1, dy.elements() / shape[3], type), 1}, type);
  }
  call.outputs.push_back(as_type(dw, given.dtype()));
}

}  // namespace

void register_convolution(Registry& registry) {
  registry.add("Conv2dFused", fused);
  registry.add("Conv2D", fused);
  registry.add("Conv2DBackpropInput", backprop_input);
  registry.add("Conv2DBackpropFilter", backprop_filter);
}

}  // namespace td::cuda

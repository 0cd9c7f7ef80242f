#include <cstring>

#include "cpu/convert.h"
#include "cpu/convolution/direct.h"
#include "cpu/kernels.h"
#include "cpu/linear.h"
#include "cpu/strided.h"
#include "cpu/winograd/winograd.h"

namespace td {

using onednn::Activation;

namespace {

/// Inputs of Conv2D and Conv2DFused; those after the filter are optional.
enum Input : size_t { kX, kFilter, kBias, kResidual, kTimeEmbedding };

Tensor upsample(const Tensor& x) {
  Tensor y = Tensor::empty(x.dtype(), {x.shape[0], 2 * x.shape[1], 2 * x.shape[2], x.shape[3]});
  const int64_t h = x.shape[1], w = x.shape[2], c = x.shape[3];
  const Shape dims{x.shape[0] * h, 2, w, 2, c};
  const int64_t from[] = {w * c, 0, c, 0, 1}, to[] = {4 * w * c, 2 * w * c, 2 * c, c, 1};
  strided_copy(size_of(x.dtype()), dims, x.raw(), from, y.mutable_raw(), to);
  return y;
}

/// Row `image` of a tensor with batch dimension, as a tensor of its own that shares no memory.
Tensor slice_batch(const Tensor& x, int64_t image) {
  Shape shape = x.shape;
  shape[0] = 1;
  Tensor part = Tensor::empty(x.dtype(), shape);
  std::memcpy(part.mutable_raw(), x.data<char>() + image * part.bytes(), part.bytes());
  return part;
}

/// y = activation(conv(x, filter) + constants) + residual, checked.
struct Layer {
  Geometry geometry;  // of x and the filter
  Tensor x;           // enlarged already, unless `upsampled`
  const Tensor &filter, &residual;
  Activation activation;
  /// y has twice the height and width of x.
  bool upsampled = false;
  Shape shape = {};  // of y
  /// float32: one number per channel, or per image and channel; may be empty.
  Tensor constants = {};
  bool per_image = false;
};

Layer read_layer(const Call& call) {
  const Tensor &x = call.input(kX), &filter = call.input(kFilter);
  require(is_float(x.dtype()) && is_float(filter.dtype()), "expects float32 tensors");
  const int64_t factor = call.attributes.integer("upsample", 1);
  require(factor == 1 || factor == 2, "upsample must be 1 or 2, got ", factor);
  const Activation activation = activation_of(call.attributes.text("activation", "linear"));
  Layer l{Geometry(x.shape, filter.shape, call.attributes), x, filter, call.optional(kResidual), activation};
  l.upsampled = factor == 2 && l.geometry.three_by_three();
  if (factor == 2 && !l.upsampled) {
    l.x = upsample(x);
    l.geometry = Geometry(l.x.shape, filter.shape, call.attributes);
  }
  const Geometry& g = l.geometry;
  l.shape = l.upsampled ? Shape{g.batch, 2 * g.height, 2 * g.width, g.out} : g.output();
  require(!l.residual || (is_float(l.residual.dtype()) && l.residual.shape == l.shape), "residual needs the shape of the result, ",
          l.shape);
  return l;
}

/// The embedding joins the bias. In one pass over the batch when every image has the same, as in guidance.
void read_constants(const Call& call, Layer& l) {
  const Tensor &bias = call.optional(kBias), &embedding = call.optional(kTimeEmbedding);
  const int64_t batch = l.geometry.batch, out = l.geometry.out;
  require(!bias || (is_float(bias.dtype()) && bias.elements() == out), "bias needs ", out, " numbers");
  require(!embedding || (is_float(embedding.dtype()) && embedding.shape == Shape{batch, out}), "timeEmbedding needs shape [", batch, ",",
          out, "]");
  const Tensor offsets = bias ? as_type(bias, DType::f32) : bias;
  l.constants = offsets;
  if (!embedding) return;
  const Tensor rows = as_type(embedding, DType::f32);
  const float* e = rows.data<float>();
  for (int64_t i = 1; i < batch && !l.per_image; ++i) l.per_image = std::memcmp(e, e + i * out, out * 4) != 0;
  l.constants = Tensor::empty(DType::f32, {batch, out});
  for (int64_t i = 0; i < l.constants.elements(); ++i)
    l.constants.mutable_data<float>()[i] = e[i] + (offsets ? offsets.data<float>()[i % out] : 0.0f);
  if (!l.per_image) l.constants = slice_batch(l.constants, 0);
}

/// False where another way is faster, or a number is not finite; y is undefined then.
bool convolve_winograd(const Layer& l, Tensor& y) {
  const Geometry& g = l.geometry;
  const auto plain = [](DType type) { return type == DType::f32 || type == DType::bf16; };
  if (!g.three_by_three() || !plain(l.x.dtype()) || !plain(l.filter.dtype())) return false;
  if (l.activation != Activation::linear && l.activation != Activation::silu) return false;
  winograd::Problem p{};
  p.batch = g.batch, p.in = g.in, p.out = g.out;
  p.height = y.shape[1], p.width = y.shape[2];
  p.upsampled = l.upsampled;
  p.type = l.x.dtype(), p.weight_type = l.filter.dtype();
  if (!winograd::worthwhile(p)) return false;
  Storage& weights = *l.filter.storage;
  if (!weights.plain) {
    // An image of another size had them packed for a direct convolution.
    weights.plain = weights.plain_buffer(weights.weight ? Purpose::weights : Purpose::work);
    weights.packed.reset();
  }
  const Tensor added = l.residual ? as_type(l.residual, y.dtype()) : l.residual;
  p.x = l.x.raw(), p.weights = l.filter.raw();
  p.offsets = l.constants ? l.constants.data<float>() : nullptr;
  p.offset_stride = l.per_image ? g.out : 0;
  p.silu = l.activation == Activation::silu;
  p.residual = added ? added.raw() : nullptr;
  p.y = y.mutable_raw();
  return winograd::convolve(p);
}

/// One image, or several with the same constants, in the compute type.
void convolve_direct(const Layer& l, const Geometry& g, const Tensor& x, const Tensor& constants, const Tensor& residual, Tensor& y) {
  if (l.upsampled) return convolve_upsampled(g, x, l.filter, constants, l.activation, residual, y);
  convolve(g, x, l.filter, constants, l.activation, residual ? as_type(residual, y.dtype()) : residual, y);
}

/// Image by image.
void convolve_each(const Layer& l, const Tensor& x, Tensor& y) {
  Geometry one = l.geometry;
  one.batch = 1;
  Shape shape = l.shape;
  shape[0] = 1;
  for (int64_t i = 0; i < l.geometry.batch; ++i) {
    Tensor part = Tensor::empty(y.dtype(), shape);
    const Tensor residual = l.residual ? slice_batch(l.residual, i) : l.residual;
    convolve_direct(l, one, slice_batch(x, i), slice_batch(l.constants, i), residual, part);
    std::memcpy(y.mutable_data<char>() + i * part.bytes(), part.raw(), part.bytes());
  }
}

Tensor convolve_onednn(const Layer& l, const Tensor& y) {
  const DType type = compute_type(l.filter.dtype());
  const DType output_type = y.dtype() == DType::bf16 && type == DType::bf16 ? DType::bf16 : DType::f32;
  const Tensor x = as_type(l.x, type);
  Tensor output = output_type == y.dtype() ? y : Tensor::empty(output_type, l.shape);
  if (l.per_image) {
    convolve_each(l, x, output);
  } else {
    convolve_direct(l, l.geometry, x, l.constants, l.residual, output);
  }
  return as_type(output, y.dtype());
}

void forward(Call& call) {
  Layer layer = read_layer(call);
  read_constants(call, layer);
  Tensor y = Tensor::empty(layer.x.dtype(), layer.shape);
  if (y.elements() > 0) {
    require(layer.geometry.in > 0, "needs at least one input channel");
    if (!convolve_winograd(layer, y)) y = convolve_onednn(layer, y);
  }
  call.outputs.push_back(y);
}

}  // namespace

void register_convolution(Registry& registry) {
  registry.add("Conv2dFused", forward);
  registry.add("Conv2D", forward);
}

}  // namespace td

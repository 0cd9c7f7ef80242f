#include <cstring>
#include <utility>

#include "core/kernel.h"
#include "cpu/convert.h"
#include "cpu/kernels.h"
#include "cpu/linear.h"
#include "cpu/packed.h"
#include "cpu/parallel.h"
#include "cpu/strided.h"
#include "cpu/winograd.h"

namespace td {

using namespace onednn;

namespace {

/// Sizes of a convolution over N,H,W,C with HWIO filters.
struct Geometry {
  int64_t batch, height, width, in, kernel_height, kernel_width, out, out_height, out_width;
  int64_t stride_h, stride_w, dilation_h, dilation_w, top, bottom, left, right;

  Geometry(const Shape& x, const Shape& filter, const Attributes& attributes) {
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
    batch = x[0], height = x[1], width = x[2], in = x[3];
    kernel_height = filter[0], kernel_width = filter[1], out = filter[3];
    stride_h = strides[0], stride_w = strides[1], dilation_h = dilations[0], dilation_w = dilations[1];
    top = pad[0], bottom = pad[1], left = pad[2], right = pad[3];
    out_height = length(height, kernel_height, stride_h, dilation_h, top + bottom);
    out_width = length(width, kernel_width, stride_w, dilation_w, left + right);
  }
  static int64_t length(int64_t n, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
    const int64_t room = n + pad - ((kernel - 1) * dilation + 1);
    return room < 0 ? 0 : room / stride + 1;
  }
  /// Stride 1, one pixel of padding on every side.
  bool three_by_three() const {
    return kernel_height == 3 && kernel_width == 3 && top == 1 && bottom == 1 && left == 1 && right == 1 && stride_h == 1 &&
           stride_w == 1 && dilation_h == 1 && dilation_w == 1;
  }
  Shape output() const { return {batch, out_height, out_width, out}; }
  double multiply_adds() const {
    return static_cast<double>(output().elements()) * static_cast<double>(in * kernel_height * kernel_width);
  }
  ConvolutionShape shape() const {
    // oneDNN wants the trailing padding that makes the sizes come out exactly.
    const int64_t end_h = (out_height - 1) * stride_h + (kernel_height - 1) * dilation_h + 1 - height - top;
    const int64_t end_w = (out_width - 1) * stride_w + (kernel_width - 1) * dilation_w + 1 - width - left;
    return {{batch, in, height, width}, {out, in, kernel_height, kernel_width}, {batch, out, out_height, out_width},
            {stride_h, stride_w},       {dilation_h - 1, dilation_w - 1},       {top, left},
            {end_h, end_w}};
  }
  Key& key(Key& k) const {
    for (int64_t v : {batch, height, width, in, kernel_height, kernel_width, out, stride_h, stride_w, dilation_h, dilation_w,
                      top, bottom, left, right})
      k.add(v);
    return k;
  }
};

std::shared_ptr<const Ready> prepare(const Geometry& g, DType type, DType output_type, bool bias, const Epilogue& epilogue,
                                     const Desc* format) {
  Key key("convolution");
  g.key(key).add(static_cast<int>(type)).add(static_cast<int>(output_type)).add(bias).add(epilogue).add(format ? 1 : 0);
  if (format) key.add(static_cast<int64_t>(format->get_size()));
  const ConvolutionShape s = g.shape();
  const auto make = [&] {
    const Desc source = desc(s.source, type, Tag::nhwc), output = desc(s.output, output_type, Tag::nhwc);
    const Desc weights = format ? *format : desc(s.weights, type, Tag::any);
    const Desc bias_desc = desc({g.out}, DType::f32, Tag::a);
    const auto describe = [&](const Epilogue& e) {
      return convolution(s, source, weights, bias ? &bias_desc : nullptr, output, attributes(e, output));
    };
    auto description = describe(epilogue);
    Epilogue done = epilogue;
    // oneDNN 2.6 adds the residual at wrong places where it falls back on matrix products for N,H,W,C.
    if (epilogue.residual && std::strstr(description.impl_info_str(), "gemm")) {
      done.residual = false;
      description = describe(done);
    }
    return Ready(dnnl::convolution_forward(description), source, description.weights_desc(), output, description.scratchpad_desc(),
                 done, bias_desc);
  };
  auto ready = PrimitiveCache::instance().get(key.text(), make);
  if (format && !(ready->weights == *format)) return std::make_shared<const Ready>(make());
  return ready;
}

Tensor add(const Tensor& a, const Tensor& b) {
  Call sum;
  sum.inputs = {a, b};
  const Registry& registry = Registry::instance();
  registry.run(registry.find("Add"), sum);
  return sum.outputs[0];
}

void run(const Ready& ready, const void* x, const void* weights, const Tensor& bias, const void* residual, void* y) {
  Arguments arguments{{DNNL_ARG_SRC, ready.at(Ready::kSource, x)},
                      {DNNL_ARG_WEIGHTS, ready.at(Ready::kWeights, weights)},
                      {DNNL_ARG_DST, ready.at(Ready::kOutput, y)}};
  if (bias) arguments.emplace(DNNL_ARG_BIAS, ready.at(Ready::kBias, bias.raw()));
  if (ready.epilogue.residual) arguments.emplace(ready.epilogue.residual_argument(), ready.at(Ready::kResidual, residual));
  execute(ready.primitive, ready.scratch, std::move(arguments));
}

/// y = activation(conv(x, filter) + bias) + residual, which may be empty. All in the compute type.
void convolve(const Geometry& g, const Tensor& x, const Tensor& filter, const Tensor& bias, Activation activation,
              const Tensor& residual, Tensor& y) {
  const Epilogue epilogue{activation, static_cast<bool>(residual)};
  const ThreadsFor threads(g.multiply_adds());
  const DType type = x.dtype();
  const Dims dims{g.out, g.in, g.kernel_height, g.kernel_width};
  // Weights packed before decide the format; a primitive of another shape mostly likes the same one.
  const auto ready = prepare(g, type, y.dtype(), static_cast<bool>(bias), epilogue, packed_format(filter, 'c', dims));
  const auto packed = pack(filter, 'c', type, dims, Tag::hwio, ready->weights);
  run(*ready, x.raw(), packed->numbers(0)->data(), bias, residual ? residual.raw() : nullptr, y.mutable_raw());
  if (residual && !ready->epilogue.residual) y = add(y, residual);
}

/// Nearest-2x upsampling and a 3x3 convolution with padding 1 as four 2x2 convolutions of the small image: output row
/// 2i + p sees rows i - 1 + p and i + p only, the middle tap of the filter falling on one of them.
void convolve_upsampled(const Geometry& g, const Tensor& x, const Tensor& filter, const Tensor& bias, Activation activation,
                        const Tensor& residual, Tensor& y) {
  const ThreadsFor threads(g.multiply_adds());
  const DType type = x.dtype();
  const int64_t block = g.in * g.out;
  const Epilogue epilogue{activation, false};
  std::vector<std::shared_ptr<const Ready>> ready;
  std::vector<Geometry> phases;
  for (int phase = 0; phase < 4; ++phase) {
    const int64_t p = phase / 2, q = phase % 2;
    Geometry small = g;
    small.kernel_height = small.kernel_width = 2;
    small.top = 1 - p, small.bottom = p, small.left = 1 - q, small.right = q;
    small.out_height = g.height;
    small.out_width = g.width;
    phases.push_back(small);
    ready.push_back(prepare(small, type, y.dtype(), static_cast<bool>(bias), epilogue, nullptr));
  }
  auto packed = packed_as<Packed>(filter.storage->packed);
  bool fits = packed && packed->kind == 'u' && packed->parts.size() == 4;
  for (int i = 0; fits && i < 4; ++i) fits = packed->parts[i].packed == ready[i]->weights;
  if (!fits) {
    packed = std::make_shared<Packed>();
    packed->kind = 'u';
    packed->stored = filter.dtype();
    packed->computed = type;
    const Tensor taps = as_type(filter, DType::f32);
    const float* w = taps.data<float>();
    // First and last filter row that falls on image row 0 and 1 of each phase.
    constexpr int kFirst[2][2] = {{0, 1}, {0, 2}}, kLast[2][2] = {{0, 2}, {1, 2}};
    for (int phase = 0; phase < 4; ++phase) {
      const int p = phase / 2, q = phase % 2;
      Tensor sums = Tensor::empty(DType::f32, {2, 2, g.in, g.out});
      fill_zero(sums);
      for (int a = 0; a < 2; ++a) {
        for (int b = 0; b < 2; ++b) {
          float* to = sums.mutable_data<float>() + (a * 2 + b) * block;
          for (int i = kFirst[p][a]; i <= kLast[p][a]; ++i)
            for (int j = kFirst[q][b]; j <= kLast[q][b]; ++j)
              for (int64_t e = 0; e < block; ++e) to[e] += w[(i * 3 + j) * block + e];
        }
      }
      const Tensor rounded = as_type(sums, type);
      pack_part(*packed, {g.out, g.in, 2, 2}, Tag::hwio, rounded.raw(), ready[phase]->weights, Purpose::weights);
    }
    // The sums do not give the nine taps back exactly: the plain copy stays.
    filter.storage->plain = filter.storage->plain_buffer();
    filter.storage->packed = packed;
  }
  const size_t size = size_of(y.dtype());
  Tensor part = Tensor::empty(y.dtype(), {g.batch, g.height, g.width, g.out});
  const Shape dims{g.batch, g.height, g.width, g.out};
  int64_t from[4];
  contiguous_strides(dims, from);
  const int64_t row = 2 * g.width * g.out;
  const int64_t to[4] = {2 * g.height * row, 2 * row, 2 * g.out, 1};
  for (int phase = 0; phase < 4; ++phase) {
    run(*ready[phase], x.raw(), packed->numbers(phase)->data(), bias, nullptr, part.mutable_raw());
    strided_copy(size, dims, part.raw(), from, y.mutable_data<char>() + (phase / 2 * row + phase % 2 * g.out) * size, to);
  }
  if (residual) y = add(y, residual);
}

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

/// The same as convolve() and convolve_upsampled() where that is faster and every number is finite; else false.
bool convolve_winograd(const Geometry& g, bool upsampled, const Tensor& x, const Tensor& filter, const Tensor& offsets, bool per_image,
                       Activation activation, const Tensor& residual, Tensor& y) {
  const auto plain = [](DType type) { return type == DType::f32 || type == DType::bf16; };
  if (!plain(x.dtype()) || !plain(filter.dtype())) return false;
  if (activation != Activation::linear && activation != Activation::silu) return false;
  winograd::Problem p{};
  p.batch = g.batch, p.in = g.in, p.out = g.out;
  p.height = y.shape[1], p.width = y.shape[2];
  p.upsampled = upsampled;
  p.type = x.dtype(), p.weight_type = filter.dtype();
  if (!winograd::worthwhile(p)) return false;
  Storage& weights = *filter.storage;
  if (!weights.plain) {
    // An image of another size had them packed for a direct convolution.
    weights.plain = weights.plain_buffer(weights.weight ? Purpose::weights : Purpose::work);
    weights.packed.reset();
  }
  const Tensor added = residual ? as_type(residual, y.dtype()) : residual;
  p.x = x.raw(), p.weights = filter.raw();
  p.offsets = offsets ? offsets.data<float>() : nullptr;
  p.offset_stride = per_image ? g.out : 0;
  p.silu = activation == Activation::silu;
  p.residual = added ? added.raw() : nullptr;
  p.y = y.mutable_raw();
  return winograd::convolve(p);
}

void fused(Call& call) {
  const Tensor &input = call.input(0), &filter = call.input(1), &bias = call.optional(2), &residual = call.optional(3);
  const Tensor& embedding = call.optional(4);
  require(is_float(input.dtype()) && is_float(filter.dtype()), "expects float32 tensors");
  const int64_t factor = call.attributes.integer("upsample", 1);
  require(factor == 1 || factor == 2, "upsample must be 1 or 2, got ", factor);
  const Activation activation = activation_of(call.attributes.text("activation", "linear"));
  Geometry g(input.shape, filter.shape, call.attributes);
  const bool small = factor == 2 && g.three_by_three();
  Tensor x = input;
  Shape shape = g.output();
  if (factor == 2) {
    shape = {g.batch, 2 * g.height, 2 * g.width, g.out};
    if (!small) {
      x = upsample(input);
      g = Geometry(x.shape, filter.shape, call.attributes);
      shape = g.output();
    }
  }
  require(!bias || (is_float(bias.dtype()) && bias.elements() == g.out), "bias needs ", g.out, " numbers");
  require(!residual || (is_float(residual.dtype()) && residual.shape == shape), "residual needs the shape of the result, ",
          shape);
  require(!embedding || (is_float(embedding.dtype()) && embedding.shape.rank == 2 && embedding.shape[0] == g.batch &&
                         embedding.shape[1] == g.out),
          "timeEmbedding needs shape [", g.batch, ",", g.out, "]");
  Tensor y = Tensor::empty(input.dtype(), shape);
  if (y.elements() == 0) {
    call.outputs.push_back(y);
    return;
  }
  require(g.in > 0, "needs at least one input channel");
  Tensor offsets = bias ? as_type(bias, DType::f32) : bias;
  bool per_image = false;
  Tensor rows;
  if (embedding) {
    // The embedding joins the bias. In one pass over the batch when every image has the same, as in guidance.
    rows = as_type(embedding, DType::f32);
    const float* e = rows.data<float>();
    for (int64_t i = 1; i < g.batch && !per_image; ++i) per_image = std::memcmp(e, e + i * g.out, g.out * 4) != 0;
    Tensor joined = Tensor::empty(DType::f32, {g.batch, g.out});
    for (int64_t i = 0; i < joined.elements(); ++i)
      joined.mutable_data<float>()[i] = e[i] + (offsets ? offsets.data<float>()[i % g.out] : 0.0f);
    rows = joined;
  }
  if (g.three_by_three() && convolve_winograd(g, small, x, filter, rows ? rows : offsets, static_cast<bool>(rows), activation, residual, y)) {
    call.outputs.push_back(y);
    return;
  }
  const DType type = compute_type(filter.dtype());
  const DType output_type = y.dtype() == DType::bf16 && type == DType::bf16 ? DType::bf16 : DType::f32;
  x = as_type(x, type);
  const auto compute = [&](const Geometry& geometry, const Tensor& image, const Tensor& constants, const Tensor& added,
                           Tensor& out) {
    if (small) return convolve_upsampled(geometry, image, filter, constants, activation, added, out);
    convolve(geometry, image, filter, constants, activation, added ? as_type(added, output_type) : added, out);
  };
  Tensor output = output_type == y.dtype() ? y : Tensor::empty(output_type, shape);
  if (!per_image) {
    const Tensor constants = rows ? slice_batch(rows, 0) : offsets;
    compute(g, x, constants, residual, output);
  } else {
    Geometry one = g;
    one.batch = 1;
    for (int64_t i = 0; i < g.batch; ++i) {
      Shape part_shape = shape;
      part_shape[0] = 1;
      Tensor part = Tensor::empty(output_type, part_shape);
      compute(one, slice_batch(x, i), slice_batch(rows, i), residual ? slice_batch(residual, i) : residual, part);
      std::memcpy(output.mutable_data<char>() + i * part.bytes(), part.raw(), part.bytes());
    }
  }
  if (output.dtype() != y.dtype()) output = as_type(output, y.dtype());
  call.outputs.push_back(output);
}




/// inputs dy, filter; attribute inputShape
void backprop_input(Call& call) {
  const Tensor dy = as_type(call.input(0), DType::f32), filter = as_type(call.input(1), DType::f32);
  const Shape shape = call.attributes.shape("inputShape");
  const Geometry g(shape, filter.shape, call.attributes);
  require(dy.shape == g.output(), "dy has shape ", dy.shape, " where ", g.output(), " is expected");
  Tensor dx = Tensor::empty(DType::f32, shape);
  if (dx.elements() == 0 || dy.elements() == 0) {
    fill_zero(dx);
    call.outputs.push_back(dx);
    return;
  }
  Key key("convolution_backward_data");
  const ConvolutionShape s = g.shape();
  const Desc plain = desc(s.weights, DType::f32, Tag::hwio);
  const auto ready = PrimitiveCache::instance().get(g.key(key).text(), [&] {
    const Desc source = desc(s.source, DType::f32, Tag::nhwc), output = desc(s.output, DType::f32, Tag::nhwc);
    const Desc any = desc(s.weights, DType::f32, Tag::any);
    const auto hint = convolution(s, source, any, nullptr, output, attributes({}, output));
    const auto description = convolution_backward_data(s, source, any, output, hint, attributes({}, output));
    return Ready{dnnl::convolution_backward_data(description), source, description.weights_desc(), output,
                 description.scratchpad_desc(), {}};
  });
  Buffer weights(ready->weights.get_size());
  reorder(plain, filter.raw(), ready->weights, weights.data());
  execute(ready->primitive, ready->scratch,
          {{DNNL_ARG_DIFF_DST, memory(ready->output, dy.raw())},
           {DNNL_ARG_WEIGHTS, memory(ready->weights, weights.data())},
           {DNNL_ARG_DIFF_SRC, memory(ready->source, dx.raw())}});
  call.outputs.push_back(as_type(dx, call.input(0).dtype()));
}

/// inputs x, dy; attribute filterShape
void backprop_filter(Call& call) {
  const Tensor x = as_type(call.input(0), DType::f32), dy = as_type(call.input(1), DType::f32);
  const Shape shape = call.attributes.shape("filterShape");
  const Geometry g(x.shape, shape, call.attributes);
  require(dy.shape == g.output(), "dy has shape ", dy.shape, " where ", g.output(), " is expected");
  Tensor dw = Tensor::empty(DType::f32, shape);
  if (dw.elements() == 0 || dy.elements() == 0) {
    fill_zero(dw);
    call.outputs.push_back(dw);
    return;
  }
  Key key("convolution_backward_weights");
  const ConvolutionShape s = g.shape();
  const auto ready = PrimitiveCache::instance().get(g.key(key).text(), [&] {
    const Desc source = desc(s.source, DType::f32, Tag::nhwc), output = desc(s.output, DType::f32, Tag::nhwc);
    const Desc any = desc(s.weights, DType::f32, Tag::any);
    const auto hint = convolution(s, source, any, nullptr, output, attributes({}, output));
    const auto description = convolution_backward_weights(s, source, any, output, hint, attributes({}, output));
    return Ready{dnnl::convolution_backward_weights(description), source, description.diff_weights_desc(), output,
                 description.scratchpad_desc(), {}};
  });
  Buffer weights(ready->weights.get_size());
  execute(ready->primitive, ready->scratch,
          {{DNNL_ARG_SRC, memory(ready->source, x.raw())},
           {DNNL_ARG_DIFF_DST, memory(ready->output, dy.raw())},
           {DNNL_ARG_DIFF_WEIGHTS, memory(ready->weights, weights.data())}});
  reorder(ready->weights, weights.data(), desc(s.weights, DType::f32, Tag::hwio), dw.mutable_raw());
  call.outputs.push_back(as_type(dw, call.input(0).dtype()));
}

}  // namespace

void register_convolution(Registry& registry) {
  registry.add("Conv2dFused", fused);
  registry.add("Conv2D", fused);
  registry.add("Conv2DBackpropInput", backprop_input);
  registry.add("Conv2DBackpropFilter", backprop_filter);
}

}  // namespace td

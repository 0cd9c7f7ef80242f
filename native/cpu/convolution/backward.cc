#include "core/kernel.h"
#include "cpu/convert.h"
#include "cpu/convolution/geometry.h"
#include "cpu/kernels.h"
#include "cpu/linear.h"

namespace td {

using namespace onednn;

namespace {

/// Attribute inputShape.
void backprop_input(Call& call) {
  enum : size_t { kDy, kFilter };
  const Tensor dy = as_type(call.input(kDy), DType::f32), filter = as_type(call.input(kFilter), DType::f32);
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
  call.outputs.push_back(as_type(dx, call.input(kDy).dtype()));
}

/// Attribute filterShape.
void backprop_filter(Call& call) {
  enum : size_t { kX, kDy };
  const Tensor x = as_type(call.input(kX), DType::f32), dy = as_type(call.input(kDy), DType::f32);
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
  call.outputs.push_back(as_type(dw, call.input(kX).dtype()));
}

}  // namespace

void register_convolution_backward(Registry& registry) {
  registry.add("Conv2DBackpropInput", backprop_input);
  registry.add("Conv2DBackpropFilter", backprop_filter);
}

}  // namespace td

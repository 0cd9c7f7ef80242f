#include "cpu/convolution/direct.h"

#include <cstring>
#include <utility>

#include "cpu/packed.h"
#include "cpu/parallel.h"

namespace td {

using namespace onednn;

std::shared_ptr<const Ready> convolution_primitive(const Geometry& g, DType type, DType output_type, bool bias, const Epilogue& epilogue,
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

void run_convolution(const Ready& ready, const void* x, const void* weights, const Tensor& bias, const void* residual, void* y) {
  Arguments arguments{{DNNL_ARG_SRC, ready.at(Ready::kSource, x)},
                      {DNNL_ARG_WEIGHTS, ready.at(Ready::kWeights, weights)},
                      {DNNL_ARG_DST, ready.at(Ready::kOutput, y)}};
  if (bias) arguments.emplace(DNNL_ARG_BIAS, ready.at(Ready::kBias, bias.raw()));
  if (ready.epilogue.residual) arguments.emplace(ready.epilogue.residual_argument(), ready.at(Ready::kResidual, residual));
  execute(ready.primitive, ready.scratch, std::move(arguments));
}

void convolve(const Geometry& g, const Tensor& x, const Tensor& filter, const Tensor& bias, Activation activation,
              const Tensor& residual, Tensor& y) {
  const Epilogue epilogue{activation, static_cast<bool>(residual)};
  const ThreadsFor threads(g.multiply_adds());
  const DType type = x.dtype();
  const Dims dims{g.out, g.in, g.kernel_height, g.kernel_width};
  // Weights packed before decide the format; a primitive of another shape mostly likes the same one.
  const auto ready = convolution_primitive(g, type, y.dtype(), static_cast<bool>(bias), epilogue, packed_format(filter, 'c', dims));
  const auto packed = pack(filter, 'c', type, dims, Tag::hwio, ready->weights);
  run_convolution(*ready, x.raw(), packed->numbers(0)->data(), bias, residual ? residual.raw() : nullptr, y.mutable_raw());
  if (residual && !ready->epilogue.residual) y = add(y, residual);
}

}  // namespace td

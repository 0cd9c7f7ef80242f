#include <cstring>

#include "core/kernel.h"
#include "cpu/convert.h"
#include "cpu/kernels.h"
#include "cpu/linear.h"
#include "cpu/packed.h"
#include "cpu/parallel.h"
#include "cpu/simd/loops.h"

namespace td {

using namespace onednn;

void fill_zero(Tensor& y) { std::memset(y.mutable_raw(), 0, y.bytes()); }

DType compute_type(DType x, DType weight) { return x == DType::bf16 && weight == DType::bf16 ? DType::bf16 : weight == DType::bf16 ? DType::bf16 : DType::f32; }

Activation activation_of(const std::string& name) {
  if (name == "linear") return Activation::linear;
  if (name == "silu") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "quick_gelu") return Activation::quick_gelu;
  fail("does not know activation '", name, "'");
}

namespace {

/// One product x [rows, in] times columns [first, first + columns) of the weights.
struct Product {
  int64_t rows, in, columns, all_columns;
  DType type, output_type;
  bool bias;
  Epilogue epilogue;
};

std::shared_ptr<const Ready> prepare(const Product& p, const Desc* format) {
  Key key("linear");
  key.add(p.rows).add(p.in).add(p.columns).add(static_cast<int>(p.type)).add(static_cast<int>(p.output_type)).add(p.bias);
  key.add(p.epilogue).add(format ? 1 : 0);
  if (format) key.add(static_cast<int64_t>(format->get_size()));
  auto make = [&](bool free_format) {
    const Desc source = desc({p.rows, p.in}, p.type, Tag::ab);
    const Desc weights = free_format || !format ? desc({p.in, p.columns}, p.type, Tag::any) : *format;
    const Desc bias = desc({1, p.columns}, DType::f32, Tag::ab);
    const Desc output = desc({p.rows, p.columns}, p.output_type, Tag::ab);
    const auto description = matmul(source, weights, p.bias ? &bias : nullptr, output, attributes(p.epilogue, output));
    return Ready{dnnl::matmul(description), source, description.weights_desc(), output, description.scratchpad_desc()};
  };
  auto ready = PrimitiveCache::instance().get(key.text(), [&] { return make(false); });
  // The key holds only the size of the format: formats of one size that differ are rare and get a primitive of their own.
  if (format && !(ready->weights == *format)) return std::make_shared<const Ready>(make(false));
  return ready;
}

}  // namespace

void linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& residual, const std::string& activation,
            Tensor& y) {
  const bool geglu = activation == "geglu";
  const int64_t in = weight.shape[0], all = weight.shape[1], columns = geglu ? all / 2 : all;
  const int64_t rows = y.elements() / std::max<int64_t>(1, columns);
  const DType type = compute_type(x.dtype(), weight.dtype());
  // The engine multiplies f32 by f32 and bf16 by bf16; float16 is a storage format.
  const DType output_type = y.dtype() == DType::bf16 && type == DType::bf16 ? DType::bf16 : DType::f32;
  const Tensor source = as_type(x, type), weights = as_type(weight, type);
  const Tensor offsets = bias ? as_type(bias, DType::f32) : bias;
  Tensor output = output_type == y.dtype() ? y : Tensor::empty(output_type, y.shape);

  Product product{rows, in, columns, all, type, output_type, static_cast<bool>(bias), {}};
  product.epilogue.activation = geglu ? Activation::linear : activation_of(activation);
  product.epilogue.accumulate = static_cast<bool>(residual);
  product.epilogue.multiply = geglu;
  if (residual) {
    const Tensor added = as_type(residual, output_type);
    const char* from = added.data<char>();
    char* to = output.mutable_data<char>();
    parallel_for(static_cast<int64_t>(output.bytes()), kSerial * 16,
                 [&](int64_t begin, int64_t end) { std::memcpy(to + begin, from + begin, end - begin); });
  }
  const size_t size = size_of(type);
  const std::vector<Desc> formats = packed_formats(weights, geglu ? 'g' : 'm');
  const Desc plain = desc({in, columns}, type, Dims{all, 1});
  const auto matched = [&](size_t parts) {
    return formats.size() == parts ? &formats[0] : static_cast<const Desc*>(nullptr);
  };
  if (!geglu) {
    const auto ready = prepare(product, matched(1));
    const auto packed = pack(weights, 'm', {{plain, ready->weights, 0}});
    Arguments arguments{{DNNL_ARG_SRC, memory(ready->source, source.raw())},
                        {DNNL_ARG_WEIGHTS, memory(ready->weights, packed->parts[0].data->data())},
                        {DNNL_ARG_DST, memory(ready->output, output.raw())}};
    if (bias) arguments.emplace(DNNL_ARG_BIAS, memory(desc({1, columns}, DType::f32, Tag::ab), offsets.raw()));
    execute(ready->primitive, ready->scratch, arguments);
  } else {
    Product gate_product = product;
    gate_product.epilogue = {Activation::gelu, false, false};
    const auto gate_ready = prepare(gate_product, matched(2));
    const auto ready = prepare(product, &gate_ready->weights);
    const auto packed = pack(weights, 'g', {{plain, ready->weights, 0}, {plain, gate_ready->weights, columns * size}});
    const Tensor gate = Tensor::empty(output_type, y.shape);
    const Desc bias_desc = desc({1, columns}, DType::f32, Tag::ab);
    Arguments arguments{{DNNL_ARG_SRC, memory(ready->source, source.raw())},
                        {DNNL_ARG_WEIGHTS, memory(ready->weights, packed->parts[1].data->data())},
                        {DNNL_ARG_DST, memory(ready->output, gate.raw())}};
    if (bias) arguments.emplace(DNNL_ARG_BIAS, memory(bias_desc, offsets.data<float>() + columns));
    execute(gate_ready->primitive, gate_ready->scratch, arguments);
    arguments.clear();
    arguments.emplace(DNNL_ARG_SRC, memory(ready->source, source.raw()));
    arguments.emplace(DNNL_ARG_WEIGHTS, memory(ready->weights, packed->parts[0].data->data()));
    arguments.emplace(DNNL_ARG_DST, memory(ready->output, output.raw()));
    arguments.emplace(DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, memory(ready->output, gate.raw()));
    if (bias) arguments.emplace(DNNL_ARG_BIAS, memory(bias_desc, offsets.raw()));
    execute(ready->primitive, ready->scratch, arguments);
  }
  if (output_type != y.dtype()) convert(output_type, output.raw(), y.dtype(), y.mutable_raw(), y.elements());
}

namespace {

void linear_kernel(Call& call) {
  const Tensor &x = call.input(0), &weight = call.input(1), &bias = call.optional(2), &residual = call.optional(3);
  const std::string activation = call.attributes.text("activation", "linear");
  require(is_float(x.dtype()) && is_float(weight.dtype()), "expects float32 tensors");
  require(x.shape.rank >= 1 && weight.shape.rank == 2, "expects x [..., in] and weight [in, out]");
  require(x.shape[-1] == weight.shape[0], "weight expects ", weight.shape[0], " inputs, got ", x.shape[-1]);
  const bool geglu = activation == "geglu";
  require(!geglu || weight.shape[1] % 2 == 0, "geglu needs an even number of outputs, got ", weight.shape[1]);
  Shape shape = x.shape;
  shape[-1] = geglu ? weight.shape[1] / 2 : weight.shape[1];
  require(!bias || (is_float(bias.dtype()) && bias.elements() == weight.shape[1]), "bias needs ", weight.shape[1], " numbers");
  require(!residual || (is_float(residual.dtype()) && residual.shape == shape), "residual needs the shape of the result, ",
          shape.text());
  Tensor& y = call.output(x.dtype(), shape);
  if (y.elements() == 0) return;
  require(weight.shape[0] > 0, "needs at least one input feature");
  linear(x, weight, bias, residual, activation, y);
}

/// a [batch or 1, M, K] x b [batch or 1, K, N], either transposed; batch dimensions were merged by the caller.
void batch_matmul(Call& call) {
  const Tensor &a = call.input(0), &b = call.input(1), &bias = call.optional(2);
  const bool ta = call.attributes.flag("transposeA"), tb = call.attributes.flag("transposeB");
  require(a.shape.rank == 3 && b.shape.rank == 3, "expects tensors of rank 3");
  require(is_float(a.dtype()) && is_float(b.dtype()), "expects float32 tensors");
  const int64_t batch = std::max(a.shape[0], b.shape[0]);
  require((a.shape[0] == batch || a.shape[0] == 1) && (b.shape[0] == batch || b.shape[0] == 1), "batch sizes ", a.shape[0],
          " and ", b.shape[0], " do not fit");
  const int64_t m = ta ? a.shape[2] : a.shape[1], k = ta ? a.shape[1] : a.shape[2];
  const int64_t n = tb ? b.shape[1] : b.shape[2], kb = tb ? b.shape[2] : b.shape[1];
  require(k == kb, "inner dimensions ", k, " and ", kb, " differ");
  const int64_t batches = a.shape[0] == 0 || b.shape[0] == 0 ? 0 : batch;
  const DType result = promote(a, b);
  const DType type = result == DType::bf16 ? DType::bf16 : DType::f32;
  Tensor& y = call.output(result, {batches, m, n});
  if (y.elements() == 0) return;
  if (k == 0) return fill_zero(y);
  const Tensor left = as_type(a, type), right = as_type(b, type);
  Tensor output = result == type ? y : Tensor::empty(type, y.shape);
  const bool with_bias = bias && is_float(bias.dtype()) && bias.elements() == n;
  require(!bias || with_bias, "bias needs ", n, " numbers");
  const Tensor offsets = bias ? as_type(bias, DType::f32) : bias;
  Key key("matmul");
  key.add(a.shape[0]).add(b.shape[0]).add(m).add(k).add(n).add(ta).add(tb).add(static_cast<int>(type)).add(with_bias);
  const Desc bias_desc = desc({1, 1, n}, DType::f32, Tag::abc);
  const auto ready = PrimitiveCache::instance().get(key.text(), [&] {
    const Desc source = desc({a.shape[0], m, k}, type, ta ? Dims{m * k, 1, m} : Dims{m * k, k, 1});
    const Desc weights = desc({b.shape[0], k, n}, type, tb ? Dims{k * n, 1, k} : Dims{k * n, n, 1});
    const Desc destination = desc({batch, m, n}, type, Tag::abc);
    const auto description =
        matmul(source, weights, with_bias ? &bias_desc : nullptr, destination, attributes({}, destination));
    return Ready{dnnl::matmul(description), source, weights, destination, description.scratchpad_desc()};
  });
  Arguments arguments{{DNNL_ARG_SRC, memory(ready->source, left.raw())},
                      {DNNL_ARG_WEIGHTS, memory(ready->weights, right.raw())},
                      {DNNL_ARG_DST, memory(ready->output, output.raw())}};
  if (with_bias) arguments.emplace(DNNL_ARG_BIAS, memory(bias_desc, offsets.raw()));
  execute(ready->primitive, ready->scratch, arguments);
  if (result != type) convert(type, output.raw(), result, y.mutable_raw(), y.elements());
}

}  // namespace

void register_matmul(Registry& registry) {
  registry.add("Linear", linear_kernel);
  registry.add("BatchMatMul", batch_matmul);
}

}  // namespace td

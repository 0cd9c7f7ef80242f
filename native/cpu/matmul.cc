#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

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

DType compute_type(DType weight) { return weight == DType::bf16 && multiplies_bf16() ? DType::bf16 : DType::f32; }

Activation activation_of(const std::string& name) {
  if (name == "linear") return Activation::linear;
  if (name == "silu") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "quick_gelu") return Activation::quick_gelu;
  fail("does not know activation '", name, "'");
}

namespace {

/// One product x [rows, in] times weights [in, columns].
struct Product {
  int64_t rows, in, columns;
  DType type, output_type;
  bool bias;
  Epilogue epilogue;
};

std::shared_ptr<const Ready> prepare(const Product& p, const Desc* format) {
  Key key("linear");
  key.add(p.rows).add(p.in).add(p.columns).add(static_cast<int>(p.type)).add(static_cast<int>(p.output_type)).add(p.bias);
  key.add(p.epilogue).add(format ? 1 : 0);
  if (format) key.add(static_cast<int64_t>(format->get_size()));
  const auto make = [&] {
    const Desc source = desc({p.rows, p.in}, p.type, Tag::ab);
    const Desc weights = format ? *format : desc({p.in, p.columns}, p.type, Tag::any);
    const Desc bias = desc({1, p.columns}, DType::f32, Tag::ab);
    const Desc output = desc({p.rows, p.columns}, p.output_type, Tag::ab);
    const auto description = matmul(source, weights, p.bias ? &bias : nullptr, output, attributes(p.epilogue, output));
    return Ready(dnnl::matmul(description), source, description.weights_desc(), output, description.scratchpad_desc(), p.epilogue, bias);
  };
  auto ready = PrimitiveCache::instance().get(key.text(), make);
  // The key holds only the size of the format: formats of one size that differ are rare and get a primitive of their own.
  if (format && !(ready->weights == *format)) return std::make_shared<const Ready>(make());
  return ready;
}

/// Size of a product, also where the sizes do not fit an integer.
double size_of_product(int64_t rows, int64_t in, int64_t columns) {
  return static_cast<double>(rows) * static_cast<double>(in) * static_cast<double>(columns);
}

/// A product on operands of the compute type and on packed weights; `bias` and `residual` may be null.
void multiply_packed(const Product& p, const Ready& ready, const void* x, const void* weights, const void* bias, const void* residual,
                     void* y) {
  const ThreadsFor threads(size_of_product(p.rows, p.in, p.columns));
  Arguments arguments{{DNNL_ARG_SRC, ready.at(Ready::kSource, x)},
                      {DNNL_ARG_WEIGHTS, ready.at(Ready::kWeights, weights)},
                      {DNNL_ARG_DST, ready.at(Ready::kOutput, y)}};
  if (p.bias) arguments.emplace(DNNL_ARG_BIAS, ready.at(Ready::kBias, bias));
  if (p.epilogue.residual) arguments.emplace(p.epilogue.residual_argument(), ready.at(Ready::kResidual, residual));
  execute(ready.primitive, ready.scratch, std::move(arguments));
}

/// The same, packing the weights first where they are not. Returns the packed numbers that it used.
BufferPtr multiply(const Product& p, const void* x, const Tensor& weights, const Tensor& bias, const void* residual, void* y) {
  // Weights packed before decide the format; a primitive for another number of rows mostly likes the same one.
  const Dims dims{p.in, p.columns};
  const auto ready = prepare(p, packed_format(weights, 'm', dims));
  const auto packed = pack(weights, 'm', p.type, dims, Tag::ab, ready->weights);
  const BufferPtr numbers = packed->numbers(0);
  multiply_packed(p, *ready, x, numbers->data(), bias ? bias.raw() : nullptr, residual, y);
  return numbers;
}

/// y = h * gelu(g) + residual with [h, g] = x W + b, a piece of the rows at a time: [h, g] stays in the cache.
void geglu(Product product, const Tensor& x, const Tensor& weights, const Tensor& bias, const Tensor& residual, Tensor& y) {
  const int64_t inner = product.columns / 2;
  // Measured: the matrix engine shares pieces of 192 rows evenly among the threads, and [h, g] of 256 rows leaves the cache when wide.
  const int64_t most = product.columns <= 5120 ? 192 : 256, rows = product.rows;
  product.output_type = DType::f32;
  Buffer sums(static_cast<size_t>(std::min(rows, most) * product.columns) * sizeof(float));
  const float* h = static_cast<const float*>(sums.data());
  const simd::Loops& loops = simd::loops();
  const size_t size = size_of(y.dtype());
  const Tensor added = residual ? as_type(residual, y.dtype()) : residual;
  const char* from = added ? added.data<char>() : nullptr;
  char* to = y.mutable_data<char>();
  BufferPtr numbers;
  for (int64_t first = 0; first < rows; first += most) {
    product.rows = std::min(most, rows - first);
    numbers = multiply(product, x.data<char>() + first * product.in * size_of(product.type), weights, bias, nullptr, sums.data());
    parallel_for(product.rows, std::max<int64_t>(1, kSerial / 4 / inner), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t at = (first + row) * inner * size;
        loops.geglu_row(y.dtype(), h + row * 2 * inner, from ? from + at : nullptr, to + at, inner);
      }
    });
  }
}

}  // namespace

void linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& residual, const std::string& activation,
            Tensor& y) {
  const int64_t in = weight.shape[0], columns = weight.shape[1];
  const DType type = compute_type(weight.dtype());
  // The engine multiplies f32 by f32 and bf16 by bf16; float16 is a storage format.
  const DType output_type = y.dtype() == DType::bf16 && type == DType::bf16 ? DType::bf16 : DType::f32;
  const Tensor source = as_type(x, type);
  const Tensor offsets = bias ? as_type(bias, DType::f32) : bias;
  Product product{x.elements() / in, in, columns, type, output_type, static_cast<bool>(bias), {}};
  if (activation == "geglu") return geglu(product, source, weight, offsets, residual, y);

  product.epilogue = {activation_of(activation), static_cast<bool>(residual)};
  const Tensor added = residual ? as_type(residual, output_type) : residual;
  Tensor output = output_type == y.dtype() ? y : Tensor::empty(output_type, y.shape);
  multiply(product, source.raw(), weight, offsets, residual ? added.raw() : nullptr, output.mutable_raw());
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
          shape);
  Tensor& y = call.output(x.dtype(), shape);
  if (y.elements() == 0) return;
  require(weight.shape[0] > 0, "needs at least one input feature");
  linear(x, weight, bias, residual, activation, y);
}

/// inputs x, wq, wk, wv, bq?, bk?, bv?: x [wq, wk, wv] + [bq, bk, bv], the three results side by side.
void packed_qkv(Call& call) {
  const Tensor& x = call.input(0);
  const std::array<Tensor, 3> weights{call.input(1), call.input(2), call.input(3)};
  require(is_float(x.dtype()) && x.shape.rank >= 1, "expects x [..., in] of type float32");
  const Shape expected{x.shape[-1], weights[0].shape[-1]};
  const int64_t in = expected[0], inner = expected[1];
  const bool biased = static_cast<bool>(call.optional(4));
  Tensor offsets = biased ? Tensor::empty(DType::f32, {3 * inner}) : Tensor();
  for (int i = 0; i < 3; ++i) {
    const Tensor &w = weights[i], &b = call.optional(4 + i);
    require(is_float(w.dtype()) && w.shape == expected, "weight ", i, " needs shape ", expected, ", got ", w.shape);
    require(w.dtype() == weights[0].dtype(), "weights are of types ", name_of(weights[0].dtype()), " and ", name_of(w.dtype()));
    require(static_cast<bool>(b) == biased, "expects three biases or none");
    require(!b || (is_float(b.dtype()) && b.elements() == inner), "bias ", i, " needs ", inner, " numbers");
    if (b) convert(b.dtype(), b.raw(), DType::f32, offsets.mutable_data<float>() + i * inner, inner);
  }
  Shape shape = x.shape;
  shape[-1] = 3 * inner;
  Tensor& y = call.output(x.dtype(), shape);
  if (y.elements() == 0) return;
  require(in > 0, "needs at least one input feature");

  const DType type = compute_type(weights[0].dtype());
  const DType output_type = y.dtype() == DType::bf16 && type == DType::bf16 ? DType::bf16 : DType::f32;
  const Tensor source = as_type(x, type);
  Tensor output = output_type == y.dtype() ? y : Tensor::empty(output_type, shape);
  const Product product{x.elements() / in, in, 3 * inner, type, output_type, biased, {}};
  const auto ready = prepare(product, packed_together_format(weights));
  const BufferPtr numbers = pack_together(weights, type, ready->weights)->numbers(0);
  multiply_packed(product, *ready, source.raw(), numbers->data(), biased ? offsets.raw() : nullptr, nullptr, output.mutable_raw());
  if (output_type != y.dtype()) convert(output_type, output.raw(), y.dtype(), y.mutable_raw(), y.elements());
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
  const DType type = compute_type(result);
  Tensor& y = call.output(result, {batches, m, n});
  if (y.elements() == 0) return;
  if (k == 0) return fill_zero(y);
  const Tensor left = as_type(a, type), right = as_type(b, type);
  Tensor output = result == type ? y : Tensor::empty(type, y.shape);
  const bool with_bias = bias && is_float(bias.dtype()) && bias.elements() == n;
  require(!bias || with_bias, "bias needs ", n, " numbers");
  const Tensor offsets = bias ? as_type(bias, DType::f32) : bias;
  const ThreadsFor threads(size_of_product(batch * m, k, n));
  Key key("matmul");
  key.add(a.shape[0]).add(b.shape[0]).add(m).add(k).add(n).add(ta).add(tb).add(static_cast<int>(type)).add(with_bias);
  const Desc bias_desc = desc({1, 1, n}, DType::f32, Tag::abc);
  const auto ready = PrimitiveCache::instance().get(key.text(), [&] {
    const Desc source = desc({a.shape[0], m, k}, type, ta ? Dims{m * k, 1, m} : Dims{m * k, k, 1});
    const Desc weights = desc({b.shape[0], k, n}, type, tb ? Dims{k * n, 1, k} : Dims{k * n, n, 1});
    const Desc destination = desc({batch, m, n}, type, Tag::abc);
    const auto description =
        matmul(source, weights, with_bias ? &bias_desc : nullptr, destination, attributes({}, destination));
    return Ready(dnnl::matmul(description), source, weights, destination, description.scratchpad_desc(), {}, bias_desc);
  });
  Arguments arguments{{DNNL_ARG_SRC, ready->at(Ready::kSource, left.raw())},
                      {DNNL_ARG_WEIGHTS, ready->at(Ready::kWeights, right.raw())},
                      {DNNL_ARG_DST, ready->at(Ready::kOutput, output.raw())}};
  if (with_bias) arguments.emplace(DNNL_ARG_BIAS, ready->at(Ready::kBias, offsets.raw()));
  execute(ready->primitive, ready->scratch, std::move(arguments));
  if (result != type) convert(type, output.raw(), result, y.mutable_raw(), y.elements());
}

}  // namespace

void register_matmul(Registry& registry) {
  registry.add("Linear", linear_kernel);
  registry.add("PackedQkv", packed_qkv);
  registry.add("BatchMatMul", batch_matmul);
}

}  // namespace td

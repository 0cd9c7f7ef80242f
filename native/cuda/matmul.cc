#include <array>

#include "cuda/kernels.h"
#include "cuda/kernels/gemm.cuh"
#include "cuda/product_launch.h"

namespace td::cuda {
namespace {

constexpr KernelModule kModule{"gemm.cuh"};

template <class T, bool TransposedA, bool TransposedB>
struct GemmOf {
  template <int Group>
  using Problem = Gemm<T, TransposedA, TransposedB, Group>;
};

Matrix matrix_of(const Tensor& x, int64_t stride, int64_t batch) {
  return {x.raw(), stride, batch, rows_aligned(x.raw(), stride, x.dtype()) && rows_aligned(nullptr, batch, x.dtype())};
}

/// Steps along k of a tile of that type.
int64_t steps_of(int64_t depth, DType type) { return blocks_for(depth, type == DType::f32 ? 16 : 32); }

template <class T>
void launch_gemm(const GemmArguments& p, const ProductSize& size, bool ta, bool tb) {
  const bool aligned = p.a.aligned && p.b.aligned;
  if (ta && tb) launch_product<kModule, T, GemmOf<T, true, true>::template Problem>(p, size, aligned);
  else if (ta) launch_product<kModule, T, GemmOf<T, true, false>::template Problem>(p, size, aligned);
  else if (tb) launch_product<kModule, T, GemmOf<T, false, true>::template Problem>(p, size, aligned);
  else launch_product<kModule, T, GemmOf<T, false, false>::template Problem>(p, size, aligned);
}

Epilogue epilogue_of(Tensor& y, int64_t columns, int64_t stride) {
  Epilogue e{};
  e.out = y.mutable_raw();
  e.columns = static_cast<int>(columns);
  e.stride = stride;
  e.image_rows = 1;
  e.bias.wide = e.embedding.wide = true;
  e.aligned = rows_aligned(e.out, stride, y.dtype());
  return e;
}

void check_depth(int64_t depth) { require(depth > 0 && depth < INT32_MAX, "needs 1 to 2^31 - 1 input features, got ", depth); }

/// inputs x, weight, bias?, residual?
void linear_kernel(Call& call) {
  const Tensor &x = call.input(0), &weight = call.input(1), &bias = call.optional(2), &residual = call.optional(3);
  const std::string name = call.attributes.text("activation", "linear");
  require(is_float(x.dtype()) && is_float(weight.dtype()), "expects float32 tensors");
  require(x.shape.rank >= 1 && weight.shape.rank == 2, "expects x [..., in] and weight [in, out]");
  require(x.shape[-1] == weight.shape[0], "weight expects ", weight.shape[0], " inputs, got ", x.shape[-1]);
  const bool geglu = name == "geglu";
  const Activation activation = geglu ? Activation::geglu : activation_of(name);
  require(!geglu || weight.shape[1] % 2 == 0, "geglu needs an even number of outputs, got ", weight.shape[1]);
  Shape shape = x.shape;
  shape[-1] = geglu ? weight.shape[1] / 2 : weight.shape[1];
  require(!bias || (is_float(bias.dtype()) && bias.elements() == weight.shape[1]), "bias needs ", weight.shape[1], " numbers");
  require(!residual || (is_float(residual.dtype()) && residual.shape == shape), "residual needs the shape of the result, ", shape);
  const DType type = weight.dtype();
  Tensor y = Tensor::empty(type, shape);
  if (y.elements() > 0) {
    const Tensor source = as_type(x, type), added = residual ? as_type(residual, type) : residual;
    linear({source, weight, bias, added, Tensor(), 1, activation}, y);
  }
  call.outputs.push_back(as_type(y, x.dtype()));
}

/// inputs x, wq, wk, wv, bq?, bk?, bv?: x [wq, wk, wv] + [bq, bk, bv], the three results side by side.
void packed_qkv(Call& call) {
  const Tensor& x = call.input(0);
  require(is_float(x.dtype()) && x.shape.rank >= 1, "expects x [..., in] of type float32");
  const DType type = call.input(1).dtype();
  const Shape expected{x.shape[-1], call.input(1).shape[-1]};
  const int64_t in = expected[0], inner = expected[1];
  const bool biased = static_cast<bool>(call.optional(4));
  Shape shape = x.shape;
  shape[-1] = 3 * inner;
  GemmArguments p{};
  std::array<Tensor, 3> constants;
  bool aligned = true;
  for (int i = 0; i < 3; ++i) {
    const Tensor &w = call.input(1 + i), &b = call.optional(4 + i);
    require(is_float(w.dtype()) && w.shape == expected, "weight ", i, " needs shape ", expected, ", got ", w.shape);
    require(w.dtype() == type, "weights are of types ", name_of(type), " and ", name_of(w.dtype()));
    require(static_cast<bool>(b) == biased, "expects three biases or none");
    require(!b || (is_float(b.dtype()) && b.elements() == inner), "bias ", i, " needs ", inner, " numbers");
    p.b_parts[i] = w.raw();
    p.bias_parts[i] = offsets_of(b, type, &constants[i]);
    aligned = aligned && rows_aligned(w.raw(), inner, type);
  }
  Tensor y = Tensor::empty(type, shape);
  if (y.elements() > 0) {
    check_depth(in);
    const Tensor source = as_type(x, type);
    p.a = matrix_of(source, in, 0);
    p.b = {nullptr, inner, 0, aligned};
    p.parts = true;
    p.rows = static_cast<int>(x.elements() / in);
    p.depth = static_cast<int>(in);
    p.out_batch = inner;
    p.epilogue = epilogue_of(y, inner, 3 * inner);
    p.epilogue.aligned = p.epilogue.aligned && rows_aligned(nullptr, inner, type);
    const ProductSize size{x.elements() / in, inner, steps_of(in, type), 3};
    by_float(type, [&](auto tag) { launch_product<kModule, decltype(tag), GemmOf<decltype(tag), false, false>::template Problem>(p, size, p.a.aligned && aligned); });
  }
  call.outputs.push_back(as_type(y, x.dtype()));
}

/// The largest batch that one grid takes; its third dimension ends at 65535.
constexpr int64_t kBatch = 1 << 15;

/// inputs a [batch or 1, M, K] and b [batch or 1, K, N], either transposed, and bias?; batch dimensions were merged by the caller.
void batch_matmul(Call& call) {
  const Tensor &a = call.input(0), &b = call.input(1), &bias = call.optional(2);
  const bool ta = call.attributes.flag("transposeA"), tb = call.attributes.flag("transposeB");
  require(a.shape.rank == 3 && b.shape.rank == 3, "expects tensors of rank 3");
  require(is_float(a.dtype()) && is_float(b.dtype()), "expects float32 tensors");
  const int64_t batch = std::max(a.shape[0], b.shape[0]);
  require((a.shape[0] == batch || a.shape[0] == 1) && (b.shape[0] == batch || b.shape[0] == 1), "batch sizes ", a.shape[0], " and ", b.shape[0],
          " do not fit");
  const int64_t m = ta ? a.shape[2] : a.shape[1], k = ta ? a.shape[1] : a.shape[2];
  const int64_t n = tb ? b.shape[1] : b.shape[2], kb = tb ? b.shape[2] : b.shape[1];
  require(k == kb, "inner dimensions ", k, " and ", kb, " differ");
  require(!bias || (is_float(bias.dtype()) && bias.elements() == n), "bias needs ", n, " numbers");
  const int64_t batches = a.shape[0] == 0 || b.shape[0] == 0 ? 0 : batch;
  const DType type = promote(a, b);
  Tensor& y = call.output(type, {batches, m, n});
  if (y.elements() == 0) return;
  if (k == 0 && !bias) return fill(y, 0);
  require(k < INT32_MAX, "an inner dimension of ", k, " is too large");
  const Tensor left = as_type(a, type), right = as_type(b, type);
  Tensor constants;
  GemmArguments p{};
  p.a = matrix_of(left, ta ? m : k, a.shape[0] == 1 ? 0 : m * k);
  p.b = matrix_of(right, tb ? k : n, b.shape[0] == 1 ? 0 : k * n);
  p.rows = static_cast<int>(m);
  p.depth = static_cast<int>(k);
  p.out_batch = m * n;
  p.epilogue = epilogue_of(y, n, n);
  p.epilogue.aligned = p.epilogue.aligned && rows_aligned(nullptr, m * n, type);
  p.epilogue.bias = offsets_of(bias, type, &constants);
  const int64_t bytes = size_of(type);
  for (int64_t first = 0; first < batches; first += kBatch) {
    GemmArguments part = p;
    part.a.data = static_cast<const char*>(p.a.data) + first * p.a.batch * bytes;
    part.b.data = static_cast<const char*>(p.b.data) + first * p.b.batch * bytes;
    part.epilogue.out = static_cast<char*>(p.epilogue.out) + first * p.out_batch * bytes;
    const ProductSize size{m, n, steps_of(k, type), std::min(kBatch, batches - first)};
    by_float(type, [&](auto tag) { launch_gemm<decltype(tag)>(part, size, ta, tb); });
  }
}

}  // namespace

void linear(const LinearOperands& operands, Tensor& y) {
  const int64_t in = operands.weight.shape[-2], columns = operands.weight.shape[-1], rows = operands.x.elements() / std::max<int64_t>(1, in);
  check_depth(in);
  const DType type = y.dtype();
  Tensor bias, embedding;
  GemmArguments p{};
  p.a = matrix_of(operands.x, in, 0);
  p.b = matrix_of(operands.weight, columns, 0);
  p.rows = static_cast<int>(rows);
  p.depth = static_cast<int>(in);
  p.epilogue = epilogue_of(y, y.shape[-1], y.shape[-1]);
  p.epilogue.bias = offsets_of(operands.bias, type, &bias);
  p.epilogue.embedding = offsets_of(operands.embedding, type, &embedding);
  p.epilogue.image_rows = static_cast<int>(operands.image_rows);
  p.epilogue.activation = operands.activation;
  p.epilogue.residual = operands.residual ? operands.residual.raw() : nullptr;
  if (operands.activation == Activation::geglu) p.b.aligned = p.b.aligned && rows_aligned(nullptr, columns / 2, type);
  const ProductSize size{rows, columns, steps_of(in, type), 1};
  by_float(type, [&](auto tag) {
    launch_product<kModule, decltype(tag), GemmOf<decltype(tag), false, false>::template Problem>(p, size, p.a.aligned && p.b.aligned);
  });
}

void register_matmul(Registry& registry) {
  registry.add("Linear", linear_kernel);
  registry.add("PackedQkv", packed_qkv);
  registry.add("BatchMatMul", batch_matmul);
}

}  // namespace td::cuda

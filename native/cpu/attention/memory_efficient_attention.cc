#include <array>
#include <type_traits>

#include "core/kernel.h"
#include "cpu/attention/attention.h"
#include "cpu/convert.h"
#include "cpu/kernels.h"

namespace td {
namespace {

using attention::Gradients;
using attention::Problem;
using attention::Strides;

/// Sizes and strides of q, k, v: rank 4 [B,H,N,d], tokens [B,N,H*d] or packed tokens [B,N,3*H*d]; with the number of heads as
/// attribute where the shape does not tell.
struct Layout {
  bool tokens, packed = false;
  int64_t batch, heads, queries, keys, head_size, value_size;

  Layout(const Tensor& qkv, const Attributes& attributes) : tokens(true), packed(true) {
    require(is_float(qkv.dtype()) && qkv.shape.rank == 3, "expects q, k and v side by side, [B,N,3*H*d], of type float32");
    heads = attributes.integer("heads");
    require(heads > 0, "heads must be positive, got ", heads);
    require(qkv.shape[2] % (3 * heads) == 0, qkv.shape[2], " channels are not three times ", heads, " heads");
    batch = qkv.shape[0];
    queries = keys = qkv.shape[1];
    head_size = value_size = qkv.shape[2] / (3 * heads);
  }

  Layout(const Tensor& q, const Tensor& k, const Tensor& v, const Attributes& attributes) {
    const Shape &qs = q.shape, &ks = k.shape, &vs = v.shape;
    require(is_float(q.dtype()) && is_float(k.dtype()) && is_float(v.dtype()), "expects float32 tensors");
    require((qs.rank == 3 || qs.rank == 4) && ks.rank == qs.rank && vs.rank == qs.rank,
            "expects q, k and v all of rank 4 [B,H,N,d] or all of rank 3 [B,N,H*d]");
    tokens = qs.rank == 3;
    heads = tokens ? attributes.integer("heads") : qs[1];
    require(heads > 0 || !tokens, "heads must be positive, got ", heads);
    require(!tokens || (qs[2] % heads == 0 && ks[2] % heads == 0 && vs[2] % heads == 0), heads,
            " heads do not divide the channels of q, k and v");
    batch = qs[0];
    queries = qs[-2];
    keys = ks[-2];
    head_size = tokens ? qs[2] / heads : qs[3];
    value_size = tokens ? vs[2] / heads : vs[3];
    require(ks[0] == batch && vs[0] == batch && (tokens || (ks[1] == heads && vs[1] == heads)), "q, k and v differ in batch or heads");
    require(ks[-1] == qs[-1], "q and k differ in head size");
    require(vs[-2] == keys, "k has ", keys, " tokens and v ", vs[-2]);
  }
  /// Of q, k or v.
  Strides strides(int64_t count, int64_t size) const {
    return packed ? Strides{count * 3 * heads * size, size, 3 * heads * size} : dense(count, size);
  }
  /// Of the output.
  Strides dense(int64_t count, int64_t size) const {
    return tokens ? attention::strides_tokens(heads, count, size)
                  : attention::strides_bhnd(heads, count, size);
  }
  Shape shape(int64_t count, int64_t size) const {
    return tokens ? Shape{batch, count, heads * size} : Shape{batch, heads, count, size};
  }
};

/// Numbers of q, k and v.
struct Operands {
  const void *q, *k, *v;
};

/// The three that lie side by side in packed tokens.
template <typename T>
std::array<T*, 3> side_by_side(const Layout& l, DType type, T* qkv) {
  using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
  Byte* bytes = static_cast<Byte*>(qkv);
  const int64_t step = l.heads * l.head_size * static_cast<int64_t>(size_of(type));
  return {bytes, bytes + step, bytes + 2 * step};
}

Problem describe(const Layout& l, DType type, const Operands& operands, const Tensor& bias, const Attributes& attributes) {
  Problem p;
  p.type = type;
  p.batch = l.batch, p.heads = l.heads, p.queries = l.queries, p.keys = l.keys;
  p.head_size = l.head_size, p.value_size = l.value_size;
  p.scale = static_cast<float>(attributes.number("scale"));
  p.q = operands.q, p.k = operands.k, p.v = operands.v;
  p.q_strides = l.strides(l.queries, l.head_size);
  p.k_strides = l.strides(l.keys, l.head_size);
  p.v_strides = l.strides(l.keys, l.value_size);
  p.out_strides = l.dense(l.queries, l.value_size);
  if (bias) {
    const Shape full{l.batch, l.heads, l.queries, l.keys};
    require(bias.shape.rank <= 4, "bias has more than 4 dimensions");
    int64_t strides[4], step = 1;
    for (int i = 1; i <= 4; ++i) {
      const int64_t dim = i <= bias.shape.rank ? bias.shape.dims[bias.shape.rank - i] : 1;
      require(dim == 1 || dim == full.dims[4 - i], "bias ", bias.shape, " does not broadcast to ", full);
      strides[4 - i] = dim == 1 ? 0 : step;
      step *= dim;
    }
    p.bias = bias.data<float>();
    p.bias_strides = {strides[0], strides[1], strides[2], strides[3]};
  }
  return p;
}

void run_forward(Call& call, const Layout& l, DType type, const Operands& operands, const Tensor& given_bias) {
  const Tensor bias = given_bias ? as_type(given_bias, DType::f32) : Tensor();
  Tensor out = Tensor::empty(type, l.shape(l.queries, l.value_size));
  Tensor lse = Tensor::empty(DType::f32, {l.batch, l.heads, l.queries});
  Problem problem = describe(l, type, operands, bias, call.attributes);
  problem.out = out.mutable_raw();
  problem.lse = lse.mutable_data<float>();
  attention::forward(problem);
  call.outputs = {out, lse};
}

/// What the backward pass reads beside q, k and v.
struct Saved {
  Tensor dy, out, lse, bias;

  Saved(const Call& call, const Layout& l, DType type, const Tensor& given_out, const Tensor& given_lse, const Tensor& given_bias)
      : dy(as_type(call.input(0), type)), out(as_type(given_out, type)), lse(as_type(given_lse, DType::f32)),
        bias(given_bias ? as_type(given_bias, DType::f32) : Tensor()) {
    require(out.shape == l.shape(l.queries, l.value_size) && dy.shape == out.shape, "dy and out need shape ",
            l.shape(l.queries, l.value_size));
    require(lse.elements() == l.batch * l.heads * l.queries, "lse needs one number per query");
  }
};

void run_backward(const Layout& l, DType type, const Operands& operands, const Saved& saved, const std::array<void*, 3>& gradients_of,
                  const Attributes& attributes) {
  Problem problem = describe(l, type, operands, saved.bias, attributes);
  problem.out = const_cast<void*>(saved.out.raw());
  problem.lse = const_cast<float*>(saved.lse.data<float>());
  Gradients gradients;
  gradients.dy = saved.dy.raw();
  gradients.dq = gradients_of[0], gradients.dk = gradients_of[1], gradients.dv = gradients_of[2];
  gradients.dy_strides = problem.out_strides;
  gradients.dq_strides = problem.q_strides, gradients.dk_strides = problem.k_strides, gradients.dv_strides = problem.v_strides;
  attention::backward(problem, gradients);
}

/// inputs q, k, v, bias?
void forward(Call& call) {
  const Tensor& q = call.input(0);
  const Layout l(q, call.input(1), call.input(2), call.attributes);
  const Tensor k = as_type(call.input(1), q.dtype()), v = as_type(call.input(2), q.dtype());
  run_forward(call, l, q.dtype(), {q.raw(), k.raw(), v.raw()}, call.optional(3));
}

/// inputs dy, q, k, v, out, lse, bias?
void backward(Call& call) {
  const Tensor& q = call.input(1);
  const Layout l(q, call.input(2), call.input(3), call.attributes);
  const DType type = q.dtype();
  const Tensor k = as_type(call.input(2), type), v = as_type(call.input(3), type);
  const Saved saved(call, l, type, call.input(4), call.input(5), call.optional(6));
  Tensor dq = Tensor::empty(type, q.shape), dk = Tensor::empty(type, k.shape), dv = Tensor::empty(type, v.shape);
  run_backward(l, type, {q.raw(), k.raw(), v.raw()}, saved, {dq.mutable_raw(), dk.mutable_raw(), dv.mutable_raw()}, call.attributes);
  call.outputs = {dq, dk, dv};
}

/// inputs qkv, bias?
void packed_forward(Call& call) {
  const Tensor& qkv = call.input(0);
  const Layout l(qkv, call.attributes);
  const auto [q, k, v] = side_by_side(l, qkv.dtype(), qkv.raw());
  run_forward(call, l, qkv.dtype(), {q, k, v}, call.optional(1));
}

/// inputs dy, qkv, out, lse, bias?
void packed_backward(Call& call) {
  const Tensor& qkv = call.input(1);
  const Layout l(qkv, call.attributes);
  const DType type = qkv.dtype();
  const auto [q, k, v] = side_by_side(l, type, qkv.raw());
  const Saved saved(call, l, type, call.input(2), call.input(3), call.optional(4));
  Tensor dqkv = Tensor::empty(type, qkv.shape);
  run_backward(l, type, {q, k, v}, saved, side_by_side(l, type, dqkv.mutable_raw()), call.attributes);
  call.outputs = {dqkv};
}

}  // namespace

void register_attention(Registry& registry) {
  registry.add("MemoryEfficientAttention", forward);
  registry.add("MemoryEfficientAttentionGrad", backward);
  registry.add("MemoryEfficientAttentionPacked", packed_forward);
  registry.add("MemoryEfficientAttentionPackedGrad", packed_backward);
}

}  // namespace td

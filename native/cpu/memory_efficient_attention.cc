#include <cmath>

#include "core/kernel.h"
#include "cpu/attention.h"
#include "cpu/convert.h"
#include "cpu/kernels.h"

namespace td {
namespace {

using tfjs_diffusers::AttentionGradients;
using tfjs_diffusers::AttentionProblem;
using tfjs_diffusers::AttentionStrides;
using tfjs_diffusers::AttentionType;

/// Sizes and strides of q, k, v: rank 4 [B,H,N,d] or tokens [B,N,H*d] with the number of heads as attribute.
struct Layout {
  bool tokens;
  int64_t batch, heads, queries, keys, head_size, value_size;

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
  AttentionStrides strides(int64_t count, int64_t size) const {
    return tokens ? tfjs_diffusers::attention_strides_tokens(heads, count, size)
                  : tfjs_diffusers::attention_strides_bhnd(heads, count, size);
  }
  Shape shape(int64_t count, int64_t size) const {
    return tokens ? Shape{batch, count, heads * size} : Shape{batch, heads, count, size};
  }
};

AttentionType attention_type(DType type) {
  return type == DType::f32 ? AttentionType::f32 : type == DType::bf16 ? AttentionType::bf16 : AttentionType::f16;
}

AttentionProblem describe(const Layout& l, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias,
                          const Attributes& attributes) {
  AttentionProblem p;
  p.type = attention_type(q.dtype());
  p.batch = l.batch, p.heads = l.heads, p.queries = l.queries, p.keys = l.keys;
  p.head_size = l.head_size, p.value_size = l.value_size;
  p.scale = static_cast<float>(attributes.number("scale"));
  p.q = q.raw(), p.k = k.raw(), p.v = v.raw();
  p.q_strides = l.strides(l.queries, l.head_size);
  p.k_strides = l.strides(l.keys, l.head_size);
  p.v_strides = l.strides(l.keys, l.value_size);
  p.out_strides = l.strides(l.queries, l.value_size);
  if (bias) {
    const Shape full{l.batch, l.heads, l.queries, l.keys};
    require(bias.shape.rank <= 4, "bias has more than 4 dimensions");
    int64_t strides[4], step = 1;
    for (int i = 1; i <= 4; ++i) {
      const int64_t dim = i <= bias.shape.rank ? bias.shape.dims[bias.shape.rank - i] : 1;
      require(dim == 1 || dim == full.dims[4 - i], "bias ", bias.shape.text(), " does not broadcast to ", full.text());
      strides[4 - i] = dim == 1 ? 0 : step;
      step *= dim;
    }
    p.bias = bias.data<float>();
    p.bias_strides = {strides[0], strides[1], strides[2], strides[3]};
  }
  return p;
}

/// inputs q, k, v, bias?
void forward(Call& call) {
  const Tensor& q = call.input(0);
  const Layout l(q, call.input(1), call.input(2), call.attributes);
  const Tensor k = as_type(call.input(1), q.dtype()), v = as_type(call.input(2), q.dtype());
  const Tensor bias = call.optional(3) ? as_type(call.optional(3), DType::f32) : Tensor();
  Tensor out = Tensor::empty(q.dtype(), l.shape(l.queries, l.value_size));
  Tensor lse = Tensor::empty(DType::f32, {l.batch, l.heads, l.queries});
  AttentionProblem problem = describe(l, q, k, v, bias, call.attributes);
  problem.out = out.mutable_raw();
  problem.lse = lse.mutable_data<float>();
  tfjs_diffusers::attention_forward(problem);
  call.outputs = {out, lse};
}

/// inputs dy, q, k, v, out, lse, bias?
void backward(Call& call) {
  const Tensor& q = call.input(1);
  const Layout l(q, call.input(2), call.input(3), call.attributes);
  const DType type = q.dtype();
  const Tensor dy = as_type(call.input(0), type), k = as_type(call.input(2), type), v = as_type(call.input(3), type);
  const Tensor out = as_type(call.input(4), type), lse = as_type(call.input(5), DType::f32);
  const Tensor bias = call.optional(6) ? as_type(call.optional(6), DType::f32) : Tensor();
  require(out.shape == l.shape(l.queries, l.value_size) && dy.shape == out.shape, "dy and out need shape ",
          l.shape(l.queries, l.value_size).text());
  require(lse.elements() == l.batch * l.heads * l.queries, "lse needs one number per query");
  Tensor dq = Tensor::empty(type, q.shape), dk = Tensor::empty(type, k.shape), dv = Tensor::empty(type, v.shape);
  AttentionProblem problem = describe(l, q, k, v, bias, call.attributes);
  problem.out = const_cast<void*>(out.raw());
  problem.lse = const_cast<float*>(lse.data<float>());
  AttentionGradients gradients;
  gradients.dy = dy.raw();
  gradients.dq = dq.mutable_raw(), gradients.dk = dk.mutable_raw(), gradients.dv = dv.mutable_raw();
  gradients.dy_strides = problem.out_strides;
  gradients.dq_strides = problem.q_strides, gradients.dk_strides = problem.k_strides, gradients.dv_strides = problem.v_strides;
  tfjs_diffusers::attention_backward(problem, gradients);
  call.outputs = {dq, dk, dv};
}

}  // namespace

void register_attention(Registry& registry) {
  registry.add("MemoryEfficientAttention", forward);
  registry.add("MemoryEfficientAttentionGrad", backward);
}

}  // namespace td

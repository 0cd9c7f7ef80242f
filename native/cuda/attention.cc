#include <array>

#include "cuda/attention_hopper.h"
#include "cuda/dispatch.h"
#include "cuda/kernels.h"
#include "cuda/kernels/attention_backward_float32.cuh"
#include "cuda/kernels/attention_forward.cuh"

namespace td::cuda {
namespace {

constexpr KernelModule kForward{"attention_forward.cuh"}, kForwardFloat{"attention_float32.cuh"}, kBackward{"attention_backward.cuh"},
    kBackwardFloat{"attention_backward_float32.cuh"};

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
    check_sizes();
  }
  Layout(const Tensor& q, const Tensor& k, const Tensor& v, const Attributes& attributes) {
    const Shape &qs = q.shape, &ks = k.shape, &vs = v.shape;
    require(is_float(q.dtype()) && is_float(k.dtype()) && is_float(v.dtype()), "expects float32 tensors");
    require((qs.rank == 3 || qs.rank == 4) && ks.rank == qs.rank && vs.rank == qs.rank,
            "expects q, k and v all of rank 4 [B,H,N,d] or all of rank 3 [B,N,H*d]");
    tokens = qs.rank == 3;
    heads = tokens ? attributes.integer("heads") : qs[1];
    require(heads > 0 || !tokens, "heads must be positive, got ", heads);
    require(!tokens || (qs[2] % heads == 0 && ks[2] % heads == 0 && vs[2] % heads == 0), heads, " heads do not divide the channels of q, k and v");
    batch = qs[0];
    queries = qs[-2];
    keys = ks[-2];
    head_size = tokens ? qs[2] / heads : qs[3];
    value_size = tokens ? vs[2] / heads : vs[3];
    require(ks[0] == batch && vs[0] == batch && (tokens || (ks[1] == heads && vs[1] == heads)), "q, k and v differ in batch or heads");
    require(ks[-1] == qs[-1], "q and k differ in head size");
    require(vs[-2] == keys, "k has ", keys, " tokens and v ", vs[-2]);
    check_sizes();
  }
  void check_sizes() const {
    for (int64_t n : {batch * heads, queries, keys, head_size, value_size}) require(n < (1 << 28), "a size of ", n, " is too large");
  }
  AttentionStrides dense(int64_t count, int64_t size) const {
    const int64_t row = heads * size;
    return tokens ? AttentionStrides{count * row, size, row} : AttentionStrides{count * row, count * size, size};
  }
  AttentionStrides strides(int64_t count, int64_t size) const {
    const int64_t row = heads * size;
    return packed ? AttentionStrides{3 * count * row, size, 3 * row} : dense(count, size);
  }
  Shape out_shape() const { return tokens ? Shape{batch, queries, heads * value_size} : Shape{batch, heads, queries, value_size}; }
};

bool vectors_fit(const void* data, const AttentionStrides& s, DType type) {
  const int64_t vector = 16 / size_of(type);
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && s.batch % vector == 0 && s.head % vector == 0 && s.token % vector == 0;
}
AttentionTensor tensor_of(const void* data, const AttentionStrides& s, DType type) { return {data, s, vectors_fit(data, s, type)}; }
AttentionResult result_of(void* data, const AttentionStrides& s, DType type) { return {data, s, vectors_fit(data, s, type)}; }

/// Those that lie side by side in packed tokens.
template <class Byte>
std::array<Byte*, 3> side_by_side(const Layout& l, DType type, Byte* qkv) {
  const int64_t step = l.heads * l.head_size * static_cast<int64_t>(size_of(type));
  return {qkv, qkv + step, qkv + 2 * step};
}

AttentionBias bias_of(const Layout& l, const Tensor& bias) {
  const Shape full{l.batch, l.heads, l.queries, l.keys};
  require(bias.shape.rank <= 4, "bias has more than 4 dimensions");
  int64_t strides[4], step = 1;
  for (int i = 1; i <= 4; ++i) {
    const int64_t dim = i <= bias.shape.rank ? bias.shape.dims[bias.shape.rank - i] : 1;
    require(dim == 1 || dim == full.dims[4 - i], "bias ", bias.shape, " does not broadcast to ", full);
    strides[4 - i] = dim == 1 ? 0 : step;
    step *= dim;
  }
  return {bias.data<float>(), strides[0], strides[1], strides[2], strides[3]};
}

using Operands = std::array<const char*, 3>;

AttentionArguments describe(const Layout& l, DType type, const Operands& operands, const Tensor& bias, const Attributes& attributes) {
  AttentionArguments p{};
  p.q = tensor_of(operands[0], l.strides(l.queries, l.head_size), type);
  p.k = tensor_of(operands[1], l.strides(l.keys, l.head_size), type);
  p.v = tensor_of(operands[2], l.strides(l.keys, l.value_size), type);
  if (bias) p.bias = bias_of(l, bias);
  p.heads = static_cast<int>(l.heads), p.queries = static_cast<int>(l.queries), p.keys = static_cast<int>(l.keys);
  p.head_size = static_cast<int>(l.head_size), p.value_size = static_cast<int>(l.value_size);
  p.scale = static_cast<float>(attributes.number("scale"));
  return p;
}

unsigned blocks_of(const Layout& l, int64_t rows, int per_block) {
  const int64_t blocks = l.batch * l.heads * blocks_for(rows, per_block);
  require(blocks < INT32_MAX, "attention over ", rows, " tokens of ", l.batch * l.heads, " heads is too large");
  return static_cast<unsigned>(blocks);
}

/// Launches the tile when a block of this card may have its shared memory.
template <class Tile>
bool launch_forward(const Layout& l, const AttentionArguments& p) {
  if (Tile::kShared > card().max_shared) return false;
  launch<kForward, attention_forward_kernel<Tile>>(Grid{dim3(blocks_of(l, l.queries, Tile::kRows)), dim3(Tile::kThreads), Tile::kShared, false}, p);
  return true;
}
template <class T, int D, int M, int Keys>
bool forward_tile(const Layout& l, const AttentionArguments& p) {
  if (p.bias.data) return launch_forward<AttentionForward<T, D, 4, 1, Keys, 2, true>>(l, p);
  return launch_forward<AttentionForward<T, D, 4, M, Keys, 2, false>>(l, p);
}
/// The smallest tile that holds the heads: rows, keys and stages are chosen for registers and shared memory, to be tuned on a card.
template <class T>
bool forward_on_tensor_cores(const Layout& l, const AttentionArguments& p) {
  const int64_t size = std::max(l.head_size, l.value_size);
  if (size <= 40) return forward_tile<T, 40, 2, 64>(l, p);
  if (size <= 64) return forward_tile<T, 64, 2, 64>(l, p);
  if (size <= 80) return forward_tile<T, 80, 1, 64>(l, p);
  if (size <= 96) return forward_tile<T, 96, 1, 48>(l, p);
  if (size <= 128) return forward_tile<T, 128, 1, 48>(l, p);
  if (size <= 160) return forward_tile<T, 160, 1, 32>(l, p);
  if (size <= 256) return forward_tile<T, 256, 1, 32>(l, p);
  return false;
}
template <class T, int Columns>
void forward_float(const Layout& l, const AttentionArguments& p) {
  const dim3 blocks(blocks_of(l, l.queries, kFloatSide), blocks_for(std::max<int64_t>(1, l.value_size), Columns));
  launch<kForwardFloat, attention_float_kernel<T, Columns>>(Grid{blocks, dim3(256), kFloatAttentionShared<Columns>, false}, p);
}
void launch_forward(const Layout& l, DType type, const AttentionArguments& p) {
  by_float(type, [&](auto tag) {
    using T = decltype(tag);
    if constexpr (sizeof(typename Stored<T>::type) == 2) {
      if (attention_forward_hopper<T>(p, static_cast<int>(l.batch)) || forward_on_tensor_cores<T>(l, p)) return;
    }
    if (l.value_size <= 64) forward_float<T, 64>(l, p);
    else forward_float<T, 256>(l, p);
  });
}

void run_forward(Call& call, const Layout& l, DType type, const Operands& operands, const Tensor& given_bias) {
  const Tensor bias = given_bias ? as_type(given_bias, DType::f32) : Tensor();
  Tensor out = Tensor::empty(type, l.out_shape()), lse = Tensor::empty(DType::f32, {l.batch, l.heads, l.queries});
  if (lse.elements() > 0) {
    AttentionArguments p = describe(l, type, operands, bias, call.attributes);
    p.out = result_of(out.mutable_raw(), l.dense(l.queries, l.value_size), type);
    p.lse = lse.mutable_data<float>();
    launch_forward(l, type, p);
  }
  call.outputs = {out, lse};
}

template <class Tile>
bool launch_backward(const Layout& l, const AttentionGradientArguments& g, int64_t rows) {
  if (Tile::kShared > card().max_shared) return false;
  launch<kBackward, attention_backward_kernel<Tile>>(Grid{dim3(blocks_of(l, rows, Tile::kRows)), dim3(Tile::kThreads), Tile::kShared, false}, g);
  return true;
}
template <class T, int D, int Lines, bool Bias>
bool backward_tile(const Layout& l, const AttentionGradientArguments& g) {
  return launch_backward<AttentionBackward<T, D, 4, Lines, 2, false, Bias>>(l, g, l.queries) &&
         launch_backward<AttentionBackward<T, D, 4, Lines, 2, true, Bias>>(l, g, l.keys);
}
template <class T, int D, int Lines>
bool backward_tile(const Layout& l, const AttentionGradientArguments& g) {
  return g.forward.bias.data ? backward_tile<T, D, Lines, true>(l, g) : backward_tile<T, D, Lines, false>(l, g);
}
template <class T>
bool backward_on_tensor_cores(const Layout& l, const AttentionGradientArguments& g) {
  const int64_t size = std::max(l.head_size, l.value_size);
  if (size <= 40) return backward_tile<T, 40, 32>(l, g);
  if (size <= 64) return backward_tile<T, 64, 32>(l, g);
  if (size <= 80) return backward_tile<T, 80, 32>(l, g);
  if (size <= 96) return backward_tile<T, 96, 32>(l, g);
  if (size <= 128) return backward_tile<T, 128, 16>(l, g);
  if (size <= 160) return backward_tile<T, 160, 16>(l, g);
  return false;
}
template <class T, bool ForKeys>
void backward_float(const Layout& l, const AttentionGradientArguments& g, int64_t rows) {
  constexpr int kColumns = 128;
  const dim3 blocks(blocks_of(l, rows, kFloatSide), blocks_for(std::max<int64_t>({1, l.head_size, l.value_size}), kColumns));
  launch<kBackwardFloat, attention_float_backward_kernel<T, kColumns, ForKeys>>(Grid{blocks, dim3(256), kFloatAttentionShared<kColumns>, false}, g);
}
void launch_backward(const Layout& l, DType type, const AttentionGradientArguments& g, float* delta) {
  by_float(type, [&](auto tag) {
    using T = decltype(tag);
    launch<kBackward, attention_delta_kernel<T>>(Grid{dim3(blocks_of(l, l.queries, 4)), dim3(128), 0, false}, g, delta);
    if constexpr (sizeof(typename Stored<T>::type) == 2) {
      if (backward_on_tensor_cores<T>(l, g)) return;
    }
    backward_float<T, false>(l, g, l.queries);
    backward_float<T, true>(l, g, l.keys);
  });
}

/// What the backward pass reads beside q, k and v.
struct Saved {
  Tensor dy, out, lse, bias;

  Saved(const Call& call, const Layout& l, DType type, const Tensor& given_out, const Tensor& given_lse, const Tensor& given_bias)
      : dy(as_type(call.input(0), type)), out(as_type(given_out, type)), lse(as_type(given_lse, DType::f32)),
        bias(given_bias ? as_type(given_bias, DType::f32) : Tensor()) {
    require(out.shape == l.out_shape() && dy.shape == out.shape, "dy and out need shape ", l.out_shape());
    require(lse.elements() == l.batch * l.heads * l.queries, "lse needs one number per query");
  }
};

/// False where there is nothing to differentiate.
bool run_backward(const Layout& l, DType type, const Operands& operands, const Saved& saved, const std::array<char*, 3>& gradients,
                  const Attributes& attributes) {
  if (l.batch * l.heads * l.queries * l.keys == 0) return false;
  AttentionGradientArguments g{};
  g.forward = describe(l, type, operands, saved.bias, attributes);
  const AttentionStrides dense = l.dense(l.queries, l.value_size);
  g.forward.out = result_of(const_cast<void*>(saved.out.raw()), dense, type);  // read only
  g.forward.lse = const_cast<float*>(saved.lse.data<float>());
  g.dy = tensor_of(saved.dy.raw(), dense, type);
  g.dq = result_of(gradients[0], g.forward.q.strides, type);
  g.dk = result_of(gradients[1], g.forward.k.strides, type);
  g.dv = result_of(gradients[2], g.forward.v.strides, type);
  Tensor delta = Tensor::empty(DType::f32, saved.lse.shape);
  g.delta = delta.data<float>();
  launch_backward(l, type, g, delta.mutable_data<float>());
  return true;
}

/// inputs q, k, v, bias?
void forward(Call& call) {
  const Tensor& q = call.input(0);
  const Layout l(q, call.input(1), call.input(2), call.attributes);
  const Tensor k = as_type(call.input(1), q.dtype()), v = as_type(call.input(2), q.dtype());
  run_forward(call, l, q.dtype(), {q.data<char>(), k.data<char>(), v.data<char>()}, call.optional(3));
}

/// inputs dy, q, k, v, out, lse, bias?
void backward(Call& call) {
  const Tensor& q = call.input(1);
  const Layout l(q, call.input(2), call.input(3), call.attributes);
  const DType type = q.dtype();
  const Tensor k = as_type(call.input(2), type), v = as_type(call.input(3), type);
  const Saved saved(call, l, type, call.input(4), call.input(5), call.optional(6));
  std::vector<Tensor> d{Tensor::empty(type, q.shape), Tensor::empty(type, k.shape), Tensor::empty(type, v.shape)};
  if (!run_backward(l, type, {q.data<char>(), k.data<char>(), v.data<char>()}, saved,
                    {d[0].mutable_data<char>(), d[1].mutable_data<char>(), d[2].mutable_data<char>()}, call.attributes)) {
    for (Tensor& x : d) fill(x, 0);
  }
  call.outputs = d;
}

/// inputs qkv, bias?
void packed_forward(Call& call) {
  const Tensor& qkv = call.input(0);
  const Layout l(qkv, call.attributes);
  run_forward(call, l, qkv.dtype(), side_by_side(l, qkv.dtype(), qkv.data<char>()), call.optional(1));
}

/// inputs dy, qkv, out, lse, bias?
void packed_backward(Call& call) {
  const Tensor& qkv = call.input(1);
  const Layout l(qkv, call.attributes);
  const DType type = qkv.dtype();
  const Saved saved(call, l, type, call.input(2), call.input(3), call.optional(4));
  Tensor dqkv = Tensor::empty(type, qkv.shape);
  if (!run_backward(l, type, side_by_side(l, type, qkv.data<char>()), saved, side_by_side(l, type, dqkv.mutable_data<char>()), call.attributes)) {
    fill(dqkv, 0);
  }
  call.outputs = {dqkv};
}

}  // namespace

void register_attention(Registry& registry) {
  registry.add("MemoryEfficientAttention", forward);
  registry.add("MemoryEfficientAttentionGrad", backward);
  registry.add("MemoryEfficientAttentionPacked", packed_forward);
  registry.add("MemoryEfficientAttentionPackedGrad", packed_backward);
}

}  // namespace td::cuda

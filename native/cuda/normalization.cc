#include "cuda/kernels/normalization.cuh"

#include <algorithm>

#include "cuda/kernels.h"
#include "cuda/product_launch.h"

namespace td::cuda {
namespace {

constexpr KernelModule kModule{"normalization.cuh"};

/// A number per channel.
Offsets parameter_of(const Tensor& x, const char* name, int64_t channels, DType type, Tensor* converted) {
  require(is_float(x.dtype()) && x.elements() == channels, name, " needs ", channels, " numbers");
  return offsets_of(x, type, converted);
}

int checked(int64_t n) {
  require(n < INT32_MAX, "a size of ", n, " is too large");
  return static_cast<int>(n);
}

/// Groups of up to this many bytes as float32 are read once.
constexpr int64_t kOnePass = 48 << 10;

template <class T>
void in_one(const GroupNormArguments& p, int64_t bytes) {
  launch<kModule, group_norm_kernel<T>>(Grid{dim3(checked(int64_t(p.batch) * p.groups)), dim3(256), static_cast<size_t>(bytes), false}, p);
}

template <class T>
void in_three(GroupNormArguments p) {
  const int64_t vectors = blocks_for(p.channels, kVector<T>), columns = blocks_for(vectors, 256);
  // Enough pieces to fill the card, none of fewer than 16 pixels.
  const int64_t wanted = 4 * card().multiprocessors / std::max<int64_t>(1, p.batch * columns);
  p.pieces = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(wanted, p.pixels / 16)));
  Tensor moments = Tensor::empty(DType::f32, {p.batch, p.pieces, p.channels, 2}), affine = Tensor::empty(DType::f32, {p.batch, p.channels, 2});
  p.moments = moments.mutable_data<float>();
  p.affine = affine.mutable_data<float>();
  launch<kModule, group_moments_kernel<T>>(Grid{dim3(checked(int64_t(p.batch) * p.pieces), columns), dim3(256), 0, true}, p);
  launch<kModule, group_affine_kernel<T>>(Grid{dim3(checked(int64_t(p.batch) * p.groups)), dim3(128), 0, false}, p);
  launch<kModule, group_apply_kernel<T>>(grid_for(int64_t(p.batch) * p.pixels * vectors), p);
}

/// inputs x, gamma, beta
void group_norm(Call& call) {
  const Tensor& x = call.input(0);
  require(is_float(x.dtype()) && x.shape.rank >= 2, "expects x [batch, ..., channels] of dtype float32");
  const int64_t channels = x.shape[-1], batch = x.shape[0], groups = call.attributes.integer("groups");
  require(groups > 0 && channels % groups == 0, groups, " groups do not divide ", channels, " channels");
  const std::string activation = call.attributes.text("activation", "linear");
  require(activation == "linear" || activation == "silu", "activation must be linear or silu, got ", activation);
  Tensor gamma, beta;
  GroupNormArguments p{};
  p.gamma = parameter_of(call.input(1), "gamma", channels, x.dtype(), &gamma);
  p.beta = parameter_of(call.input(2), "beta", channels, x.dtype(), &beta);
  Tensor& y = call.output(x.dtype(), x.shape);
  if (x.elements() == 0) return;
  p.x = x.raw();
  p.y = y.mutable_raw();
  p.batch = checked(batch), p.pixels = checked(x.elements() / batch / channels), p.channels = checked(channels), p.groups = checked(groups);
  p.epsilon = static_cast<float>(call.attributes.number("epsilon", 1e-5));
  p.silu = activation == "silu";
  p.aligned = rows_aligned(p.x, channels, x.dtype()) && rows_aligned(p.y, channels, x.dtype());
  const int64_t bytes = p.pixels * (channels / groups) * 4;
  by_float(x.dtype(), [&](auto tag) {
    if (bytes <= kOnePass) in_one<decltype(tag)>(p, bytes);
    else in_three<decltype(tag)>(p);
  });
}

RowsArguments rows_of(const Tensor& x, Tensor& y) {
  RowsArguments p{};
  p.x = x.raw();
  p.y = y.mutable_raw();
  p.columns = checked(x.shape[-1]);
  p.rows = checked(x.elements() / p.columns);
  p.aligned = rows_aligned(p.x, p.columns, x.dtype()) && rows_aligned(p.y, p.columns, x.dtype());
  return p;
}
Grid grid_of(const RowsArguments& p) { return {dim3(blocks_for(p.rows, 4)), dim3(128), 0, false}; }

/// inputs x, gamma, beta
void layer_norm(Call& call) {
  const Tensor& x = call.input(0);
  require(is_float(x.dtype()) && x.shape.rank >= 1, "expects x [..., channels] of dtype float32");
  Tensor gamma, beta;
  const Offsets scale = parameter_of(call.input(1), "gamma", x.shape[-1], x.dtype(), &gamma);
  const Offsets offset = parameter_of(call.input(2), "beta", x.shape[-1], x.dtype(), &beta);
  Tensor& y = call.output(x.dtype(), x.shape);
  if (x.elements() == 0) return;
  RowsArguments p = rows_of(x, y);
  p.gamma = scale, p.beta = offset;
  p.epsilon = static_cast<float>(call.attributes.number("epsilon", 1e-5));
  by_float(x.dtype(), [&](auto tag) { launch<kModule, layer_norm_kernel<decltype(tag)>>(grid_of(p), p); });
}

/// inputs x, gamma?
void rms_norm(Call& call) {
  const Tensor& x = call.input(0);
  require(is_float(x.dtype()) && x.shape.rank >= 1, "expects x [..., channels] of dtype float32");
  Tensor gamma;
  Offsets scale{};
  if (call.optional(1)) scale = parameter_of(call.optional(1), "gamma", x.shape[-1], x.dtype(), &gamma);
  Tensor& y = call.output(x.dtype(), x.shape);
  if (x.elements() == 0) return;
  RowsArguments p = rows_of(x, y);
  p.gamma = scale;
  p.epsilon = static_cast<float>(call.attributes.number("epsilon", 1e-6));
  by_float(x.dtype(), [&](auto tag) { launch<kModule, rms_norm_kernel<decltype(tag)>>(grid_of(p), p); });
}

template <bool Logarithm>
void softmax(Call& call) {
  const Tensor x = is_float(call.input(0).dtype()) ? call.input(0) : as_type(call.input(0), DType::f32);
  require(x.shape.rank > 0, "expects at least one dimension");
  Tensor& y = call.output(x.dtype(), x.shape);
  if (x.elements() == 0) return;
  const RowsArguments p = rows_of(x, y);
  by_float(x.dtype(), [&](auto tag) { launch<kModule, softmax_kernel<decltype(tag), Logarithm>>(grid_of(p), p); });
}

/// inputs timesteps
void timestep_embedding(Call& call) {
  const Tensor timesteps = as_type(call.input(0), DType::f32);
  require(timesteps.shape.rank == 1, "expects timesteps [batch]");
  const int64_t dim = call.attributes.integer("dim");
  require(dim > 0 && dim < (1 << 24), "dim must be positive, got ", dim);
  Tensor& y = call.output(DType::f32, {timesteps.shape[0], dim});
  if (y.elements() == 0) return;
  const TimestepArguments p{timesteps.data<float>(), y.mutable_data<float>(), checked(timesteps.shape[0]), checked(dim),
                            std::log(call.attributes.number("maxPeriod", 10000)), call.attributes.number("downscaleFreqShift", 1),
                            static_cast<float>(call.attributes.number("scale", 1)), call.attributes.flag("flipSinToCos")};
  launch<kModule, timestep_embedding_kernel>(grid_for(y.elements()), p);
}

}  // namespace

void register_normalization(Registry& registry) {
  registry.add("GroupNorm", group_norm);
  registry.add("LayerNorm", layer_norm);
  registry.add("RmsNorm", rms_norm);
  registry.add("Softmax", softmax<false>);
  registry.add("LogSoftmax", softmax<true>);
  registry.add("TimestepEmbedding", timestep_embedding);
}

}  // namespace td::cuda

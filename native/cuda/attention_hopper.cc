#include "cuda/attention_hopper.h"

#include <cstdlib>
#include <cstring>

#include "cuda/dispatch.h"
#include "cuda/kernels/attention_hopper.cuh"

namespace td::cuda {
namespace {

constexpr KernelModule kModule{"attention_hopper.cuh"};

/// [batch, head, token, channel], in boxes of 64 channels by `rows` tokens whose rows are swizzled.
TensorMap map_of(const AttentionTensor& x, const AttentionArguments& p, int batch, int tokens, int size, int rows) {
  const unsigned long long dims[4] = {static_cast<unsigned>(size), static_cast<unsigned>(tokens), static_cast<unsigned>(p.heads), static_cast<unsigned>(batch)};
  const unsigned long long strides[3] = {2ull * x.strides.token, 2ull * x.strides.head, 2ull * x.strides.batch};
  const unsigned box[4] = {64, static_cast<unsigned>(rows), 1, 1}, steps[4] = {1, 1, 1, 1};
  TensorMap map{};
  check(driver().tensor_map_encode(&map, kMapFloat16, 4, const_cast<void*>(x.data), dims, strides, box, steps, 0, kMapSwizzle128, kMapPromote256, 0),
        "cuTensorMapEncodeTiled");
  return map;
}

template <class T, int D, int Keys>
bool launch_tile(const AttentionArguments& p, int batch) {
  using Tile = AttentionHopper<T, D, Keys, 2, 4>;
  const int64_t blocks = int64_t(batch) * p.heads * blocks_for(p.queries, Tile::kRows);
  if (Tile::kShared > card().max_shared || blocks >= INT32_MAX) return false;
  const AttentionHopperArguments all{p, map_of(p.q, p, batch, p.queries, p.head_size, 64), map_of(p.k, p, batch, p.keys, p.head_size, Keys),
                                     map_of(p.v, p, batch, p.keys, p.value_size, Keys)};
  launch<kModule, attention_hopper_kernel<Tile>>(Grid{dim3(static_cast<unsigned>(blocks)), dim3(Tile::kThreads), Tile::kShared, false}, all);
  return true;
}

bool switched_off() {
  const char* text = std::getenv("TFJS_DIFFUSERS_CUDA_HOPPER");
  return text && std::strcmp(text, "0") == 0;
}

}  // namespace

template <class T>
bool attention_forward_hopper(const AttentionArguments& p, int batch) {
  const int size = std::max(p.head_size, p.value_size);
  if (card().capability != 90 || switched_off() || p.bias.data || !p.q.aligned || !p.k.aligned || !p.v.aligned || p.keys == 0 || p.value_size == 0) return false;
  if (size <= 40) return launch_tile<T, 40, 128>(p, batch);
  if (size <= 64) return launch_tile<T, 64, 128>(p, batch);
  if (size <= 80) return launch_tile<T, 80, 64>(p, batch);
  if (size <= 96) return launch_tile<T, 96, 64>(p, batch);
  if (size <= 128) return launch_tile<T, 128, 64>(p, batch);
  if (size <= 160) return launch_tile<T, 160, 64>(p, batch);
  return false;
}

template bool attention_forward_hopper<half16>(const AttentionArguments& p, int batch);
template bool attention_forward_hopper<bfloat16>(const AttentionArguments& p, int batch);

}  // namespace td::cuda

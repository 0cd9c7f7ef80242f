#include "cpu/attention/attention.h"

#include <omp.h>

#include <cmath>
#include <cstring>

#include "core/memory.h"
#include "cpu/attention/kernels.h"
#include "cpu/isa.h"

namespace td::attention {
namespace {

bool empty(const Problem& p) { return p.batch == 0 || p.heads == 0 || p.queries == 0; }

void check(const Problem& p) {
  const auto at_least = [](int64_t least, const char* name, int64_t value) {
    require(value >= least, name, " must be at least ", least, ", got ", value);
  };
  at_least(0, "batch", p.batch);
  at_least(0, "heads", p.heads);
  at_least(0, "queries", p.queries);
  at_least(1, "keys", p.keys);
  at_least(1, "head_size", p.head_size);
  at_least(1, "value_size", p.value_size);
  require(std::isfinite(p.scale), "scale must be finite, got ", p.scale);
  require(is_float(p.type), "type must be a float, got ", name_of(p.type));
  require(empty(p) || (p.q && p.k && p.v && p.out), "q, k, v and out must not be null");
}

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

const Kernels& kernels_of(DType type) {
#if TD_X86
  const Isa best = isa();
  if (best == Isa::avx512_bf16 && type == DType::bf16) return *avx512_bf16_kernels();
  if (best >= Isa::avx512) return *avx512_kernels();
  if (best == Isa::avx2) return *avx2_kernels();
#else
  (void)type;
#endif
  return *base_kernels();
}

// Keys per block: enough to pay for loading and storing the running output once per block, while the block's K and V stay in the second
// cache. Depends on the head sizes alone, so that results do not depend on the number of threads.
int64_t key_block(const Problem& p) {
  const int64_t key_bytes = (p.head_size + p.value_size) * 4;
  int64_t block = 512 * 1024 / key_bytes / 16 * 16;
  if (block < 32) block = 32;
  if (block > 128) block = 128;
  return block;
}

int thread_count(int threads) { return threads > 0 ? threads : omp_get_max_threads(); }

Blocking forward_blocking(const Problem& p, int threads) {
  Blocking b;
  b.key_block = key_block(p);
  // Query tiles that share a packed block of keys, so that keys are read and packed less often; every thread should still get work.
  const int64_t tile_bytes = (p.head_size + p.value_size) * kQueryTile * 4;
  const int64_t tiles = divide_up(p.queries, kQueryTile);
  b.query_tiles = least(16, 768 * 1024 / tile_bytes);
  b.query_tiles = least(b.query_tiles, p.batch * p.heads * tiles / (4 * static_cast<int64_t>(threads)));
  b.query_tiles = least(b.query_tiles, tiles);
  if (b.query_tiles < 1) b.query_tiles = 1;
  return b;
}

// Without queries nothing flows back to keys and values.
void clear_key_gradients(const Problem& p, const Gradients& g) {
  const int64_t bytes = p.type == DType::f32 ? 4 : 2;
  const auto clear = [&](void* data, const Strides& s, int64_t size) {
    if (!data) return;
    for (int64_t b = 0; b < p.batch; ++b)
      for (int64_t h = 0; h < p.heads; ++h)
        for (int64_t n = 0; n < p.keys; ++n) {
          char* place = static_cast<char*>(data) + (b * s.batch + h * s.head + n * s.token) * bytes;
          std::memset(place, 0, static_cast<size_t>(size * bytes));
        }
  };
  clear(g.dk, g.dk_strides, p.head_size);
  clear(g.dv, g.dv_strides, p.value_size);
}

}  // namespace

Strides strides_bhnd(int64_t heads, int64_t tokens, int64_t head_size) {
  return {heads * tokens * head_size, tokens * head_size, head_size};
}

Strides strides_tokens(int64_t heads, int64_t tokens, int64_t head_size) {
  return {heads * tokens * head_size, head_size, heads * head_size};
}

size_t forward_scratch(const Problem& p) {
  check(p);
  return kernels_of(p.type).forward_scratch(p, forward_blocking(p, thread_count(0))) * sizeof(float);
}

void forward(const Problem& p, int threads) {
  check(p);
  if (empty(p)) return;
  threads = thread_count(threads);
  const Kernels& kernels = kernels_of(p.type);
  const Blocking blocking = forward_blocking(p, threads);
  const int64_t stretch = blocking.query_tiles * kQueryTile;
  const int64_t stretches = divide_up(p.queries, stretch);
  const int64_t tasks = p.batch * p.heads * stretches;
  if (threads > tasks) threads = static_cast<int>(tasks);
  const size_t each = (kernels.forward_scratch(p, blocking) + 15) / 16 * 16;
  const Buffer scratch(each * static_cast<size_t>(threads) * sizeof(float));
  float* const base = static_cast<float*>(scratch.data());
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < tasks; ++i) {
    const int64_t head = i / stretches, begin = i % stretches * stretch;
    const int64_t end = least(begin + stretch, p.queries);
    const ForwardTask task = {&p, blocking, head / p.heads, head % p.heads, begin, end};
    kernels.forward(task, base + each * static_cast<size_t>(omp_get_thread_num()));
  }
}

void backward(const Problem& p, const Gradients& g, int threads) {
  check(p);
  if (!g.dq && !g.dk && !g.dv) return;
  if (empty(p)) return clear_key_gradients(p, g);
  require(g.dy, "dy must not be null");
  require(p.lse, "the backward pass needs the lse of the forward pass");
  threads = thread_count(threads);
  const Kernels& kernels = kernels_of(p.type);
  const Blocking blocking = {key_block(p), 1};
  const int64_t heads = p.batch * p.heads;
  const bool keys = g.dk || g.dv, queries = g.dq;

  // Whole heads compute the scores once; pieces compute them once for dk, dv and once more for dq, but there are more of them.
  const bool whole_heads = keys && queries && (threads == 1 || heads % threads == 0 || heads >= 4 * threads);
  const int64_t key_pieces = keys && !whole_heads ? divide_up(p.keys, blocking.key_block) : 0;
  const int64_t query_pieces = queries && !whole_heads ? divide_up(p.queries, kQueryTile) : 0;
  const int64_t pieces = whole_heads ? 1 : key_pieces + query_pieces;
  const int64_t tasks = heads * pieces;
  if (threads > tasks) threads = static_cast<int>(tasks);

  const size_t each = (kernels.backward_scratch(p, blocking, whole_heads) + 15) / 16 * 16;
  const Buffer scratch(each * static_cast<size_t>(threads) * sizeof(float));
  const Buffer delta(static_cast<size_t>(heads * p.queries) * sizeof(float));
  float* const base = static_cast<float*>(scratch.data());
  float* const sums = static_cast<float*>(delta.data());
  const auto task_of = [&](int64_t head) {
    return BackwardTask{&p, &g, sums, blocking, head / p.heads, head % p.heads, 0, p.queries, 0, p.keys};
  };
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    float* const mine = base + each * static_cast<size_t>(omp_get_thread_num());
#pragma omp for schedule(static)
    for (int64_t head = 0; head < heads; ++head) kernels.delta(task_of(head), sums + head * p.queries, mine);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < tasks; ++i) {
      BackwardTask task = task_of(i / pieces);
      const int64_t piece = i % pieces;
      if (whole_heads) {
        kernels.backward_head(task, mine);
      } else if (piece < key_pieces) {
        task.key_begin = piece * blocking.key_block;
        task.key_end = least(task.key_begin + blocking.key_block, p.keys);
        kernels.backward_keys(task, mine);
      } else {
        task.query_begin = (piece - key_pieces) * kQueryTile;
        task.query_end = least(task.query_begin + kQueryTile, p.queries);
        kernels.backward_queries(task, mine);
      }
    }
  }
}

}  // namespace td::attention

#include "attention.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <sstream>
#include <stdexcept>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "attention_kernels.h"
#include "attention_target.h"
#include "core/memory.h"

namespace tfjs_diffusers {

using attention_detail::BackwardTask;
using attention_detail::Blocking;
using attention_detail::ForwardTask;
using attention_detail::Kernels;
using attention_detail::kQueryTile;

namespace {

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  message << "[attention] ";
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

void check(const AttentionProblem& p) {
  const auto positive = [](const char* name, int64_t value) {
    if (value <= 0) fail(name, " must be at least 1, got ", value);
  };
  const auto not_negative = [](const char* name, int64_t value) {
    if (value < 0) fail(name, " must not be negative, got ", value);
  };
  not_negative("batch", p.batch);
  not_negative("heads", p.heads);
  not_negative("queries", p.queries);
  positive("keys", p.keys);
  positive("head_size", p.head_size);
  positive("value_size", p.value_size);
  if (!std::isfinite(p.scale)) fail("scale must be finite, got ", p.scale);
  if (p.type != AttentionType::f32 && p.type != AttentionType::bf16 && p.type != AttentionType::f16) {
    fail("type must be f32, bf16 or f16, got ", static_cast<int>(p.type));
  }
  if (p.batch == 0 || p.heads == 0 || p.queries == 0) return;
  if (!p.q || !p.k || !p.v || !p.out) fail("q, k, v and out must not be null");
}

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

bool empty(const AttentionProblem& p) { return p.batch == 0 || p.heads == 0 || p.queries == 0; }

std::atomic<AttentionIsa> forced_isa{AttentionIsa::automatic};

const Kernels* kernels_of(AttentionIsa isa, AttentionType type) {
#if ATTENTION_X86
  if (isa == AttentionIsa::avx512_bf16 && type == AttentionType::bf16) return attention_detail::avx512_bf16_kernels();
  if (isa >= AttentionIsa::avx512) return attention_detail::avx512_kernels();
  if (isa == AttentionIsa::avx2) return attention_detail::avx2_kernels();
#else
  (void)isa, (void)type;
#endif
  return attention_detail::scalar_kernels();
}

// Keys per block: enough to pay for loading and storing the running output once per block, while the block's K and V stay in the second
// cache. Depends on the head sizes alone, so that results do not depend on the number of threads.
int64_t key_block(const AttentionProblem& p) {
  const int64_t key_bytes = (p.head_size + p.value_size) * 4;
  int64_t block = 512 * 1024 / key_bytes / 16 * 16;
  if (block < 32) block = 32;
  if (block > 128) block = 128;
  return block;
}

int thread_count(int threads) {
#if defined(_OPENMP)
  return threads > 0 ? threads : omp_get_max_threads();
#else
  (void)threads;
  return 1;
#endif
}

int thread_index() {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}

Blocking forward_blocking(const AttentionProblem& p, int threads) {
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
void clear_key_gradients(const AttentionProblem& p, const AttentionGradients& g) {
  const int64_t bytes = p.type == AttentionType::f32 ? 4 : 2;
  const auto clear = [&](void* data, const AttentionStrides& s, int64_t size) {
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

AttentionStrides attention_strides_bhnd(int64_t heads, int64_t tokens, int64_t head_size) {
  return {heads * tokens * head_size, tokens * head_size, head_size};
}

AttentionStrides attention_strides_tokens(int64_t heads, int64_t tokens, int64_t head_size) {
  return {heads * tokens * head_size, head_size, heads * head_size};
}

AttentionIsa attention_detect_isa() {
  static const AttentionIsa best = [] {
#if ATTENTION_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (avx512 && __builtin_cpu_supports("avx512bf16")) return AttentionIsa::avx512_bf16;
    if (avx512) return AttentionIsa::avx512;
    if (avx2) return AttentionIsa::avx2;
#endif
    return AttentionIsa::scalar;
  }();
  return best;
}

AttentionIsa attention_isa() {
  const AttentionIsa forced = forced_isa.load(std::memory_order_relaxed);
  return forced == AttentionIsa::automatic ? attention_detect_isa() : forced;
}

const char* attention_isa_name(AttentionIsa isa) {
  switch (isa) {
    case AttentionIsa::automatic: return "automatic";
    case AttentionIsa::scalar: return "scalar";
    case AttentionIsa::avx2: return "avx2";
    case AttentionIsa::avx512: return "avx512";
    case AttentionIsa::avx512_bf16: return "avx512_bf16";
  }
  return "unknown";
}

void set_attention_isa(AttentionIsa isa) {
  if (isa > attention_detect_isa()) {
    fail("this machine has no ", attention_isa_name(isa), ", its best is ", attention_isa_name(attention_detect_isa()));
  }
  forced_isa.store(isa, std::memory_order_relaxed);
}

size_t attention_forward_scratch(const AttentionProblem& p) {
  check(p);
  return kernels_of(attention_isa(), p.type)->forward_scratch(p, forward_blocking(p, thread_count(0))) * sizeof(float);
}

void attention_forward(const AttentionProblem& p, int threads) {
  check(p);
  if (empty(p)) return;
  threads = thread_count(threads);
  const Kernels& kernels = *kernels_of(attention_isa(), p.type);
  const Blocking blocking = forward_blocking(p, threads);
  const int64_t stretch = blocking.query_tiles * kQueryTile;
  const int64_t stretches = divide_up(p.queries, stretch);
  const int64_t tasks = p.batch * p.heads * stretches;
  if (threads > tasks) threads = static_cast<int>(tasks);
  const size_t each = (kernels.forward_scratch(p, blocking) + 15) / 16 * 16;
  const td::Buffer scratch(each * static_cast<size_t>(threads) * sizeof(float));
  float* const base = static_cast<float*>(scratch.data());
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < tasks; ++i) {
    const int64_t head = i / stretches, begin = i % stretches * stretch;
    const int64_t end = least(begin + stretch, p.queries);
    const ForwardTask task = {&p, blocking, head / p.heads, head % p.heads, begin, end};
    kernels.forward(task, base + each * static_cast<size_t>(thread_index()));
  }
}

void attention_backward(const AttentionProblem& p, const AttentionGradients& g, int threads) {
  check(p);
  if (!g.dq && !g.dk && !g.dv) return;
  if (empty(p)) return clear_key_gradients(p, g);
  if (!g.dy) fail("dy must not be null");
  if (!p.lse) fail("the backward pass needs the lse of the forward pass");
  threads = thread_count(threads);
  const Kernels& kernels = *kernels_of(attention_isa(), p.type);
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
  const td::Buffer scratch(each * static_cast<size_t>(threads) * sizeof(float));
  const td::Buffer delta(static_cast<size_t>(heads * p.queries) * sizeof(float));
  float* const base = static_cast<float*>(scratch.data());
  float* const sums = static_cast<float*>(delta.data());
  const auto task_of = [&](int64_t head) {
    return BackwardTask{&p, &g, sums, blocking, head / p.heads, head % p.heads, 0, p.queries, 0, p.keys};
  };
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    float* const mine = base + each * static_cast<size_t>(thread_index());
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

}  // namespace tfjs_diffusers

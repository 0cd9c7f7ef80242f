// Internal interface between attention.cc (validation, threads) and the kernels built once per instruction set.
#pragma once

#include "cpu/attention/attention.h"

namespace td::attention {

// Queries whose scores are held at once. A tile of scores is [block of keys][kQueryTile], so that a vector runs over queries: the
// maximum and the sum over keys are then vertical, and no head size wastes lanes.
constexpr int kQueryTile = 64;

struct Blocking {
  int64_t key_block;    // keys per block; even, depends on the head sizes alone so that results never depend on threads
  int64_t query_tiles;  // query tiles that share one packed block of keys
};

struct ForwardTask {
  const Problem* problem;
  Blocking blocking;
  int64_t batch, head;
  int64_t query_begin, query_end;  // at most blocking.query_tiles * kQueryTile
};

// delta [B,H,Nq]: sum over the head of dy * out (FlashAttention, section B.2).
struct BackwardTask {
  const Problem* problem;
  const Gradients* gradients;
  const float* delta;
  Blocking blocking;
  int64_t batch, head;
  int64_t query_begin, query_end;
  int64_t key_begin, key_end;
};

// Scratch functions return floats for one thread; run functions take that much, 64-byte aligned.
struct Kernels {
  size_t (*forward_scratch)(const Problem&, const Blocking&);
  void (*forward)(const ForwardTask&, float* scratch);

  void (*delta)(const BackwardTask&, float* delta, float* scratch);
  size_t (*backward_scratch)(const Problem&, const Blocking&, bool whole_head);
  // One head at once: dq, dk, dv from one computation of the scores.
  void (*backward_head)(const BackwardTask&, float* scratch);
  // The same numbers in independent pieces: dk and dv of a range of keys, dq of a range of queries.
  void (*backward_keys)(const BackwardTask&, float* scratch);
  void (*backward_queries)(const BackwardTask&, float* scratch);
};

const Kernels* base_kernels();
const Kernels* avx2_kernels();         // x86-64 only
const Kernels* avx512_kernels();       // x86-64 only
const Kernels* avx512_bf16_kernels();  // x86-64 only; bfloat16 problems

}  // namespace td::attention

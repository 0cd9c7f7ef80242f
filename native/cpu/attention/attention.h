// Memory-efficient (flash) attention for CPUs: softmax(scale * Q K^T + bias) V, forward and backward, without an N x N tensor.
// Online softmax after Milakov & Gimelshein (2018) and FlashAttention (Dao et al., 2022): a block of queries walks over blocks of
// keys, keeping a running maximum and sum per query.
#pragma once

#include "core/tensor.h"

namespace td::attention {

// Distances in elements (not bytes). The head_size elements of one token of one head are contiguous.
//   [B,H,N,d]        batch = H*N*d, head = N*d, token = d
//   [B,N,H*d]        batch = N*H*d, head = d,   token = H*d
//   packed [B,N,3*H*d]: q, k, v point at offsets 0, H*d, 2*H*d; batch = N*3*H*d, head = d, token = 3*H*d
struct Strides {
  int64_t batch = 0;
  int64_t head = 0;
  int64_t token = 0;
};

// Zero along each axis over which the bias is broadcast.
struct BiasStrides {
  int64_t batch = 0;
  int64_t head = 0;
  int64_t query = 0;
  int64_t key = 0;
};

struct Problem {
  DType type = DType::f32;  // of q, k, v, out and of every gradient: a float

  int64_t batch = 0;
  int64_t heads = 0;
  int64_t queries = 0;     // Nq
  int64_t keys = 0;        // Nk
  int64_t head_size = 0;   // d, of q and k
  int64_t value_size = 0;  // dv, of v and out
  float scale = 1.0f;

  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  const float* bias = nullptr;  // optional; added to scale * Q K^T; -inf masks a key
  void* out = nullptr;
  float* lse = nullptr;  // [B,H,Nq] dense, natural logarithm of the sum of exponentials; optional in the forward pass

  Strides q_strides;
  Strides k_strides;
  Strides v_strides;
  Strides out_strides;
  BiasStrides bias_strides;
};

// Gradients of q, k and v; dy is the gradient of out. A null dq, dk or dv is not computed.
struct Gradients {
  const void* dy = nullptr;
  void* dq = nullptr;
  void* dk = nullptr;
  void* dv = nullptr;

  Strides dy_strides;
  Strides dq_strides;
  Strides dk_strides;
  Strides dv_strides;
};

// Writes out and, when asked, lse; neither may overlap the inputs. threads <= 0 takes OpenMP's number. The result does not depend on the number of threads.
// Throws KernelError for a problem that makes no sense and OutOfMemory when there is no scratch memory.
// A query whose every key is masked gives 0 and a log-sum-exp of -inf, as torch's scaled_dot_product_attention does (and its gradients
// are 0); other non-finite inputs spread as they do through softmax(Q K^T) V.
void forward(const Problem& problem, int threads = 0);

// Writes dq, dk and dv; reads problem.out and problem.lse as the forward pass left them. Same guarantees as the forward pass. Beside
// blocks of a fixed size it holds one float per query and, per thread, at most the float32 dq of one head.
void backward(const Problem& problem, const Gradients& gradients, int threads = 0);

// Strides of a contiguous tensor of rank 4 [B,H,N,d] and of packed tokens of rank 3 [B,N,H*d].
Strides strides_bhnd(int64_t heads, int64_t tokens, int64_t head_size);
Strides strides_tokens(int64_t heads, int64_t tokens, int64_t head_size);

// Bytes of scratch memory one thread of the forward pass needs; independent of the numbers of queries and keys above one block.
size_t forward_scratch(const Problem& problem);

}  // namespace td::attention

#pragma once
#include "cuda/kernels/attention.cuh"

namespace td::cuda {

/// Launches the kernel for Hopper; false where it does not do this attention: on other cards, with a bias, for heads of more than 160
/// channels, for rows that are no multiples of 16 bytes, and when TFJS_DIFFUSERS_CUDA_HOPPER is 0.
template <class T>
bool attention_forward_hopper(const AttentionArguments& p, int batch);

}  // namespace td::cuda

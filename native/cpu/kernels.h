#pragma once
#include "core/kernel.h"

/// One function per file of kernels: adds them to the registry under their tfjs names.
namespace td {

void register_elementwise(Registry& registry);
void register_data_movement(Registry& registry);
void register_reduction(Registry& registry);
void register_indexing(Registry& registry);
void register_creation(Registry& registry);
void register_resize(Registry& registry);
void register_matmul(Registry& registry);
void register_convolution(Registry& registry);
void register_convolution_backward(Registry& registry);
void register_normalization(Registry& registry);
void register_attention(Registry& registry);

}  // namespace td

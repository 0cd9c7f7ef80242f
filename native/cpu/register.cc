#include "cpu/kernels.h"

namespace td {

void register_cpu_kernels() {
  Registry& registry = Registry::instance();
  if (registry.size() > 0) return;
  register_elementwise(registry);
  register_data_movement(registry);
  register_reduction(registry);
  register_indexing(registry);
  register_creation(registry);
  register_resize(registry);
  register_matmul(registry);
  register_convolution(registry);
  register_normalization(registry);
  register_attention(registry);
}

}  // namespace td

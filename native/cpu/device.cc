#include "core/device.h"

#include <omp.h>

#include <memory>

#include "cpu/convert.h"
#include "cpu/dnnl_api.h"
#include "cpu/isa.h"
#include "cpu/kernels.h"
#include "cpu/pool.h"
#include "cpu/strided.h"

/// The processor: tensors lie in the memory of the process.
namespace td {

Device& device() {
  static Device instance;
  return instance;
}

std::string Device::problem() { return ""; }

Description Device::describe() {
  const Isa best = detected_isa();
  const dnnl_version_t* version = dnnl_version();
  const std::string one_dnn =
      std::to_string(version->major) + "." + std::to_string(version->minor) + "." + std::to_string(version->patch);
  const int threads = omp_get_max_threads();
  const char* has[] = {"no AVX2", "AVX2", "AVX2, AVX-512", "AVX2, AVX-512, AVX-512 BF16"};
  Description result{{"detail", "oneDNN " + one_dnn + ", " + std::to_string(threads) + " threads, " + has[static_cast<int>(best)]},
                     {"oneDnn", one_dnn},
                     {"loops", std::string(name_of(isa()))},
                     {"threads", static_cast<double>(threads)},
                     {"avx2", best >= Isa::avx2},
                     {"avx512", best >= Isa::avx512},
                     {"avx512Bf16", best >= Isa::avx512_bf16}};
  if (best < Isa::avx512_bf16) {
    const char* advice =
        best == Isa::avx512 ? "a processor with AVX-512 BF16 computes bfloat16 about twice as fast as float32; here use float32"
                   : "a processor with AVX-512 is about twice as fast; bfloat16 saves memory here but no time";
    result.emplace_back("advice", std::string(advice));
  }
  return result;
}

void Device::register_kernels(Registry& registry) {
  register_elementwise(registry);
  register_data_movement(registry);
  register_reduction(registry);
  register_indexing(registry);
  register_creation(registry);
  register_resize(registry);
  register_matmul(registry);
  register_convolution(registry);
  register_convolution_backward(registry);
  register_normalization(registry);
  register_attention(registry);
}

void Device::set_threads(int threads) { omp_set_num_threads(threads); }

void* Device::allocate(size_t bytes, Purpose purpose, size_t* capacity) {
  return MemoryPool::instance().allocate(bytes, purpose, capacity);
}

void Device::release(void* block, size_t capacity, Purpose purpose) { MemoryPool::instance().release(block, capacity, purpose); }

MemoryInfo Device::memory() { return MemoryPool::instance().info(); }

void Device::reset_peak() { MemoryPool::instance().reset_peak(); }

void Device::set_limit(size_t bytes) { MemoryPool::instance().set_limit(bytes); }

void Device::trim() { MemoryPool::instance().trim(); }

void Device::upload(const void* bytes, DType from, const Shape& shape, const Permutation* permutation, Storage& to) {
  void* target = to.plain->data();
  if (!permutation) return convert(from, bytes, to.dtype, target, to.elements);
  int64_t strides[kMaxRank], from_strides[kMaxRank], to_strides[kMaxRank];
  contiguous_strides(shape, strides);
  Shape permuted;
  for (int i = 0; i < shape.rank; ++i) {
    from_strides[i] = strides[(*permutation)[i]];
    permuted.push(shape.dims[(*permutation)[i]]);
  }
  contiguous_strides(permuted, to_strides);
  std::unique_ptr<Buffer> converted;
  if (from != to.dtype) {
    converted = std::make_unique<Buffer>(static_cast<size_t>(to.elements) * size_of(to.dtype));
    convert(from, bytes, to.dtype, converted->data(), to.elements);
    bytes = converted->data();
  }
  strided_copy(size_of(to.dtype), permuted, bytes, from_strides, target, to_strides);
}

void Device::download(const Storage& from, DType type, void* to) { begin_download(from, type, to)(); }

std::function<void()> Device::begin_download(const Storage& from, DType type, void* to) {
  return [plain = from.plain_buffer(), dtype = from.dtype, count = from.elements, type, to] {
    convert(dtype, plain->data(), type, to, count);
  };
}

}  // namespace td

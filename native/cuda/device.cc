#include "core/device.h"

#include "cuda/dispatch.h"
#include "cuda/kernels.h"
#include "cuda/libraries.h"
#include "cuda/memory.h"
#include "cuda/transfer.h"

/// The GPU: tensors lie in its memory, kernels run in its compute stream.
namespace td {

using namespace cuda;

namespace {

std::string version_text(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

std::string capability_text(int capability) { return std::to_string(capability / 10) + "." + std::to_string(capability % 10); }

Storage& check_type(Storage& storage) {
  require(storage.dtype != DType::bf16 || card().capability >= 80, card().name, " has no bfloat16 (compute capability ",
          capability_text(card().capability), " is below 8.0); use float16");
  return storage;
}

}  // namespace

Device& device() {
  static Device instance;
  return instance;
}

std::string Device::problem() { return card_problem(); }

Description Device::describe() {
  constexpr int kPackedBy = 13000;  // a driver that is older than CUDA 13 refuses the images of the package
  const Card& c = card();
  const std::string capability = capability_text(c.capability), cuda = version_text(driver().version);
  const std::string gigabytes = std::to_string((c.memory + (size_t{1} << 29)) >> 30);
  const Library& nvrtc = nvrtc_library();
  Description result{{"detail", c.name + ", " + gigabytes + " GiB, compute capability " + capability + ", driver for CUDA " + cuda},
                     {"threads", 1.0},
                     {"device", c.name},
                     {"computeCapability", capability},
                     {"cuda", cuda},
                     {"driver", driver().path},
                     {"nvrtc", nvrtc ? nvrtc.path : nvrtc.problem}};
  if (!nvrtc && driver().version < kPackedBy) {
    result.emplace_back("advice", "this driver is older than CUDA 13, so that kernels are compiled here: " + nvrtc.problem);
  }
  return result;
}

void Device::register_kernels(Registry& registry) {
  register_elementwise(registry);
  register_movement(registry);
  register_reduction(registry);
  register_indexing(registry);
  register_creation(registry);
  register_resize(registry);
  register_matmul(registry);
  register_convolution(registry);
  register_normalization(registry);
  register_attention(registry);
}

/// No kernel of this device uses threads of the host.
void Device::set_threads(int) {}

void* Device::allocate(size_t bytes, Purpose purpose, size_t* capacity) { return DeviceMemory::instance().allocate(bytes, purpose, capacity); }

void Device::release(void* block, size_t capacity, Purpose purpose) { DeviceMemory::instance().release(block, capacity, purpose); }

MemoryInfo Device::memory() { return DeviceMemory::instance().info(); }

void Device::reset_peak() { DeviceMemory::instance().reset_peak(); }

void Device::set_limit(size_t bytes) { DeviceMemory::instance().set_limit(bytes); }

void Device::trim() { DeviceMemory::instance().trim(); }

void Device::upload(const void* bytes, DType from, const Shape& shape, const Permutation* permutation, Storage& to) {
  check_type(to);
  void* target = to.plain->data();
  if (from == to.dtype && !permutation) return send(bytes, target, to.elements * size_of(from));
  const Tensor raw = upload_tensor(from, shape, bytes);
  if (!permutation) return convert(from, raw.raw(), to.dtype, target, to.elements);
  const Tensor numbers = as_type(raw, to.dtype);
  int64_t strides[kMaxRank], from_strides[kMaxRank], to_strides[kMaxRank];
  contiguous_strides(shape, strides);
  Shape permuted;
  for (int i = 0; i < shape.rank; ++i) {
    from_strides[i] = strides[(*permutation)[i]];
    permuted.push(shape.dims[(*permutation)[i]]);
  }
  contiguous_strides(permuted, to_strides);
  strided_copy(to.dtype, permuted, numbers.raw(), from_strides, target, to_strides);
}

void Device::download(const Storage& from, DType type, void* to) { begin_download(from, type, to)(); }

std::function<void()> Device::begin_download(const Storage& from, DType type, void* to) {
  require_no_capture("reading a tensor");
  BufferPtr numbers = from.plain_buffer();
  if (from.dtype != type) {
    const auto converted = std::make_shared<Buffer>(from.elements * size_of(type));
    convert(from.dtype, numbers->data(), type, converted->data(), from.elements);
    numbers = converted;
  }
  return begin_receive(numbers, numbers->data(), to, from.elements * size_of(type));
}

namespace cuda {

Tensor upload_tensor(DType type, const Shape& shape, const void* numbers) {
  Tensor y = Tensor::empty(type, shape);
  send(numbers, y.mutable_raw(), y.bytes());
  return y;
}

void fetch(const void* from, void* to, size_t bytes) { begin_receive(nullptr, from, to, bytes)(); }

}  // namespace cuda
}  // namespace td

#include "core/memory.h"

#include "core/device.h"

namespace td {

Buffer::Buffer(size_t bytes, Purpose purpose) : bytes_(bytes), purpose_(purpose) {
  data_ = device().allocate(bytes, purpose, &capacity_);
}
Buffer::~Buffer() {
  if (owned_) device().release(data_, capacity_, purpose_);
}

}  // namespace td

// Memory for kernels under test whose last byte touches a page that nobody may read or write; unwritten numbers are NaN.
#pragma once
#include <sys/mman.h>

#include <cstring>
#include <vector>

namespace td::cuda::test {

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) {
    const size_t bytes = count * sizeof(T);
    length_ = (bytes + kPage - 1) / kPage * kPage + kPage;
    map_ = static_cast<char*>(mmap(nullptr, length_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(map_ + length_ - kPage, kPage, PROT_NONE);
    data_ = reinterpret_cast<T*>(map_ + length_ - kPage - bytes);
    std::memset(static_cast<void*>(data_), 0xff, bytes);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) { std::memcpy(data_, values.data(), count_ * sizeof(T)); }
  DeviceArray(const DeviceArray&) = delete;
  ~DeviceArray() { munmap(map_, length_); }

  T* data() { return data_; }
  size_t size() const { return count_; }
  T& operator[](size_t i) { return data_[i]; }
  std::vector<T> values() const { return {data_, data_ + count_}; }

 private:
  static constexpr size_t kPage = 4096;
  char* map_;
  T* data_;
  size_t count_, length_;
};

}  // namespace td::cuda::test

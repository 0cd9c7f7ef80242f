// Cuts one thread's scratch memory into aligned pieces; with a null base it only measures.
#pragma once

#include <cstddef>
#include <cstdint>

namespace td::attention {
namespace {

class Scratch {
 public:
  explicit Scratch(float* base) : base_(base) {}

  float* take(int64_t floats) {
    float* piece = base_ ? base_ + used_ : nullptr;
    used_ += (static_cast<size_t>(floats) + 15) / 16 * 16;
    return piece;
  }

  size_t used() const { return used_; }

 private:
  float* base_;
  size_t used_ = 0;
};

}  // namespace
}  // namespace td::attention

#pragma once
#include <cmath>
#include <memory>
#include <vector>

#include "core/kernel.h"

namespace td::napi {

/// Doubles of the array that arguments and results of kernels travel through.
constexpr size_t kExchange = 1 << 15;

/// What one JavaScript environment holds; worker threads have their own. Tensors are numbers there: handles, which count how
/// often their slot was used, so that one that was disposed is known as such.
class Instance {
 public:
  double add(StoragePtr storage) {
    uint32_t index;
    if (free_.empty()) {
      index = static_cast<uint32_t>(slots_.size());
      slots_.emplace_back();
    } else {
      index = free_.back();
      free_.pop_back();
    }
    slots_[index].storage = std::move(storage);
    return index * kGenerations + slots_[index].generation;
  }
  /// Valid until a tensor is added.
  const StoragePtr& get(double handle) { return slot(handle).storage; }
  void remove(double handle) {
    Slot& found = slot(handle);
    found.storage.reset();
    found.generation = (found.generation + 1) % static_cast<uint32_t>(kGenerations);
    free_.push_back(static_cast<uint32_t>(&found - slots_.data()));
  }

  /// Shared with the JavaScript array, which a script may give to another thread: the last of the two frees it.
  std::shared_ptr<double[]> exchange{new double[kExchange]()};
  /// Kept from call to call with its vectors.
  Call call;

 private:
  struct Slot {
    StoragePtr storage;
    uint32_t generation = 0;
  };
  static constexpr double kGenerations = 1 << 20;

  Slot& slot(double handle) {
    const double index = std::floor(handle / kGenerations);
    require(handle >= 0 && index < static_cast<double>(slots_.size()), "tensor handle ", handle, " was never given out");
    Slot& found = slots_[static_cast<size_t>(index)];
    require(found.storage && found.generation == handle - index * kGenerations, "tensor handle ", handle, " was disposed");
    return found;
  }

  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
};

}  // namespace td::napi

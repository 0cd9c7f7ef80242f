#pragma once
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/tensor.h"

namespace td {

/// The named attributes of one kernel call; a missing or wrongly typed one is a KernelError.
class Attributes {
 public:
  using Value = std::variant<double, bool, std::string, std::vector<double>>;

  void set(std::string name, Value value) { values_.emplace_back(std::move(name), std::move(value)); }
  bool has(const char* name) const { return find(name) != nullptr; }
  double number(const char* name) const;
  double number(const char* name, double otherwise) const { return has(name) ? number(name) : otherwise; }
  int64_t integer(const char* name) const;
  int64_t integer(const char* name, int64_t otherwise) const { return has(name) ? integer(name) : otherwise; }
  bool flag(const char* name, bool otherwise = false) const;
  std::string text(const char* name) const;
  std::string text(const char* name, const char* otherwise) const { return has(name) ? text(name) : otherwise; }
  /// Nested arrays come flattened.
  std::vector<int64_t> integers(const char* name) const;
  std::vector<double> numbers(const char* name) const;
  Shape shape(const char* name) const;

 private:
  const Value* find(const char* name) const;
  std::vector<std::pair<std::string, Value>> values_;
};

/// One call of a kernel: inputs by position, absent optional ones empty.
struct Call {
  std::vector<Tensor> inputs;
  Attributes attributes;
  std::vector<Tensor> outputs;

  /// The input at `position`, which has to be there.
  const Tensor& input(size_t position) const;
  /// The same, or an empty tensor.
  const Tensor& optional(size_t position) const;
  Tensor& output(DType type, const Shape& shape) {
    outputs.push_back(Tensor::empty(type, shape));
    return outputs.back();
  }
};

using KernelFunction = void (*)(Call&);

/// Kernels by name; filled once by the device.
class Registry {
 public:
  static Registry& instance();
  void add(const char* name, KernelFunction function);
  /// -1 when there is none.
  int find(const std::string& name) const;
  int size() const { return static_cast<int>(entries_.size()); }
  const std::string& name(int id) const { return entries_[id].first; }
  /// Runs the kernel; a KernelError names it and its inputs.
  void run(int id, Call& call) const;

 private:
  std::vector<std::pair<std::string, KernelFunction>> entries_;
};

}  // namespace td

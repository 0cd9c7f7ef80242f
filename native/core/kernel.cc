#include "core/kernel.h"

namespace td {

const Attributes::Value* Attributes::find(const char* name) const {
  for (const auto& entry : values_)
    if (entry.first == name) return &entry.second;
  return nullptr;
}

double Attributes::number(const char* name) const {
  const Value* value = find(name);
  require(value, "attribute '", name, "' is missing");
  if (const double* number = std::get_if<double>(value)) return *number;
  if (const bool* flag = std::get_if<bool>(value)) return *flag;
  fail("attribute '", name, "' must be a number");
}

int64_t Attributes::integer(const char* name) const {
  const double value = number(name);
  require(std::floor(value) == value && std::fabs(value) < 9e15, "attribute '", name, "' must be an integer, got ", value);
  return static_cast<int64_t>(value);
}

bool Attributes::flag(const char* name, bool otherwise) const {
  const Value* value = find(name);
  if (!value) return otherwise;
  if (const bool* flag = std::get_if<bool>(value)) return *flag;
  fail("attribute '", name, "' must be a boolean");
}

std::string Attributes::text(const char* name) const {
  const Value* value = find(name);
  require(value, "attribute '", name, "' is missing");
  if (const std::string* text = std::get_if<std::string>(value)) return *text;
  fail("attribute '", name, "' must be a string");
}

std::vector<double> Attributes::numbers(const char* name) const {
  const Value* value = find(name);
  require(value, "attribute '", name, "' is missing");
  if (const std::vector<double>* list = std::get_if<std::vector<double>>(value)) return *list;
  fail("attribute '", name, "' must be an array of numbers");
}

std::vector<int64_t> Attributes::integers(const char* name) const {
  std::vector<int64_t> result;
  for (double value : numbers(name)) {
    require(std::floor(value) == value && std::fabs(value) < 9e15, "attribute '", name, "' must hold integers, got ", value);
    result.push_back(static_cast<int64_t>(value));
  }
  return result;
}

Shape Attributes::shape(const char* name) const {
  Shape shape;
  for (int64_t dim : integers(name)) {
    require(dim >= 0, "attribute '", name, "' must not hold negative numbers, got ", dim);
    shape.push(dim);
  }
  return shape;
}

const Tensor& Call::input(size_t position) const {
  require(position < inputs.size() && inputs[position], "input ", position, " is missing");
  return inputs[position];
}

const Tensor& Call::optional(size_t position) const {
  static const Tensor none;
  return position < inputs.size() ? inputs[position] : none;
}

Registry& Registry::instance() {
  static Registry registry;
  return registry;
}

void Registry::add(const char* name, KernelFunction function) { entries_.emplace_back(name, function); }

int Registry::find(const std::string& name) const {
  for (size_t i = 0; i < entries_.size(); ++i)
    if (entries_[i].first == name) return static_cast<int>(i);
  return -1;
}

namespace {
std::string describe(const Call& call) {
  std::string text;
  for (const Tensor& input : call.inputs) text += (text.empty() ? "" : ", ") + input.text();
  return text.empty() ? "" : " (inputs: " + text + ")";
}
}  // namespace

void Registry::run(int id, Call& call) const {
  require(id >= 0 && id < size(), "there is no kernel with number ", id);
  const auto& entry = entries_[id];
  const auto prefix = [&] { return "[" + entry.first + "] "; };
  try {
    entry.second(call);
  } catch (const OutOfMemory& error) {
    throw OutOfMemory(prefix() + error.what() + describe(call));
  } catch (const std::bad_alloc&) {
    throw OutOfMemory(prefix() + "the system refuses more memory" + describe(call));
  } catch (const std::exception& error) {
    throw KernelError(prefix() + error.what() + describe(call));
  }
}

}  // namespace td

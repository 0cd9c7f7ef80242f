#include "napi/arguments.h"

#include <cmath>

namespace td::napi {
namespace {

std::string text(napi_env env, napi_value value) {
  size_t length = 0;
  require(napi_get_value_string_utf8(env, value, nullptr, 0, &length) == napi_ok, "expects a string");
  std::string result(length, '\0');
  check(napi_get_value_string_utf8(env, value, result.data(), length + 1, &length));
  return result;
}

/// Nested arrays are flattened. `visited` counts what is looked at: arrays that hold one another have no end.
void append_numbers(napi_env env, napi_value array, std::vector<double>* to, size_t* visited, int depth) {
  uint32_t length = 0;
  require(depth < 4 && napi_get_array_length(env, array, &length) == napi_ok, "expects an array of numbers");
  for (uint32_t i = 0; i < length; ++i) {
    require(++*visited <= kMaxNumbers, "an array of numbers holds at most ", kMaxNumbers);
    napi_handle_scope scope;
    check(napi_open_handle_scope(env, &scope));
    napi_value item;
    double value = 0;
    const napi_status got = napi_get_element(env, array, i, &item);
    try {
      check(got);
      if (napi_get_value_double(env, item, &value) == napi_ok) {
        to->push_back(value);
      } else {
        append_numbers(env, item, to, visited, depth + 1);
      }
    } catch (...) {
      napi_close_handle_scope(env, scope);
      throw;
    }
    check(napi_close_handle_scope(env, scope));
  }
}

std::vector<double> numbers_of(napi_env env, napi_value array) {
  std::vector<double> result;
  size_t visited = 0;
  append_numbers(env, array, &result, &visited, 0);
  return result;
}

Attributes::Value attribute(napi_env env, const std::string& name, napi_value value, napi_valuetype type) {
  if (type == napi_number) {
    double number = 0;
    check(napi_get_value_double(env, value, &number));
    return number;
  }
  if (type == napi_boolean) {
    bool flag = false;
    check(napi_get_value_bool(env, value, &flag));
    return flag;
  }
  if (type == napi_string) return text(env, value);
  require(type == napi_object, "attribute '", name, "' has an unknown type");
  return numbers_of(env, value);
}

}  // namespace

void check(napi_status status) {
  require(status == napi_ok, "the JavaScript engine refused an argument (", static_cast<int>(status), ")");
}

napi_value Arguments::value(size_t i, const char* expected) const {
  require(i < count_, "argument ", i, " must be ", expected);
  return values_[i];
}

bool Arguments::given(size_t i) const {
  napi_valuetype type = napi_undefined;
  return i < count_ && napi_typeof(env_, values_[i], &type) == napi_ok && type != napi_undefined && type != napi_null;
}

double Arguments::number(size_t i) const {
  double result = 0;
  require(napi_get_value_double(env_, value(i, "a number"), &result) == napi_ok, "argument ", i, " must be a number");
  return result;
}

std::string Arguments::text(size_t i) const { return napi::text(env_, value(i, "a string")); }

bool Arguments::flag(size_t i) const {
  bool result = false;
  require(napi_get_value_bool(env_, value(i, "a boolean"), &result) == napi_ok, "argument ", i, " must be a boolean");
  return result;
}

DType Arguments::type(size_t i) const {
  const double code = number(i);
  require(code >= 0 && code <= 4 && code == std::floor(code), "argument ", i, " is not a type");
  return static_cast<DType>(static_cast<int>(code));
}

std::vector<double> Arguments::numbers(size_t i) const { return numbers_of(env_, value(i, "an array of numbers")); }

Shape Arguments::shape(size_t i) const {
  Shape result;
  int64_t elements = 1;
  for (double dim : numbers(i)) {
    require(dim >= 0 && dim < 1e15 && dim == std::floor(dim), "a shape holds no ", dim);
    result.push(static_cast<int64_t>(dim));
    require(!__builtin_mul_overflow(elements, static_cast<int64_t>(dim), &elements), "a shape is too large");
  }
  return result;
}

void Arguments::attributes(size_t i, Attributes* to) const {
  napi_value object = value(i, "an object"), names;
  check(napi_get_property_names(env_, object, &names));
  uint32_t count = 0;
  check(napi_get_array_length(env_, names, &count));
  require(count <= kMaxNumbers, "attributes are at most ", kMaxNumbers);
  for (uint32_t n = 0; n < count; ++n) {
    napi_value key, entry;
    check(napi_get_element(env_, names, n, &key));
    check(napi_get_property(env_, object, key, &entry));
    napi_valuetype type;
    check(napi_typeof(env_, entry, &type));
    if (type == napi_undefined || type == napi_null) continue;
    std::string name = napi::text(env_, key);
    Attributes::Value read = attribute(env_, name, entry, type);
    to->set(std::move(name), std::move(read));
  }
}

Arguments::Bytes Arguments::bytes(size_t i) const {
  napi_value array = value(i, "a typed array");
  bool is_array = false;
  check(napi_is_typedarray(env_, array, &is_array));
  require(is_array, "argument ", i, " must be a typed array");
  Bytes result;
  size_t elements = 0, offset = 0;
  check(napi_get_typedarray_info(env_, array, &result.kind, &elements, &result.data, nullptr, &offset));
  static const size_t sizes[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};
  require(result.kind <= napi_biguint64_array, "argument ", i, " is a typed array of an unknown kind");
  result.length = elements * sizes[result.kind];
  return result;
}

napi_value make_number(napi_env env, double value) {
  napi_value result;
  check(napi_create_double(env, value, &result));
  return result;
}

napi_value make_text(napi_env env, const std::string& text) {
  napi_value result;
  check(napi_create_string_utf8(env, text.c_str(), text.size(), &result));
  return result;
}

napi_value make_value(napi_env env, const Attributes::Value& value) {
  if (const double* number = std::get_if<double>(&value)) return make_number(env, *number);
  if (const std::string* text = std::get_if<std::string>(&value)) return make_text(env, *text);
  napi_value result;
  if (const bool* flag = std::get_if<bool>(&value)) {
    check(napi_get_boolean(env, *flag, &result));
    return result;
  }
  const auto& list = std::get<std::vector<double>>(value);
  check(napi_create_array_with_length(env, list.size(), &result));
  for (size_t i = 0; i < list.size(); ++i) check(napi_set_element(env, result, static_cast<uint32_t>(i), make_number(env, list[i])));
  return result;
}

void throw_error(napi_env env, const char* code, const char* message) {
  bool pending = false;
  if (napi_is_exception_pending(env, &pending) == napi_ok && !pending) napi_throw_error(env, code, message);
}

}  // namespace td::napi

#pragma once
#include <node_api.h>

#include <string>
#include <vector>

#include "core/kernel.h"

/// What comes from JavaScript and what goes back, with the checks. Reading an object or an array may run JavaScript (getters,
/// proxies) that detaches buffers and disposes tensors: functions read those first and take pointers last.
namespace td::napi {

void check(napi_status status);

/// The arguments of one call.
class Arguments {
 public:
  Arguments(napi_env env, napi_callback_info info) : env_(env) {
    check(napi_get_cb_info(env, info, &count_, values_, nullptr, nullptr));
  }
  /// Neither absent nor undefined nor null.
  bool given(size_t i) const;
  double number(size_t i) const;
  bool flag(size_t i) const;
  std::string text(size_t i) const;
  DType type(size_t i) const;
  /// An array of numbers; may run JavaScript.
  std::vector<double> numbers(size_t i) const;
  Shape shape(size_t i) const;
  /// The named values of an object; may run JavaScript.
  void attributes(size_t i, Attributes* to) const;

  struct Bytes {
    void* data;
    size_t length;
    napi_typedarray_type kind;
  };
  /// The memory of a typed array; valid until JavaScript runs.
  Bytes bytes(size_t i) const;

 private:
  napi_value value(size_t i, const char* expected) const;

  napi_env env_;
  static constexpr size_t kMaxArguments = 8;
  size_t count_ = kMaxArguments;
  napi_value values_[kMaxArguments];
};

/// Where one object of the attributes or one list ends: none has so many.
constexpr size_t kMaxNumbers = size_t{1} << 20;

napi_value make_number(napi_env env, double value);
napi_value make_text(napi_env env, const std::string& text);
napi_value make_value(napi_env env, const Attributes::Value& value);

void throw_error(napi_env env, const char* code, const char* message);

/// Runs the body of a function that JavaScript calls: what it throws becomes a JavaScript exception with a code.
template <typename Body>
napi_value guarded(napi_env env, const Body& body) {
  try {
    return body();
  } catch (const OutOfMemory& error) {
    throw_error(env, "OUT_OF_MEMORY", error.what());
  } catch (const std::bad_alloc&) {
    throw_error(env, "OUT_OF_MEMORY", "the system refuses more memory");
  } catch (const std::exception& error) {
    throw_error(env, "KERNEL_ERROR", error.what());
  } catch (...) {
    throw_error(env, "KERNEL_ERROR", "unknown failure");
  }
  return nullptr;
}

}  // namespace td::napi

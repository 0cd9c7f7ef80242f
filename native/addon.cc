// The surface that JavaScript sees. Tensors are numbers (handles); arguments and results of kernels travel through one
// array of doubles shared with JavaScript, so that a call of a small kernel costs little.
#include <node_api.h>
#include <omp.h>

#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "core/kernel.h"
#include "cpu/convert.h"
#include "cpu/dnnl_api.h"
#include "cpu/simd/loops.h"
#include "cpu/strided.h"

namespace {

using namespace td;

constexpr size_t kExchange = 1 << 15;  // doubles
constexpr double kGenerations = 1 << 20;

/// One per JavaScript environment; worker threads have their own.
struct Instance {
  struct Slot {
    StoragePtr storage;
    uint32_t generation = 0;
  };
  std::vector<Slot> slots;
  std::vector<uint32_t> free;
  /// Memory of a JavaScript array that a reference keeps alive.
  double* exchange = nullptr;
  Call call;

  double add(StoragePtr storage) {
    uint32_t index;
    if (free.empty()) {
      index = static_cast<uint32_t>(slots.size());
      slots.emplace_back();
    } else {
      index = free.back();
      free.pop_back();
    }
    slots[index].storage = std::move(storage);
    return index * kGenerations + slots[index].generation;
  }
  Slot& slot(double handle) {
    const double index = std::floor(handle / kGenerations);
    require(handle >= 0 && index < static_cast<double>(slots.size()), "tensor handle ", handle, " was never given out");
    Slot& found = slots[static_cast<size_t>(index)];
    require(found.storage && found.generation == handle - index * kGenerations, "tensor handle ", handle, " was disposed");
    return found;
  }
  const StoragePtr& get(double handle) { return slot(handle).storage; }
  void remove(double handle) {
    Slot& found = slot(handle);
    found.storage.reset();
    found.generation = (found.generation + 1) % static_cast<uint32_t>(kGenerations);
    free.push_back(static_cast<uint32_t>(&found - slots.data()));
  }
};

/// Kernels of several environments take turns: they would compete for the same cores.
std::mutex& kernel_mutex() {
  static std::mutex* mutex = new std::mutex;
  return *mutex;
}

void check(napi_status status) { require(status == napi_ok, "the JavaScript engine refused an argument (", static_cast<int>(status), ")"); }

void throw_error(napi_env env, const char* code, const char* message) {
  bool pending = false;
  if (napi_is_exception_pending(env, &pending) == napi_ok && !pending) napi_throw_error(env, code, message);
}

Instance& instance_of(napi_env env) {
  void* data = nullptr;
  check(napi_get_instance_data(env, &data));
  return *static_cast<Instance*>(data);
}

/// Arguments of one call with their checks.
struct Arguments {
  napi_env env;
  size_t count = 8;
  napi_value values[8];

  Arguments(napi_env e, napi_callback_info info) : env(e) { check(napi_get_cb_info(env, info, &count, values, nullptr, nullptr)); }
  bool given(size_t i) const {
    napi_valuetype type = napi_undefined;
    return i < count && napi_typeof(env, values[i], &type) == napi_ok && type != napi_undefined && type != napi_null;
  }
  double number(size_t i) const {
    double value = 0;
    require(i < count && napi_get_value_double(env, values[i], &value) == napi_ok, "argument ", i, " must be a number");
    return value;
  }
  bool flag(size_t i) const {
    bool value = false;
    require(i < count && napi_get_value_bool(env, values[i], &value) == napi_ok, "argument ", i, " must be a boolean");
    return value;
  }
  std::string text(napi_value value) const {
    size_t length = 0;
    require(napi_get_value_string_utf8(env, value, nullptr, 0, &length) == napi_ok, "expects a string");
    std::string result(length, '\0');
    check(napi_get_value_string_utf8(env, value, result.data(), length + 1, &length));
    return result;
  }
  void append_numbers(napi_value array, std::vector<double>* to, int depth = 0) const {
    uint32_t length = 0;
    require(depth < 4 && napi_get_array_length(env, array, &length) == napi_ok, "expects an array of numbers");
    for (uint32_t i = 0; i < length; ++i) {
      napi_value item;
      check(napi_get_element(env, array, i, &item));
      double value = 0;
      if (napi_get_value_double(env, item, &value) == napi_ok)
        to->push_back(value);
      else
        append_numbers(item, to, depth + 1);
    }
  }
  /// The bytes of a typed array.
  const void* bytes(size_t i, size_t* length, napi_typedarray_type* type) const {
    require(i < count, "argument ", i, " must be a typed array");
    bool is_array = false;
    check(napi_is_typedarray(env, values[i], &is_array));
    require(is_array, "argument ", i, " must be a typed array");
    void* data = nullptr;
    size_t elements = 0, offset = 0;
    check(napi_get_typedarray_info(env, values[i], type, &elements, &data, nullptr, &offset));
    static const size_t sizes[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};
    require(*type <= napi_biguint64_array, "argument ", i, " is a typed array of an unknown kind");
    *length = elements * sizes[*type];
    return data;
  }
};

void read_attributes(const Arguments& arguments, napi_value object, Attributes* attributes) {
  napi_env env = arguments.env;
  napi_value names;
  check(napi_get_property_names(env, object, &names));
  uint32_t count = 0;
  check(napi_get_array_length(env, names, &count));
  for (uint32_t i = 0; i < count; ++i) {
    napi_value name, value;
    check(napi_get_element(env, names, i, &name));
    check(napi_get_property(env, object, name, &value));
    napi_valuetype type;
    check(napi_typeof(env, value, &type));
    if (type == napi_number) {
      double number = 0;
      check(napi_get_value_double(env, value, &number));
      attributes->set(arguments.text(name), number);
    } else if (type == napi_boolean) {
      bool flag = false;
      check(napi_get_value_bool(env, value, &flag));
      attributes->set(arguments.text(name), flag);
    } else if (type == napi_string) {
      attributes->set(arguments.text(name), arguments.text(value));
    } else if (type == napi_object) {
      std::vector<double> numbers;
      arguments.append_numbers(value, &numbers);
      attributes->set(arguments.text(name), std::move(numbers));
    } else {
      require(type == napi_undefined || type == napi_null, "attribute '", arguments.text(name), "' has an unknown type");
    }
  }
}

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

napi_value make_number(napi_env env, double value) {
  napi_value result;
  check(napi_create_double(env, value, &result));
  return result;
}

napi_value make_text(napi_env env, const char* text) {
  napi_value result;
  check(napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &result));
  return result;
}

/// run(kernel, attributes): inputs lie in the exchange array as count, then handle (-1: absent), rank, dimensions of each;
/// outputs come back there as handle, physical type, rank, dimensions of each. Returns the number of outputs.
napi_value run(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const Arguments arguments(env, info);
    Instance& instance = instance_of(env);
    Call& call = instance.call;
    struct Clear {
      Call& call;
      ~Clear() {
        call.inputs.clear();
        call.outputs.clear();
        call.attributes = Attributes();
      }
    } clear{call};
    const double* in = instance.exchange;
    const double* end = in + kExchange;
    const double count = *in++;
    require(count >= 0 && count < kExchange, "the number of inputs is out of range");
    for (int i = 0; i < static_cast<int>(count); ++i) {
      require(in + 2 <= end, "too many inputs");
      const double handle = *in++, rank = *in++;
      require(rank >= 0 && rank <= kMaxRank && in + static_cast<int>(rank) <= end, "supports at most ", kMaxRank, " dimensions");
      Shape shape;
      int64_t elements = 1;
      for (int axis = 0; axis < static_cast<int>(rank); ++axis) {
        const double dim = *in++;
        require(dim >= 0 && dim < 1e15, "a dimension is out of range");
        shape.push(static_cast<int64_t>(dim));
        require(!__builtin_mul_overflow(elements, shape.dims[axis], &elements), "a shape is too large");
      }
      if (handle < 0) {
        call.inputs.emplace_back();
        continue;
      }
      const StoragePtr& storage = instance.get(handle);
      require(storage->elements == elements, "a tensor of ", storage->elements, " numbers cannot have shape ", shape);
      call.inputs.emplace_back(storage, shape);
    }
    if (arguments.given(1)) read_attributes(arguments, arguments.values[1], &call.attributes);
    const double kernel = arguments.number(0);
    require(kernel >= 0 && kernel < 1e6, "there is no kernel with number ", kernel);
    {
      std::lock_guard<std::mutex> lock(kernel_mutex());
      Registry::instance().run(static_cast<int>(kernel), call);
    }
    require(call.outputs.size() * (3 + kMaxRank) <= kExchange, "too many outputs");
    double* out = instance.exchange;
    for (const Tensor& tensor : call.outputs) {
      *out++ = instance.add(tensor.storage);
      *out++ = static_cast<double>(tensor.dtype());
      *out++ = tensor.shape.rank;
      for (int axis = 0; axis < tensor.shape.rank; ++axis) *out++ = static_cast<double>(tensor.shape.dims[axis]);
    }
    return make_number(env, static_cast<double>(call.outputs.size()));
  });
}

DType type_argument(const Arguments& arguments, size_t i) {
  const double value = arguments.number(i);
  require(value >= 0 && value <= 4 && value == std::floor(value), "argument ", i, " is not a type");
  return static_cast<DType>(static_cast<int>(value));
}

/// create(bytes, storage type, physical type, shape, permutation | undefined, weight): handle
napi_value create(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const Arguments arguments(env, info);
    size_t length = 0;
    napi_typedarray_type kind;
    const void* data = arguments.bytes(0, &length, &kind);
    const DType from = type_argument(arguments, 1), to = type_argument(arguments, 2);
    require(arguments.count > 3, "create needs a shape");
    std::vector<double> dims;
    arguments.append_numbers(arguments.values[3], &dims);
    Shape shape;
    int64_t elements = 1;
    for (double dim : dims) {
      require(dim >= 0 && dim < 1e15 && dim == std::floor(dim), "a shape holds no ", dim);
      shape.push(static_cast<int64_t>(dim));
      require(!__builtin_mul_overflow(elements, static_cast<int64_t>(dim), &elements), "a shape is too large");
    }
    require(elements <= static_cast<int64_t>(length / size_of(from)) && static_cast<size_t>(elements) * size_of(from) == length, "shape ",
            shape, " of ", name_of(from), " needs ", elements, " numbers, the array has ", length, " bytes");
    const bool weight = arguments.given(5) && arguments.flag(5);
    Tensor result = Tensor::empty(to, shape, weight ? Purpose::weights : Purpose::work);
    if (arguments.given(4)) {
      std::vector<double> order;
      arguments.append_numbers(arguments.values[4], &order);
      require(order.size() == dims.size(), "permutation needs one entry per dimension");
      int64_t strides[kMaxRank], from_strides[kMaxRank], to_strides[kMaxRank];
      contiguous_strides(shape, strides);
      Shape permuted;
      bool used[kMaxRank] = {};
      for (double axis : order) {
        require(axis >= 0 && axis < shape.rank && axis == std::floor(axis) && !used[static_cast<int>(axis)],
                "permutation is not a permutation of the dimensions");
        used[static_cast<int>(axis)] = true;
        from_strides[permuted.rank] = strides[static_cast<int>(axis)];
        permuted.push(shape.dims[static_cast<int>(axis)]);
      }
      contiguous_strides(permuted, to_strides);
      result.shape = permuted;
      const void* converted = data;
      std::unique_ptr<Buffer> rounded;
      if (from != to) {
        rounded = std::make_unique<Buffer>(result.bytes());
        convert(from, data, to, rounded->data(), elements);
        converted = rounded->data();
      }
      strided_copy(size_of(to), permuted, converted, from_strides, result.mutable_raw(), to_strides);
    } else {
      convert(from, data, to, result.mutable_raw(), elements);
    }
    result.storage->weight = weight;
    return make_number(env, instance_of(env).add(result.storage));
  });
}

/// Numbers in the type that JavaScript sees: float32, int32 or bool.
DType visible(DType type) { return is_float(type) ? DType::f32 : type; }

/// The numbers of a typed array that the numbers of `storage` fit into.
void* target_argument(const Arguments& arguments, size_t i, const Storage& storage) {
  size_t length = 0;
  napi_typedarray_type kind;
  void* data = const_cast<void*>(arguments.bytes(i, &length, &kind));
  const DType type = visible(storage.dtype);
  const bool fits = type == DType::f32 ? kind == napi_float32_array : type == DType::i32 ? kind == napi_int32_array : kind == napi_uint8_array;
  require(fits && length == static_cast<size_t>(storage.elements) * size_of(type), "the array to read into does not fit ",
          storage.elements, " numbers of type ", name_of(type));
  return data;
}

/// readSync(handle, array) fills the array.
napi_value read_sync(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const Arguments arguments(env, info);
    const StoragePtr& storage = instance_of(env).get(arguments.number(0));
    void* data = target_argument(arguments, 1, *storage);
    const BufferPtr plain = storage->plain_buffer();
    convert(storage->dtype, plain->data(), visible(storage->dtype), data, storage->elements);
    return nullptr;
  });
}

struct Reading {
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  napi_ref array = nullptr;
  StoragePtr storage;
  BufferPtr plain;
  void* data = nullptr;
  std::string error;
};

/// read(handle, array): a promise of the array, filled on a worker thread.
napi_value read(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const Arguments arguments(env, info);
    auto reading = std::make_unique<Reading>();
    reading->storage = instance_of(env).get(arguments.number(0));
    reading->data = target_argument(arguments, 1, *reading->storage);
    reading->plain = reading->storage->plain_buffer();
    check(napi_create_reference(env, arguments.values[1], 1, &reading->array));
    napi_value promise, name = make_text(env, "tfjs-diffusers.read");
    check(napi_create_promise(env, &reading->deferred, &promise));
    const auto work = [](napi_env, void* data) {
      Reading& r = *static_cast<Reading*>(data);
      try {
        convert(r.storage->dtype, r.plain->data(), visible(r.storage->dtype), r.data, r.storage->elements);
      } catch (const std::exception& error) {
        r.error = error.what();
      }
    };
    const auto done = [](napi_env e, napi_status status, void* data) {
      std::unique_ptr<Reading> r(static_cast<Reading*>(data));
      napi_value value = nullptr;
      napi_get_reference_value(e, r->array, &value);
      if (status == napi_ok && r->error.empty()) {
        napi_resolve_deferred(e, r->deferred, value);
      } else {
        napi_value message, error;
        napi_create_string_utf8(e, r->error.empty() ? "reading was cancelled" : r->error.c_str(), NAPI_AUTO_LENGTH, &message);
        napi_create_error(e, nullptr, message, &error);
        napi_reject_deferred(e, r->deferred, error);
      }
      napi_delete_reference(e, r->array);
      napi_delete_async_work(e, r->work);
    };
    check(napi_create_async_work(env, nullptr, name, work, done, reading.get(), &reading->work));
    check(napi_queue_async_work(env, reading->work));
    reading.release();
    return promise;
  });
}

/// typeOf(handle): physical type.
napi_value type_of(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const Arguments arguments(env, info);
    return make_number(env, static_cast<double>(instance_of(env).get(arguments.number(0))->dtype));
  });
}

napi_value dispose(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const Arguments arguments(env, info);
    instance_of(env).remove(arguments.number(0));
    return nullptr;
  });
}

napi_value memory(napi_env env, napi_callback_info) {
  return guarded(env, [&] {
    const MemoryInfo state = MemoryPool::instance().info();
    napi_value result;
    check(napi_create_object(env, &result));
    const auto put = [&](const char* name, size_t value) {
      check(napi_set_named_property(env, result, name, make_number(env, static_cast<double>(value))));
    };
    put("bytesInUse", state.in_use);
    put("poolBytes", state.pooled);
    put("peakBytes", state.peak);
    put("limitBytes", state.limit);
    put("freeBytes", state.free);
    return result;
  });
}

napi_value reset_peak(napi_env env, napi_callback_info) {
  return guarded(env, [&]() -> napi_value {
    MemoryPool::instance().reset_peak();
    return nullptr;
  });
}

napi_value set_memory_limit(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const double bytes = Arguments(env, info).number(0);
    require(bytes >= 0 && bytes < 1e18, "a memory limit is a number of bytes, 0 for none; got ", bytes);
    MemoryPool::instance().set_limit(static_cast<size_t>(bytes));
    return nullptr;
  });
}

/// Gives pooled memory back to the system.
napi_value trim(napi_env env, napi_callback_info) {
  return guarded(env, [&]() -> napi_value {
    MemoryPool::instance().trim();
    return nullptr;
  });
}

napi_value set_threads(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const double threads = Arguments(env, info).number(0);
    require(threads >= 1 && threads <= 4096, "threads must be between 1 and 4096, got ", threads);
    omp_set_num_threads(static_cast<int>(threads));
    return nullptr;
  });
}

napi_value describe(napi_env env, napi_callback_info) {
  return guarded(env, [&] {
    napi_value result, flag;
    check(napi_create_object(env, &result));
    const simd::CpuFeatures cpu = simd::cpu_features();
    const auto put = [&](const char* name, bool value) {
      check(napi_get_boolean(env, value, &flag));
      check(napi_set_named_property(env, result, name, flag));
    };
    put("avx2", cpu.avx2);
    put("avx512", cpu.avx512);
    put("avx512Bf16", cpu.avx512_bf16);
    put("amx", cpu.amx);
    const dnnl_version_t* version = dnnl_version();
    const std::string text =
        std::to_string(version->major) + "." + std::to_string(version->minor) + "." + std::to_string(version->patch);
    check(napi_set_named_property(env, result, "oneDnn", make_text(env, text.c_str())));
    check(napi_set_named_property(env, result, "loops", make_text(env, simd::loops().name)));
    check(napi_set_named_property(env, result, "threads", make_number(env, omp_get_max_threads())));
    return result;
  });
}

napi_value initialize(napi_env env, napi_value exports) {
  return guarded(env, [&] {
    register_cpu_kernels();
    auto* instance = new Instance;
    check(napi_set_instance_data(
        env, instance, [](napi_env, void* data, void*) { delete static_cast<Instance*>(data); }, nullptr));
    const struct {
      const char* name;
      napi_callback function;
    } functions[] = {{"run", run},
                     {"create", create},
                     {"read", read},
                     {"readSync", read_sync},
                     {"typeOf", type_of},
                     {"dispose", dispose},
                     {"memory", memory},
                     {"resetPeak", reset_peak},
                     {"setMemoryLimit", set_memory_limit},
                     {"trim", trim},
                     {"setThreads", set_threads},
                     {"describe", describe}};
    for (const auto& entry : functions) {
      napi_value function;
      check(napi_create_function(env, entry.name, NAPI_AUTO_LENGTH, entry.function, nullptr, &function));
      check(napi_set_named_property(env, exports, entry.name, function));
    }
    const Registry& registry = Registry::instance();
    napi_value kernels;
    check(napi_create_array_with_length(env, registry.size(), &kernels));
    for (int i = 0; i < registry.size(); ++i) check(napi_set_element(env, kernels, i, make_text(env, registry.name(i).c_str())));
    check(napi_set_named_property(env, exports, "kernels", kernels));
    napi_value buffer, exchange;
    void* data = nullptr;
    check(napi_create_arraybuffer(env, kExchange * sizeof(double), &data, &buffer));
    check(napi_create_typedarray(env, napi_float64_array, kExchange, buffer, 0, &exchange));
    check(napi_set_named_property(env, exports, "exchange", exchange));
    napi_ref keep;
    check(napi_create_reference(env, exchange, 1, &keep));
    instance->exchange = static_cast<double*>(data);
    return exports;
  });
}

}  // namespace

NAPI_MODULE(tfjs_diffusers, initialize)

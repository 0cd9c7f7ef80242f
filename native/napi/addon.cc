// The surface that JavaScript sees. Tensors are numbers (handles); arguments and results of kernels travel through one
// array of doubles shared with JavaScript, so that a call of a small kernel costs little.
#include <node_api.h>

#include <functional>
#include <mutex>

#include "core/device.h"
#include "napi/arguments.h"
#include "napi/export_more.h"
#include "napi/instance.h"

namespace td::napi {
namespace {

/// Environments take turns with the device: their kernels would compete for the same cores.
std::unique_lock<std::mutex> turn() {
  static std::mutex* mutex = new std::mutex;
  return std::unique_lock<std::mutex>(*mutex);
}

Instance& instance_of(napi_env env) {
  void* data = nullptr;
  check(napi_get_instance_data(env, &data));
  return *static_cast<Instance*>(data);
}

/// Appends the inputs that lie in the exchange array.
void read_inputs(Instance& instance, std::vector<Tensor>* inputs) {
  const double* in = instance.exchange.get();
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
      inputs->emplace_back();
      continue;
    }
    const StoragePtr& storage = instance.get(handle);
    require(storage->elements == elements, "a tensor of ", storage->elements, " numbers cannot have shape ", shape);
    inputs->emplace_back(storage, shape);
  }
}

void write_outputs(Instance& instance, const std::vector<Tensor>& outputs) {
  require(outputs.size() * (3 + kMaxRank) <= kExchange, "too many outputs");
  double* out = instance.exchange.get();
  for (const Tensor& tensor : outputs) {
    *out++ = instance.add(tensor.storage);
    *out++ = static_cast<double>(tensor.dtype());
    *out++ = tensor.shape.rank;
    for (int axis = 0; axis < tensor.shape.rank; ++axis) *out++ = static_cast<double>(tensor.shape.dims[axis]);
  }
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
    const double kernel = arguments.number(0);
    require(kernel >= 0 && kernel < 1e6, "there is no kernel with number ", kernel);
    Attributes attributes;
    if (arguments.given(1)) arguments.attributes(1, &attributes);
    call.attributes = std::move(attributes);
    read_inputs(instance, &call.inputs);
    {
      const auto lock = turn();
      Registry::instance().run(static_cast<int>(kernel), call);
    }
    write_outputs(instance, call.outputs);
    return make_number(env, static_cast<double>(call.outputs.size()));
  });
}

Permutation permutation_of(const std::vector<double>& order, int rank) {
  require(static_cast<int>(order.size()) == rank, "permutation needs one entry per dimension");
  Permutation result{};
  bool used[kMaxRank] = {};
  for (int i = 0; i < rank; ++i) {
    require(order[i] >= 0 && order[i] < rank && order[i] == std::floor(order[i]) && !used[static_cast<int>(order[i])],
            "permutation is not a permutation of the dimensions");
    result[i] = static_cast<int>(order[i]);
    used[result[i]] = true;
  }
  return result;
}

/// create(bytes, storage type, physical type, shape, permutation | undefined, weight): handle
napi_value create(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const Arguments arguments(env, info);
    const DType from = arguments.type(1), to = arguments.type(2);
    const Shape shape = arguments.shape(3);
    const bool permuted = arguments.given(4), weight = arguments.given(5) && arguments.flag(5);
    const Permutation order = permuted ? permutation_of(arguments.numbers(4), shape.rank) : Permutation{};
    const int64_t elements = shape.elements();
    const Arguments::Bytes bytes = arguments.bytes(0);
    require(elements <= static_cast<int64_t>(bytes.length / size_of(from)) && static_cast<size_t>(elements) * size_of(from) == bytes.length,
            "shape ", shape, " of ", name_of(from), " needs ", elements, " numbers, the array has ", bytes.length, " bytes");
    auto storage = std::make_shared<Storage>(to, elements, weight ? Purpose::weights : Purpose::work);
    storage->weight = weight;
    {
      const auto lock = turn();
      device().upload(bytes.data, from, shape, permuted ? &order : nullptr, *storage);
    }
    return make_number(env, instance_of(env).add(std::move(storage)));
  });
}

/// Numbers in the type that JavaScript sees: float32, int32 or bool.
DType visible(DType type) { return is_float(type) ? DType::f32 : type; }

napi_typedarray_type array_of(DType type) {
  return type == DType::f32 ? napi_float32_array : type == DType::i32 ? napi_int32_array : napi_uint8_array;
}

/// readSync(handle, array) fills the array.
napi_value read_sync(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const Arguments arguments(env, info);
    const StoragePtr storage = instance_of(env).get(arguments.number(0));
    const DType type = visible(storage->dtype);
    const Arguments::Bytes target = arguments.bytes(1);
    require(target.kind == array_of(type) && target.length == static_cast<size_t>(storage->elements) * size_of(type),
            "the array to read into does not fit ", storage->elements, " numbers of type ", name_of(type));
    const auto lock = turn();
    device().download(*storage, type, target.data);
    return nullptr;
  });
}

/// One read: what is made for it goes when it ends, whatever ends it.
struct Reading {
  explicit Reading(napi_env environment) : env(environment) {}
  ~Reading() {
    finish_download();
    if (work) napi_delete_async_work(env, work);
    if (array) napi_delete_reference(env, array);
  }
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;

  /// Waits for a download that was begun; it writes into the array until then.
  void finish_download() {
    if (!finish) return;
    const std::function<void()> wait = std::move(finish);
    finish = nullptr;
    try {
      wait();
    } catch (const std::exception& failure) {
      error = failure.what();
    }
  }

  void settle() {
    napi_value value = nullptr;
    if (error.empty()) {
      napi_get_reference_value(env, array, &value);
      napi_resolve_deferred(env, deferred, value);
      return;
    }
    napi_value code, message;
    napi_create_string_utf8(env, "KERNEL_ERROR", NAPI_AUTO_LENGTH, &code);
    napi_create_string_utf8(env, error.c_str(), error.size(), &message);
    napi_create_error(env, code, message, &value);
    napi_reject_deferred(env, deferred, value);
  }

  napi_env env;
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  napi_ref array = nullptr;
  StoragePtr storage;
  std::function<void()> finish;
  std::string error;
};

void finish_reading(napi_env, void* data) { static_cast<Reading*>(data)->finish_download(); }

void settle_reading(napi_env, napi_status status, void* data) {
  const std::unique_ptr<Reading> reading(static_cast<Reading*>(data));
  if (status != napi_ok && reading->error.empty()) reading->error = "reading was cancelled";
  reading->settle();
}

/// The typed array for the numbers of a storage, held by the reading; returns its memory.
void* make_array(Reading& reading, DType type) {
  const size_t count = static_cast<size_t>(reading.storage->elements);
  void* data = nullptr;
  napi_value buffer, array;
  check(napi_create_arraybuffer(reading.env, count * size_of(type), &data, &buffer));
  check(napi_create_typedarray(reading.env, array_of(type), count, buffer, 0, &array));
  check(napi_create_reference(reading.env, array, 1, &reading.array));
  return data;
}

/// read(handle): a promise of a new typed array, which is filled on another thread. JavaScript sees the array when it is full,
/// and so cannot take its memory away before.
napi_value read(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    const Arguments arguments(env, info);
    auto reading = std::make_unique<Reading>(env);
    reading->storage = instance_of(env).get(arguments.number(0));
    const DType type = visible(reading->storage->dtype);
    void* data = make_array(*reading, type);
    check(napi_create_async_work(env, nullptr, make_text(env, "tfjs-diffusers.read"), finish_reading, settle_reading, reading.get(),
                                 &reading->work));
    {
      const auto lock = turn();
      reading->finish = device().begin_download(*reading->storage, type, data);
    }
    napi_value promise;
    check(napi_create_promise(env, &reading->deferred, &promise));
    if (napi_queue_async_work(env, reading->work) == napi_ok) {
      reading.release();
    } else {
      reading->finish_download();
      reading->error = "reading could not begin";
      reading->settle();
    }
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

/// An object of named values.
napi_value make_object(napi_env env, const Description& entries) {
  napi_value result;
  check(napi_create_object(env, &result));
  for (const auto& [name, value] : entries) check(napi_set_named_property(env, result, name.c_str(), make_value(env, value)));
  return result;
}

napi_value memory(napi_env env, napi_callback_info) {
  return guarded(env, [&] {
    const MemoryInfo state = device().memory();
    const auto bytes = [](size_t count) { return static_cast<double>(count); };
    return make_object(env, {{"bytesInUse", bytes(state.in_use)},
                             {"poolBytes", bytes(state.pooled)},
                             {"peakBytes", bytes(state.peak)},
                             {"limitBytes", bytes(state.limit)},
                             {"freeBytes", bytes(state.free)}});
  });
}

napi_value reset_peak(napi_env env, napi_callback_info) {
  return guarded(env, [&]() -> napi_value {
    device().reset_peak();
    return nullptr;
  });
}

napi_value set_memory_limit(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const double bytes = Arguments(env, info).number(0);
    require(bytes >= 0 && bytes < 1e18, "a memory limit is a number of bytes, 0 for none; got ", bytes);
    device().set_limit(static_cast<size_t>(bytes));
    return nullptr;
  });
}

/// Gives pooled memory back to the system.
napi_value trim(napi_env env, napi_callback_info) {
  return guarded(env, [&]() -> napi_value {
    device().trim();
    return nullptr;
  });
}

napi_value set_threads(napi_env env, napi_callback_info info) {
  return guarded(env, [&]() -> napi_value {
    const double threads = Arguments(env, info).number(0);
    require(threads >= 1 && threads <= 4096, "threads must be between 1 and 4096, got ", threads);
    device().set_threads(static_cast<int>(threads));
    return nullptr;
  });
}

/// describe(): what the device is, with `problem` where it cannot work.
napi_value describe(napi_env env, napi_callback_info) {
  return guarded(env, [&] {
    const std::string problem = device().problem();
    return make_object(env, problem.empty() ? device().describe() : Description{{"problem", problem}});
  });
}

void export_functions(napi_env env, napi_value exports) {
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
}

/// The names of the kernels; their places are their numbers.
void export_kernels(napi_env env, napi_value exports) {
  static const Registry& registry = []() -> const Registry& {
    device().register_kernels(Registry::instance());
    return Registry::instance();
  }();
  napi_value kernels;
  check(napi_create_array_with_length(env, registry.size(), &kernels));
  for (int i = 0; i < registry.size(); ++i) check(napi_set_element(env, kernels, i, make_text(env, registry.name(i))));
  check(napi_set_named_property(env, exports, "kernels", kernels));
}

void export_exchange(napi_env env, napi_value exports, const Instance& instance) {
  using Shared = std::shared_ptr<double[]>;
  auto hold = std::make_unique<Shared>(instance.exchange);
  const auto release = [](napi_env, void*, void* shared) { delete static_cast<Shared*>(shared); };
  napi_value buffer, exchange;
  check(napi_create_external_arraybuffer(env, instance.exchange.get(), kExchange * sizeof(double), release, hold.get(), &buffer));
  hold.release();
  check(napi_create_typedarray(env, napi_float64_array, kExchange, buffer, 0, &exchange));
  check(napi_set_named_property(env, exports, "exchange", exchange));
}

napi_value initialize(napi_env env, napi_value exports) {
  return guarded(env, [&] {
    auto held = std::make_unique<Instance>();
    const auto destroy = [](napi_env, void* data, void*) { delete static_cast<Instance*>(data); };
    check(napi_set_instance_data(env, held.get(), destroy, nullptr));
    const Instance& instance = *held.release();
    export_functions(env, exports);
    export_kernels(env, exports);
    export_exchange(env, exports, instance);
    if (export_more) export_more(env, exports);
    return exports;
  });
}

}  // namespace
}  // namespace td::napi

NAPI_MODULE(tfjs_diffusers, td::napi::initialize)

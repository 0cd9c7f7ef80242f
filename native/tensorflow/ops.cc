#include "tensorflow/ops.h"

#include <memory>
#include <mutex>

#include "core/kernel.h"
#include "tensorflow/api.h"

namespace td::tensorflow {

const std::array<Op, 6>& ops() {
  using A = AttributeType;
  static const std::vector<OpAttribute> attention{{"scale", A::number}, {"heads", A::integer}};
  static const std::array<Op, 6> all{{
      {"MemoryEfficientAttention", {"q", "k", "v"}, "bias", {"out", "lse"}, attention},
      {"MemoryEfficientAttentionGrad", {"dy", "q", "k", "v", "out", "lse"}, "bias", {"dq", "dk", "dv"}, attention},
      {"MemoryEfficientAttentionPacked", {"qkv"}, "bias", {"out", "lse"}, attention},
      {"MemoryEfficientAttentionPackedGrad", {"dy", "qkv", "out", "lse"}, "bias", {"dqkv"}, attention},
      {"GroupNorm", {"x", "gamma", "beta"}, nullptr, {"y"}, {{"groups", A::integer}, {"epsilon", A::number}, {"activation", A::text}}},
      {"LayerNorm", {"x", "gamma", "beta"}, nullptr, {"y"}, {{"epsilon", A::number}}},
  }};
  return all;
}

namespace {

/// TensorFlow's status; check() throws what it says.
class Outcome {
 public:
  Outcome() : status_(api().TF_NewStatus()) {}
  explicit Outcome(const std::exception& error) : Outcome() {
    const bool memory = dynamic_cast<const OutOfMemory*>(&error) || dynamic_cast<const std::bad_alloc*>(&error);
    api().TF_SetStatus(status_, memory ? kResourceExhausted : kInvalidArgument, error.what());
  }
  ~Outcome() { api().TF_DeleteStatus(status_); }
  Outcome(const Outcome&) = delete;
  Outcome& operator=(const Outcome&) = delete;
  operator Status*() { return status_; }
  void check() const { require(api().TF_GetCode(status_) == kOk, api().TF_Message(status_)); }

 private:
  Status* status_;
};

using Handle = std::unique_ptr<TensorHandle, void (*)(TensorHandle*)>;
Handle own(TensorHandle* tensor) { return {tensor, [](TensorHandle* t) { api().TF_DeleteTensor(t); }}; }

/// One kernel as TensorFlow keeps it: for one op and one set of attributes.
struct Instance {
  int kernel;
  Attributes attributes;
};

Attributes::Value read(KernelConstruction* from, const OpAttribute& attribute) {
  Outcome outcome;
  switch (attribute.type) {
    case AttributeType::number: {
      float value = 0;
      api().TF_OpKernelConstruction_GetAttrFloat(from, attribute.name, &value, outcome);
      outcome.check();
      return static_cast<double>(value);
    }
    case AttributeType::integer: {
      int64_t value = 0;
      api().TF_OpKernelConstruction_GetAttrInt64(from, attribute.name, &value, outcome);
      outcome.check();
      return static_cast<double>(value);
    }
    default: {
      int32_t list = 0, length = 0;
      api().TF_OpKernelConstruction_GetAttrSize(from, attribute.name, &list, &length, outcome);
      outcome.check();
      std::string value(static_cast<size_t>(length), '\0');
      api().TF_OpKernelConstruction_GetAttrString(from, attribute.name, value.data(), value.size(), outcome);
      outcome.check();
      return value;
    }
  }
}

void* create(KernelConstruction* from, const Op& op) {
  try {
    auto instance = std::make_unique<Instance>();
    instance->kernel = Registry::instance().find(op.name);
    for (const OpAttribute& attribute : op.attributes) instance->attributes.set(attribute.name, read(from, attribute));
    return instance.release();
  } catch (const std::exception& error) {
    api().TF_OpKernelConstruction_Failure(from, Outcome(error));
    return nullptr;
  }
}

Tensor borrow(const TensorHandle* handle) {
  require(api().TF_TensorType(handle) == kFloat, "expects tensors of type float32");
  Shape shape;
  for (int axis = 0; axis < api().TF_NumDims(handle); ++axis) shape.push(api().TF_Dim(handle, axis));
  auto buffer = std::make_shared<Buffer>(api().TF_TensorData(handle), api().TF_TensorByteSize(handle));
  return Tensor(std::make_shared<Storage>(DType::f32, std::move(buffer)), shape);
}

/// The memory of the result goes to TensorFlow, which releases it.
void give(KernelContext* context, int position, Tensor result) {
  const size_t bytes = result.bytes();
  auto owner = std::make_unique<BufferPtr>(result.storage->plain_buffer());
  const auto release = [](void*, size_t, void* held) { delete static_cast<BufferPtr*>(held); };
  const Handle handle = own(
      api().TF_NewTensor(kFloat, result.shape.dims, result.shape.rank, (*owner)->data(), bytes, release, owner.get()));
  owner.release();
  Outcome outcome;
  api().TF_SetOutput(context, position, handle.get(), outcome);
  outcome.check();
}

/// Kernels run one at a time: they would compete for the same cores.
std::unique_lock<std::mutex> turn() {
  static std::mutex* mutex = new std::mutex;
  return std::unique_lock<std::mutex>(*mutex);
}

void compute(void* data, KernelContext* context) {
  try {
    const Instance& instance = *static_cast<const Instance*>(data);
    std::vector<Handle> handles;
    Call call;
    call.attributes = instance.attributes;
    for (int i = 0; i < api().TF_NumInputs(context); ++i) {
      TensorHandle* handle = nullptr;
      Outcome outcome;
      api().TF_GetInput(context, i, &handle, outcome);
      outcome.check();
      handles.push_back(own(handle));
      call.inputs.push_back(borrow(handle));
    }
    {
      const auto lock = turn();
      Registry::instance().run(instance.kernel, call);
    }
    for (size_t i = 0; i < call.outputs.size(); ++i) give(context, static_cast<int>(i), std::move(call.outputs[i]));
  } catch (const std::exception& error) {
    api().TF_OpKernelContext_Failure(context, Outcome(error));
  }
}

void destroy(void* data) { delete static_cast<Instance*>(data); }

std::string declaration(const OpAttribute& attribute) {
  const char* type = attribute.type == AttributeType::number ? "float" : attribute.type == AttributeType::integer ? "int" : "string";
  return std::string(attribute.name) + ": " + type;
}

void define(const Op& op) {
  OpDefinitionBuilder* builder = api().TF_NewOpDefinitionBuilder(op.name);
  for (const char* input : op.inputs) api().TF_OpDefinitionBuilderAddInput(builder, (std::string(input) + ": float").c_str());
  if (op.optional) {
    api().TF_OpDefinitionBuilderAddAttr(builder, "optional: int >= 0");
    api().TF_OpDefinitionBuilderAddInput(builder, (std::string(op.optional) + ": optional * float").c_str());
  }
  for (const char* output : op.outputs) api().TF_OpDefinitionBuilderAddOutput(builder, (std::string(output) + ": float").c_str());
  for (const OpAttribute& attribute : op.attributes) api().TF_OpDefinitionBuilderAddAttr(builder, declaration(attribute).c_str());
  api().TF_OpDefinitionBuilderSetShapeInferenceFunction(builder, [](ShapeInferenceContext* context, Status* status) {
    api().TF_ShapeInferenceContextSetUnknownShape(context, status);
  });
  Outcome outcome;
  api().TF_RegisterOpDefinition(builder, outcome);
  outcome.check();
}

/// TensorFlow's functions take no closure: there is one for each op.
template <size_t... Index>
std::vector<void* (*)(KernelConstruction*)> creators(std::index_sequence<Index...>) {
  return {[](KernelConstruction* from) { return create(from, ops()[Index]); }...};
}
constexpr size_t kOps = std::tuple_size<std::remove_reference_t<decltype(ops())>>::value;

void add_kernel(size_t index) {
  static const auto create_functions = creators(std::make_index_sequence<kOps>());
  const Op& op = ops()[index];
  KernelBuilder* builder = api().TF_NewKernelBuilder(op.name, "CPU", create_functions[index], compute, destroy);
  Outcome outcome;
  api().TF_RegisterKernelBuilder(op.name, builder, outcome);
  outcome.check();
}

}  // namespace

void register_ops(const std::string& path) {
  static std::mutex* mutex = new std::mutex;
  static bool done = false;
  const std::lock_guard<std::mutex> lock(*mutex);
  if (done) return;
  load(path);
  for (size_t index = 0; index < kOps; ++index) {
    define(ops()[index]);
    add_kernel(index);
  }
  done = true;
}

}  // namespace td::tensorflow

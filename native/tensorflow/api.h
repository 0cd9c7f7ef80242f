// What is used of TensorFlow's C API (tensorflow/c/{c_api,kernels,ops}.h), found by name in the library that the process has loaded
// already: nothing of TensorFlow is needed to build, and one build serves every version from 2.9 on.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace td::tensorflow {

struct Status;
struct TensorHandle;
struct OpDefinitionBuilder;
struct ShapeInferenceContext;
struct KernelBuilder;
struct KernelConstruction;
struct KernelContext;

constexpr int kOk = 0, kInvalidArgument = 3, kResourceExhausted = 8;
constexpr int kFloat = 1;

// name, result, arguments
#define TD_TENSORFLOW_FUNCTIONS(X)                                                                                                   \
  X(TF_NewStatus, Status*, ())                                                                                                       \
  X(TF_DeleteStatus, void, (Status*))                                                                                                \
  X(TF_SetStatus, void, (Status*, int code, const char* message))                                                                    \
  X(TF_GetCode, int, (const Status*))                                                                                                \
  X(TF_Message, const char*, (const Status*))                                                                                        \
  X(TF_NewOpDefinitionBuilder, OpDefinitionBuilder*, (const char* name))                                                             \
  X(TF_RegisterOpDefinition, void, (OpDefinitionBuilder*, Status*))                                                                  \
  X(TF_OpDefinitionBuilderAddAttr, void, (OpDefinitionBuilder*, const char*))                                                        \
  X(TF_OpDefinitionBuilderAddInput, void, (OpDefinitionBuilder*, const char*))                                                       \
  X(TF_OpDefinitionBuilderAddOutput, void, (OpDefinitionBuilder*, const char*))                                                      \
  X(TF_OpDefinitionBuilderSetShapeInferenceFunction, void, (OpDefinitionBuilder*, void (*)(ShapeInferenceContext*, Status*)))        \
  X(TF_ShapeInferenceContextSetUnknownShape, void, (ShapeInferenceContext*, Status*))                                                \
  X(TF_NewKernelBuilder, KernelBuilder*,                                                                                             \
    (const char* op, const char* device, void* (*create)(KernelConstruction*), void (*compute)(void*, KernelContext*), void (*destroy)(void*))) \
  X(TF_RegisterKernelBuilder, void, (const char* name, KernelBuilder*, Status*))                                                     \
  X(TF_OpKernelConstruction_GetAttrFloat, void, (KernelConstruction*, const char*, float*, Status*))                                 \
  X(TF_OpKernelConstruction_GetAttrInt64, void, (KernelConstruction*, const char*, int64_t*, Status*))                               \
  X(TF_OpKernelConstruction_GetAttrSize, void, (KernelConstruction*, const char*, int32_t* list, int32_t* total, Status*))           \
  X(TF_OpKernelConstruction_GetAttrString, void, (KernelConstruction*, const char*, char*, size_t, Status*))                         \
  X(TF_OpKernelConstruction_Failure, void, (KernelConstruction*, Status*))                                                           \
  X(TF_OpKernelContext_Failure, void, (KernelContext*, Status*))                                                                     \
  X(TF_NumInputs, int, (KernelContext*))                                                                                             \
  X(TF_GetInput, void, (KernelContext*, int, TensorHandle**, Status*))                                                               \
  X(TF_SetOutput, void, (KernelContext*, int, const TensorHandle*, Status*))                                                         \
  X(TF_NewTensor, TensorHandle*,                                                                                                     \
    (int type, const int64_t* dims, int rank, void* data, size_t bytes, void (*release)(void*, size_t, void*), void* owner))         \
  X(TF_DeleteTensor, void, (TensorHandle*))                                                                                          \
  X(TF_TensorType, int, (const TensorHandle*))                                                                                       \
  X(TF_NumDims, int, (const TensorHandle*))                                                                                          \
  X(TF_Dim, int64_t, (const TensorHandle*, int))                                                                                     \
  X(TF_TensorByteSize, size_t, (const TensorHandle*))                                                                                \
  X(TF_TensorData, void*, (const TensorHandle*))                                                                                     \
  X(TF_Version, const char*, ())

struct Api {
#define TD_DECLARE(name, result, arguments) result(*name) arguments = nullptr;
  TD_TENSORFLOW_FUNCTIONS(TD_DECLARE)
#undef TD_DECLARE
};

/// The functions of the library in use. load() has to be called before.
const Api& api();

/// Finds them in the library at `path`, which the process has loaded. A KernelError says what is missing.
void load(const std::string& path);

}  // namespace td::tensorflow

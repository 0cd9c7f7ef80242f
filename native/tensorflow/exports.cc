#include "napi/arguments.h"
#include "napi/export_more.h"
#include "tensorflow/ops.h"

namespace td::napi {
namespace {

napi_value names(napi_env env, const std::vector<const char*>& texts) {
  napi_value result;
  check(napi_create_array_with_length(env, texts.size(), &result));
  for (uint32_t i = 0; i < texts.size(); ++i) check(napi_set_element(env, result, i, make_text(env, texts[i])));
  return result;
}

napi_value attributes(napi_env env, const std::vector<tensorflow::OpAttribute>& all) {
  napi_value result;
  check(napi_create_object(env, &result));
  for (const auto& [name, type] : all) {
    using A = tensorflow::AttributeType;
    const char* text = type == A::number ? "number" : type == A::integer ? "integer" : "text";
    check(napi_set_named_property(env, result, name, make_text(env, text)));
  }
  return result;
}

napi_value describe(napi_env env, const tensorflow::Op& op) {
  napi_value result;
  check(napi_create_object(env, &result));
  check(napi_set_named_property(env, result, "name", make_text(env, op.name)));
  check(napi_set_named_property(env, result, "inputs", names(env, op.inputs)));
  if (op.optional) check(napi_set_named_property(env, result, "optional", make_text(env, op.optional)));
  check(napi_set_named_property(env, result, "outputs", names(env, op.outputs)));
  check(napi_set_named_property(env, result, "attributes", attributes(env, op.attributes)));
  return result;
}

/// registerTensorFlowOps(path of the library that is loaded): the ops, as { name, inputs, optional?, outputs, attributes }.
napi_value register_ops(napi_env env, napi_callback_info info) {
  return guarded(env, [&] {
    tensorflow::register_ops(Arguments(env, info).text(0));
    napi_value result;
    check(napi_create_array_with_length(env, tensorflow::ops().size(), &result));
    uint32_t at = 0;
    for (const tensorflow::Op& op : tensorflow::ops()) check(napi_set_element(env, result, at++, describe(env, op)));
    return result;
  });
}

}  // namespace

void export_more(napi_env env, napi_value exports) {
  napi_value function;
  check(napi_create_function(env, "registerTensorFlowOps", NAPI_AUTO_LENGTH, register_ops, nullptr, &function));
  check(napi_set_named_property(env, exports, "registerTensorFlowOps", function));
}

}  // namespace td::napi

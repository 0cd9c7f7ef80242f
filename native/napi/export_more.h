#pragma once
#include <node_api.h>

namespace td::napi {

/// Functions that one addon has beside those of every addon; defined where an addon has some (tensorflow/exports.cc).
[[gnu::weak]] void export_more(napi_env env, napi_value exports);

}  // namespace td::napi

#pragma once
#include <string>

#include "cpu/dnnl_api.h"

namespace td {

/// y = activation(x weight + bias) + residual on checked operands; bias and residual may be empty.
void linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& residual, const std::string& activation,
            Tensor& y);

/// The type in which weights are multiplied.
DType compute_type(DType weight);
onednn::Activation activation_of(const std::string& name);
void fill_zero(Tensor& y);

}  // namespace td

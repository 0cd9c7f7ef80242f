#pragma once
#include "cpu/convolution/geometry.h"

/// Convolutions by oneDNN, everything in the compute type; bias and residual may be empty.
namespace td {

/// A primitive for the geometry; `format` is that of weights packed before, or null.
std::shared_ptr<const onednn::Ready> convolution_primitive(const Geometry& g, DType type, DType output_type, bool bias,
                                             const onednn::Epilogue& epilogue, const onednn::Desc* format);
void run_convolution(const onednn::Ready& ready, const void* x, const void* weights, const Tensor& bias, const void* residual, void* y);

/// y = activation(conv(x, filter) + bias) + residual
void convolve(const Geometry& g, const Tensor& x, const Tensor& filter, const Tensor& bias, onednn::Activation activation,
              const Tensor& residual, Tensor& y);

/// The same of x enlarged to twice its size by repeating pixels, with a 3x3 filter and padding 1.
void convolve_upsampled(const Geometry& g, const Tensor& x, const Tensor& filter, const Tensor& bias, onednn::Activation activation,
                        const Tensor& residual, Tensor& y);

/// a + b, by the kernel Add.
Tensor add(const Tensor& a, const Tensor& b);

}  // namespace td

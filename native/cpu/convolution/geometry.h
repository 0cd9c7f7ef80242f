#pragma once
#include "cpu/dnnl_api.h"

namespace td {

/// Sizes of a convolution over N,H,W,C with HWIO filters.
struct Geometry {
  int64_t batch, height, width, in, kernel_height, kernel_width, out, out_height, out_width;
  int64_t stride_h, stride_w, dilation_h, dilation_w, top, bottom, left, right;

  /// Attributes strides, pad [[top, bottom], [left, right]] and, if given, dilations.
  Geometry(const Shape& x, const Shape& filter, const Attributes& attributes);
  /// Stride 1, one pixel of padding on every side.
  bool three_by_three() const;
  Shape output() const { return {batch, out_height, out_width, out}; }
  double multiply_adds() const {
    return static_cast<double>(output().elements()) * static_cast<double>(in * kernel_height * kernel_width);
  }
  onednn::ConvolutionShape shape() const;
  onednn::Key& key(onednn::Key& k) const;
};

}  // namespace td

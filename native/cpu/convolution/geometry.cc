#include "cpu/convolution/geometry.h"

namespace td {
namespace {

int64_t length(int64_t n, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
  const int64_t room = n + pad - ((kernel - 1) * dilation + 1);
  return room < 0 ? 0 : room / stride + 1;
}

}  // namespace

Geometry::Geometry(const Shape& x, const Shape& filter, const Attributes& attributes) {
  require(x.rank == 4, "expects x [batch, height, width, channels], got rank ", x.rank);
  require(filter.rank == 4, "expects a filter [height, width, in, out], got rank ", filter.rank);
  require(x[3] == filter[2], "filter expects ", filter[2], " input channels, got ", x[3]);
  const auto strides = attributes.integers("strides"), pad = attributes.integers("pad");
  std::vector<int64_t> dilations{1, 1};
  if (attributes.has("dilations")) dilations = attributes.integers("dilations");
  require(strides.size() == 2 && strides[0] > 0 && strides[1] > 0, "strides must be two positive numbers");
  require(dilations.size() == 2 && dilations[0] > 0 && dilations[1] > 0, "dilations must be two positive numbers");
  require(pad.size() == 4, "pad must be [[top, bottom], [left, right]]");
  for (int64_t p : pad) require(p >= 0 && p < (1 << 24), "pad must not be negative, got ", p);
  require(filter[0] > 0 && filter[1] > 0, "needs a filter of at least one pixel");
  batch = x[0], height = x[1], width = x[2], in = x[3];
  kernel_height = filter[0], kernel_width = filter[1], out = filter[3];
  stride_h = strides[0], stride_w = strides[1], dilation_h = dilations[0], dilation_w = dilations[1];
  top = pad[0], bottom = pad[1], left = pad[2], right = pad[3];
  out_height = length(height, kernel_height, stride_h, dilation_h, top + bottom);
  out_width = length(width, kernel_width, stride_w, dilation_w, left + right);
}

bool Geometry::three_by_three() const {
  return kernel_height == 3 && kernel_width == 3 && top == 1 && bottom == 1 && left == 1 && right == 1 && stride_h == 1 &&
         stride_w == 1 && dilation_h == 1 && dilation_w == 1;
}

onednn::ConvolutionShape Geometry::shape() const {
  // oneDNN wants the trailing padding that makes the sizes come out exactly.
  const int64_t end_h = (out_height - 1) * stride_h + (kernel_height - 1) * dilation_h + 1 - height - top;
  const int64_t end_w = (out_width - 1) * stride_w + (kernel_width - 1) * dilation_w + 1 - width - left;
  return {{batch, in, height, width}, {out, in, kernel_height, kernel_width}, {batch, out, out_height, out_width},
          {stride_h, stride_w},       {dilation_h - 1, dilation_w - 1},       {top, left},
          {end_h, end_w}};
}

onednn::Key& Geometry::key(onednn::Key& k) const {
  for (int64_t v : {batch, height, width, in, kernel_height, kernel_width, out, stride_h, stride_w, dilation_h, dilation_w,
                    top, bottom, left, right})
    k.add(v);
  return k;
}

}  // namespace td

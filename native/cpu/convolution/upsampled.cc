#include "cpu/convert.h"
#include "cpu/convolution/direct.h"
#include "cpu/linear.h"
#include "cpu/packed.h"
#include "cpu/parallel.h"
#include "cpu/strided.h"

/// Nearest-2x upsampling and a 3x3 convolution with padding 1 as four 2x2 convolutions of the small image: output row
/// 2i + p sees rows i - 1 + p and i + p only, the middle tap of the filter falling on one of them.
namespace td {

using namespace onednn;

namespace {

constexpr int kPhases = 4;
using Primitives = std::vector<std::shared_ptr<const Ready>>;

/// That of the outputs in the rows and columns of one parity each.
Geometry phase_of(const Geometry& g, int phase) {
  const int64_t p = phase / 2, q = phase % 2;
  Geometry small = g;
  small.kernel_height = small.kernel_width = 2;
  small.top = 1 - p, small.bottom = p, small.left = 1 - q, small.right = q;
  small.out_height = g.height;
  small.out_width = g.width;
  return small;
}

/// Taps [3, 3, in, out] summed to those of a phase, [2, 2, in, out].
Tensor sum_taps(const Geometry& g, const float* w, int phase) {
  // First and last filter row that falls on image row 0 and 1 of each phase.
  constexpr int kFirst[2][2] = {{0, 1}, {0, 2}}, kLast[2][2] = {{0, 2}, {1, 2}};
  const int p = phase / 2, q = phase % 2;
  const int64_t block = g.in * g.out;
  Tensor sums = Tensor::empty(DType::f32, {2, 2, g.in, g.out});
  fill_zero(sums);
  for (int a = 0; a < 2; ++a) {
    for (int b = 0; b < 2; ++b) {
      float* to = sums.mutable_data<float>() + (a * 2 + b) * block;
      for (int i = kFirst[p][a]; i <= kLast[p][a]; ++i)
        for (int j = kFirst[q][b]; j <= kLast[q][b]; ++j)
          for (int64_t e = 0; e < block; ++e) to[e] += w[(i * 3 + j) * block + e];
    }
  }
  return sums;
}

std::shared_ptr<Packed> pack_phases(const Geometry& g, DType type, const Tensor& filter, const Primitives& ready) {
  auto packed = std::make_shared<Packed>();
  packed->kind = 'u';
  packed->stored = filter.dtype();
  packed->computed = type;
  const Tensor taps = as_type(filter, DType::f32);
  for (int phase = 0; phase < kPhases; ++phase) {
    const Tensor rounded = as_type(sum_taps(g, taps.data<float>(), phase), type);
    pack_part(*packed, {g.out, g.in, 2, 2}, Tag::hwio, rounded.raw(), ready[phase]->weights, Purpose::weights);
  }
  return packed;
}

/// The weights of all phases: the copy kept with the storage when it fits, else made now and kept.
std::shared_ptr<const Packed> phases_of(const Geometry& g, DType type, const Tensor& filter, const Primitives& ready) {
  auto packed = packed_as<Packed>(filter.storage->packed);
  bool fits = packed && packed->kind == 'u' && packed->parts.size() == kPhases;
  for (int i = 0; fits && i < kPhases; ++i) fits = packed->parts[i].packed == ready[i]->weights;
  if (fits) return packed;
  packed = pack_phases(g, type, filter, ready);
  // The sums do not give the nine taps back exactly: the plain copy stays.
  filter.storage->plain = filter.storage->plain_buffer();
  filter.storage->packed = packed;
  return packed;
}

}  // namespace

void convolve_upsampled(const Geometry& g, const Tensor& x, const Tensor& filter, const Tensor& bias, Activation activation,
                        const Tensor& residual, Tensor& y) {
  const ThreadsFor threads(g.multiply_adds());
  Primitives ready;
  for (int phase = 0; phase < kPhases; ++phase) {
    ready.push_back(convolution_primitive(phase_of(g, phase), x.dtype(), y.dtype(), static_cast<bool>(bias), {activation, false}, nullptr));
  }
  const auto packed = phases_of(g, x.dtype(), filter, ready);
  const size_t size = size_of(y.dtype());
  const Shape dims{g.batch, g.height, g.width, g.out};
  Tensor part = Tensor::empty(y.dtype(), dims);
  int64_t from[4];
  contiguous_strides(dims, from);
  const int64_t row = 2 * g.width * g.out;
  const int64_t to[4] = {2 * g.height * row, 2 * row, 2 * g.out, 1};
  for (int phase = 0; phase < kPhases; ++phase) {
    run_convolution(*ready[phase], x.raw(), packed->numbers(phase)->data(), bias, nullptr, part.mutable_raw());
    strided_copy(size, dims, part.raw(), from, y.mutable_data<char>() + (phase / 2 * row + phase % 2 * g.out) * size, to);
  }
  if (residual) y = add(y, residual);
}

}  // namespace td

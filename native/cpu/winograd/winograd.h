#pragma once
#include "core/tensor.h"

/// 3x3 convolution with a quarter of the multiplications: F(4x4, 3x3) of Lavin & Gray, "Fast Algorithms for Convolutional Neural
/// Networks" (2015), on the interpolation points 0, +-5/8, +-3/2 and infinity, which keep float32 as exact as the direct sum.
namespace td::winograd {

/// y = activation(conv(x) + offsets) + residual over N,H,W,C; stride 1, one pixel of zeros around the image.
struct Problem {
  int64_t batch, height, width;  // of y
  int64_t in, out;
  bool upsampled;            // x has half the height and width, each pixel standing for 2x2
  DType type;                // of x, residual and y: f32 or bf16; sums are float32
  DType weight_type;         // f32 or bf16
  const void* x;
  const void* weights;       // [3, 3, in, out], as a checkpoint's are after loading: transformed piece by piece, never kept
  const float* offsets;      // [out] per image, offset_stride apart (0: the same for all); may be null
  int64_t offset_stride;
  bool silu;
  const void* residual;      // may be null
  void* y;
};

/// Whether this CPU has the kernels and they take less time than a direct convolution of that size.
bool worthwhile(const Problem& problem);

/// False when x or the weights hold numbers that are not finite, which the transforms would spread over whole tiles; y is undefined
/// then. Throws OutOfMemory when there is no room for the transformed input: some 16 MB, more where 128 tiles need it (47 MB at 2560 channels).
bool convolve(const Problem& problem);

/// Tiles of 4x4 outputs that one task takes at most.
constexpr int64_t kTiles = 128;
/// Output channels of one task.
constexpr int64_t kColumns = 64;
/// Input channels whose weights are transformed at once.
constexpr int64_t kDepth = 128;
constexpr int64_t kPlaces = 36;

/// The transformed input of tiles [begin, end): [kPlaces][end - begin][row].
struct Band {
  float* data;
  int64_t begin, end, row;
};

struct Kernels {
  /// Transforms tiles [first, last) of the band; false when a number is not finite.
  bool (*input)(const Problem&, const Band&, int64_t first, int64_t last);
  /// Outputs [first, last) of the band for the channels from `column`; false when a weight is not finite. scratch: kScratch floats.
  bool (*output)(const Problem&, const Band&, int64_t first, int64_t last, int64_t column, float* scratch);
};
constexpr int64_t kScratch = kPlaces * kColumns * (kTiles + kDepth);

const Kernels* avx512_kernels();  // x86-64 only

}  // namespace td::winograd

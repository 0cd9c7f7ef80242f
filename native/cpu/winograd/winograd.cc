#include "cpu/winograd/winograd.h"

#include <omp.h>

#include <atomic>

#include "cpu/isa.h"

namespace td::winograd {

namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t tiles_of(const Problem& p) { return p.batch * divide_up(p.height, 4) * divide_up(p.width, 4); }

const Kernels* kernels() {
#if TD_X86
  if (isa() >= Isa::avx512) return avx512_kernels();
#endif
  return nullptr;
}

}  // namespace

bool worthwhile(const Problem& p) {
  if (!kernels()) return false;
  if (p.in % 16 || p.out % 16 || p.in < 64 || p.out < 64) return false;
  // Transforming the weights has to pay; bfloat16 products are twice as fast to begin with.
  const int64_t tiles = tiles_of(p), least = p.weight_type == DType::bf16 ? 24 : 8;
  return tiles >= least && 2 * p.batch * p.height * p.width >= 16 * tiles;
}

bool convolve(const Problem& p) {
  const Kernels& k = *kernels();
  const int64_t tiles = tiles_of(p), threads = omp_get_max_threads();
  // Rows a multiple of 512 bytes apart would crowd into few sets of the first cache.
  const int64_t row = p.in % 128 ? p.in : p.in + 16;
  const int64_t fitting = (int64_t{16} << 20) / (kPlaces * row * 4) / kTiles * kTiles;
  const int64_t step = std::min(tiles, std::max(fitting, kTiles));
  Buffer transformed(static_cast<size_t>(kPlaces * step * row) * sizeof(float));
  Buffer scratch(static_cast<size_t>(threads * kScratch) * sizeof(float));
  std::atomic<bool> finite{true};
  for (int64_t begin = 0; begin < tiles && finite; begin += step) {
    const Band band{static_cast<float*>(transformed.data()), begin, std::min(begin + step, tiles), row};
    const int64_t count = band.end - begin;
    constexpr int64_t kPart = 8;
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < divide_up(count, kPart); ++i) {
      if (!k.input(p, band, i * kPart, std::min((i + 1) * kPart, count))) finite = false;
    }
    if (!finite) break;
    const int64_t groups = divide_up(count, kTiles), columns = divide_up(p.out, kColumns);
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < groups * columns; ++i) {
      float* mine = static_cast<float*>(scratch.data()) + omp_get_thread_num() * kScratch;
      const int64_t group = i % groups;
      if (!k.output(p, band, count * group / groups, count * (group + 1) / groups, i / groups * kColumns, mine)) finite = false;
    }
  }
  return finite;
}

}  // namespace td::winograd

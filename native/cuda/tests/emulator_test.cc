// The emulator itself: fragments as the PTX manual numbers them, and the defects that it is there to find.
#include <doctest/doctest.h>

#include <set>

#include "cuda/kernels/device.cuh"
#include "device_memory.h"
#include "schedules.h"

using namespace td::cuda;
using test::DeviceArray;
using test::for_each_schedule;
namespace emu = td::cuda::emulator;

namespace {

emu::Grid block_of(unsigned threads, size_t shared = 0) { return {dim3(1), dim3(threads), shared, false}; }

/// PTX ISA 9.7.15.5, "Matrix Fragments for mma.m16n8k16" (and k8) "with floating point type": number i of a thread.
struct Manual {
  int group, thread;
  explicit Manual(int lane) : group(lane >> 2), thread(lane % 4) {}
  // .f16/.bf16, m16n8k16
  int a_row(int i) const { return (i >= 0 && i < 2) || (i >= 4 && i < 6) ? group : group + 8; }
  int a_column(int i) const { return i < 4 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8; }
  int b_row(int i) const { return i < 2 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8; }
  int b_column() const { return group; }
  int c_row(int i) const { return i < 2 ? group : group + 8; }
  int c_column(int i) const { return thread * 2 + (i & 1); }
  // .tf32, m16n8k8
  int tf32_a_row(int i) const { return i == 0 || i == 2 ? group : group + 8; }
  int tf32_a_column(int i) const { return i < 2 ? thread : thread + 4; }
  int tf32_b_row(int i) const { return i == 0 ? thread : thread + 4; }
};

template <emu::Type T, int K>
__global__ void product_kernel(const float* a, const float* b, float* c) {
  constexpr int per = emu::Fragment<T>::per, registers = K / (4 * per);
  const Manual at(threadIdx.x);
  uint32_t fa[2 * registers] = {}, fb[registers] = {};
  const auto put = [](uint32_t& to, float x, int i) {
    if (T == emu::Type::tf32) to = __float_as_uint(x);
    else if (T == emu::Type::f16) to |= uint32_t(emu::float_to_half(x)) << 16 * i;
    else to |= uint32_t(emu::float_to_bf16(x)) << 16 * i;
  };
  for (int i = 0; i < 2 * registers * per; ++i) {
    const int row = T == emu::Type::tf32 ? at.tf32_a_row(i) : at.a_row(i);
    const int column = T == emu::Type::tf32 ? at.tf32_a_column(i) : at.a_column(i);
    put(fa[i / per], a[row * K + column], i % per);
  }
  for (int i = 0; i < registers * per; ++i) put(fb[i / per], b[(T == emu::Type::tf32 ? at.tf32_b_row(i) : at.b_row(i)) * 8 + at.b_column()], i % per);
  float fc[4];
  for (int i = 0; i < 4; ++i) fc[i] = c[at.c_row(i) * 8 + at.c_column(i)];
  emu::mma<T, K>(fc, fa, fb);
  for (int i = 0; i < 4; ++i) c[at.c_row(i) * 8 + at.c_column(i)] = fc[i];
}

/// Small integers: every format and every order of sums gives the same numbers.
template <emu::Type T, int K>
void check_product() {
  std::vector<float> a(16 * K), b(K * 8), c(16 * 8);
  for (size_t i = 0; i < a.size(); ++i) a[i] = float(int(i * 7 % 11) - 5);
  for (size_t i = 0; i < b.size(); ++i) b[i] = float(int(i * 5 % 13) - 6);
  for (size_t i = 0; i < c.size(); ++i) c[i] = float(i % 17);
  DeviceArray<float> out(c);
  emu::run_grid(product_kernel<T, K>, block_of(32), a.data(), b.data(), out.data());
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 8; ++n) {
      float sum = c[m * 8 + n];
      for (int k = 0; k < K; ++k) sum += a[m * K + k] * b[k * 8 + n];
      CHECK(out[m * 8 + n] == sum);
    }
  }
}

template <class F>
std::string fault_of(const F& run) {
  try {
    run();
  } catch (const emu::Fault& fault) {
    return fault.what();
  }
  return "";
}
#define CHECK_FAULT(run, part)                                  \
  do {                                                          \
    const std::string found = fault_of([&] { run; });           \
    CAPTURE(found);                                             \
    CHECK(found.find(part) != std::string::npos);               \
  } while (0)

}  // namespace

TEST_CASE("fragments lie where the PTX manual says") {
  check_product<emu::Type::f16, 16>();
  check_product<emu::Type::bf16, 16>();
  check_product<emu::Type::f16, 8>();
  check_product<emu::Type::bf16, 8>();
  check_product<emu::Type::tf32, 8>();
}

namespace {
template <bool Transposed>
__global__ void matrices_kernel(uint32_t* out) {
  TD_DYNAMIC_SHARED(shared);
  uint16_t* tile = reinterpret_cast<uint16_t*>(shared);  // 4 matrices of 8 x 8, one under the other
  for (int i = threadIdx.x; i < 256; i += 32) tile[i] = i;
  __syncwarp();
  uint32_t r[4];
  load_matrices<Transposed>(r, tile + 8 * threadIdx.x);
  for (int i = 0; i < 4; ++i) out[threadIdx.x * 4 + i] = r[i];
}
__global__ void strided_rows_kernel(int stride) {
  TD_DYNAMIC_SHARED(shared);
  uint32_t r[4];
  load_matrices<false>(r, shared + stride * (threadIdx.x % 32));
}
}  // namespace

TEST_CASE("ldmatrix gives every lane two numbers of a row, or of a column") {
  DeviceArray<uint32_t> plain(128), transposed(128);
  emu::run_grid(matrices_kernel<false>, block_of(32, 512), plain.data());
  emu::run_grid(matrices_kernel<true>, block_of(32, 512), transposed.data());
  for (uint32_t lane = 0; lane < 32; ++lane) {
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t row = lane / 4, column = lane % 4 * 2, first = 64 * i;
      CHECK(plain[lane * 4 + i] == ((first + row * 8 + column) | (first + row * 8 + column + 1) << 16));
      CHECK(transposed[lane * 4 + i] == ((first + column * 8 + row) | (first + (column + 1) * 8 + row) << 16));
    }
  }
}

TEST_CASE("bank conflicts are counted") {
  const auto wavefronts = [](int stride) {
    emu::total() = emu::Counts();
    emu::run_grid(strided_rows_kernel, block_of(32, 32 * 144), stride);
    return double(emu::total().ldmatrix_wavefronts) / emu::total().ldmatrix_phases;
  };
  CHECK(wavefronts(80) == 1);
  CHECK(wavefronts(144) == 1);
  CHECK(wavefronts(128) == 8);
  CHECK(wavefronts(64) == 4);
}

namespace {
__global__ void shuffles_kernel(int* out) {
  const int lane = threadIdx.x % 32;
  out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, int(threadIdx.x), 5) * 10000 + __shfl_down_sync(0xffffffffu, lane, 3) * 100 + __shfl_up_sync(0xffffffffu, lane, 1);
  const unsigned low = 0x0000ffffu, high = 0xffff0000u;
  if (lane < 16) out[threadIdx.x] += 1000000 * int(__ballot_sync(low, lane % 2) == 0xaaaau);
  else out[threadIdx.x] += 1000000 * int(__ballot_sync(high, lane % 2) == 0xaaaa0000u);
}
__global__ void sum_kernel(float* out) {
  TD_SHARED(float, partial, 8);
  const float sum = warp_sum(float(threadIdx.x));
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  float all = 0;
  for (int i = 0; i < 8; ++i) all += partial[i];
  out[threadIdx.x] = all;
}
}  // namespace

TEST_CASE("shuffles, votes of half warps and sums of a block, in every order of warps") {
  for_each_schedule([] {
    DeviceArray<int> out(64);
    emu::run_grid(shuffles_kernel, block_of(64), out.data());
    for (int i = 0; i < 64; ++i) {
      const int lane = i % 32;
      CHECK(out[i] == 1000000 + (i ^ 5) * 10000 + (lane < 29 ? lane + 3 : lane) * 100 + (lane ? lane - 1 : 0));
    }
    DeviceArray<float> sums(256);
    emu::run_grid(sum_kernel, block_of(256), sums.data());
    for (int i = 0; i < 256; ++i) CHECK(sums[i] == 255 * 128);
  });
}

// --- planted defects ----------------------------------------------------------------------------------------------------------

namespace {

/// Each warp reads what the next one wrote.
template <bool Barrier>
__global__ void neighbour_kernel(float* out) {
  TD_DYNAMIC_SHARED(shared);
  float* numbers = reinterpret_cast<float*>(shared);
  numbers[threadIdx.x] = threadIdx.x;
  if (Barrier) __syncthreads();
  out[threadIdx.x] = numbers[(threadIdx.x + 32) % 128];
}

/// A ring of two tiles that cp.async fills; `Wait` groups may be in flight when a tile is read, `Early` fetches before the barrier.
template <int Wait, bool Early>
__global__ void ring_kernel(const float* in, float* out, int tiles) {
  TD_DYNAMIC_SHARED(shared);
  float* ring = reinterpret_cast<float*>(shared);
  const int t = threadIdx.x;
  const auto fetch = [&](int tile) {
    if (tile < tiles && t < 32) copy_async(ring + tile % 2 * 128 + t * 4, in + tile * 128 + t * 4, 16);
    copy_commit();
  };
  fetch(0);
  for (int tile = 0; tile < tiles; ++tile) {
    if (Early) fetch(tile + 1);
    copy_wait<Wait>();
    __syncthreads();
    if (!Early) fetch(tile + 1);
    out[tile * 128 + t] = ring[tile % 2 * 128 + (t + 64) % 128];
  }
  copy_wait<0>();
}

template <int Wait, bool Early>
std::set<bool> ring_results() {
  std::vector<float> in(512);
  for (size_t i = 0; i < in.size(); ++i) in[i] = float(i);
  std::set<bool> right;
  for_each_schedule([&] {
    DeviceArray<float> source(in), out(512);
    emu::run_grid(ring_kernel<Wait, Early>, block_of(128, 1024), source.data(), out.data(), 4);
    bool same = true;
    for (int i = 0; i < 512; ++i) same = same && out[i] == float(i / 128 * 128 + (i + 64) % 128);
    right.insert(same);
  });
  return right;
}

__global__ void diverged_kernel(int* out) {
  if (threadIdx.x % 32 < 4) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
  else __syncwarp();
}
__global__ void lost_lane_kernel(int* out) {
  if (threadIdx.x == 7) return;
  out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
}
__global__ void wrong_mask_kernel(int* out) { out[threadIdx.x] = __shfl_sync(0x0000ffffu, 1, 0); }
__global__ void outside_mask_kernel(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0x0000ffffu, 1, 20);
}
__global__ void lost_warp_kernel() {
  if (threadIdx.x < 32) named_barrier(1, 64);
}
__global__ void counts_kernel() { named_barrier(1, threadIdx.x < 32 ? 64 : 96); }
__global__ void misaligned_copy_kernel(const char* in) {
  TD_DYNAMIC_SHARED(shared);
  copy_async(shared, in + 4, 16);
  copy_commit();
  copy_wait<0>();
}
__global__ void outside_copy_kernel(const char* in) {
  TD_DYNAMIC_SHARED(shared);
  copy_async(shared + 1024, in, 16);
  copy_commit();
  copy_wait<0>();
}
__global__ void unwaited_copy_kernel(const char* in) {
  TD_DYNAMIC_SHARED(shared);
  copy_async(shared, in, 16);
  copy_commit();
}
__global__ void uncommitted_copy_kernel(const char* in) {
  TD_DYNAMIC_SHARED(shared);
  copy_async(shared, in, 16);
}
__global__ void unwritten_kernel(float* out) {
  TD_DYNAMIC_SHARED(shared);
  TD_SHARED(float, fixed, 32);
  out[threadIdx.x] = reinterpret_cast<float*>(shared)[threadIdx.x];
  out[32 + threadIdx.x] = fixed[threadIdx.x];
  fixed[threadIdx.x] = 1;
}

}  // namespace

TEST_CASE("a missing barrier shows in some order of warps") {
  int wrong = 0;
  for_each_schedule([&] {
    DeviceArray<float> with(128), without(128);
    emu::run_grid(neighbour_kernel<true>, block_of(128, 512), with.data());
    emu::run_grid(neighbour_kernel<false>, block_of(128, 512), without.data());
    for (int i = 0; i < 128; ++i) CHECK(with[i] == (i + 32) % 128);
    for (int i = 0; i < 128; ++i) wrong += without[i] != (i + 32) % 128;
  });
  CHECK(wrong > 0);
}

TEST_CASE("asynchronous copies: a right ring is right at both extremes; a wait too late and a fetch too soon are not") {
  CHECK(ring_results<0, false>() == std::set<bool>{true});
  CHECK(ring_results<1, false>().count(false) == 1);
  CHECK(ring_results<1, true>().count(false) == 1);
}

TEST_CASE("faults are named") {
  DeviceArray<int> out(64);
  DeviceArray<char> in(64);
  CHECK_FAULT(emu::run_grid(diverged_kernel, block_of(32), out.data()), "lanes of one warp meet in different instructions");
  CHECK_FAULT(emu::run_grid(lost_lane_kernel, block_of(32), out.data()), "the block is stuck");
  CHECK_FAULT(emu::run_grid(wrong_mask_kernel, block_of(32), out.data()), "a lane is not in the mask");
  CHECK_FAULT(emu::run_grid(outside_mask_kernel, block_of(32), out.data()), "a shuffle reads a lane outside of its mask");
  CHECK_FAULT(emu::run_grid(lost_warp_kernel, block_of(64)), "the block is stuck");
  CHECK_FAULT(emu::run_grid(counts_kernel, block_of(96)), "different counts");
  CHECK_FAULT(emu::run_grid(misaligned_copy_kernel, block_of(32, 1024), in.data()), "misaligned");
  CHECK_FAULT(emu::run_grid(outside_copy_kernel, block_of(32, 1024), in.data()), "outside of shared memory");
  CHECK_FAULT(emu::run_grid(unwaited_copy_kernel, block_of(32, 1024), in.data()), "copies in flight");
  CHECK_FAULT(emu::run_grid(uncommitted_copy_kernel, block_of(32, 1024), in.data()), "uncommitted");
  CHECK_FAULT(emu::run_grid(strided_rows_kernel, block_of(32, 32 * 144), 72), "aligned to 16 bytes");
  CHECK_FAULT(emu::run_grid(strided_rows_kernel, block_of(32, 1024), 80), "outside of shared memory");
  CHECK_FAULT(emu::run_grid(lost_warp_kernel, block_of(2048)), "at most 1024 threads");
  CHECK_FAULT(emu::run_grid(lost_warp_kernel, {dim3(1, 70000), dim3(32), 0, false}), "65535");
  CHECK_FAULT(emu::run_grid(lost_warp_kernel, block_of(64, 300 << 10)), "227 KB");
  CHECK_FAULT(emu::run_grid(lost_warp_kernel, {dim3(1), dim3(64), 0, true}), "independent");
}

TEST_CASE("a fault ends the grid, not the process, and the next grid is right") {
  DeviceArray<float> out(256);
  for (int i = 0; i < 20; ++i) {
    CHECK_FAULT(emu::run_grid(lost_warp_kernel, {dim3(50), dim3(64), 0, false}), "stuck");
    emu::run_grid(sum_kernel, block_of(256), out.data());
    CHECK(out[77] == 255 * 128);
  }
}

TEST_CASE("shared memory holds NaN until it is written, in every block anew") {
  DeviceArray<float> out(64);
  for (int i = 0; i < 3; ++i) {
    emu::run_grid(unwritten_kernel, {dim3(3), dim3(32), 128, false}, out.data());
    for (int j = 0; j < 64; ++j) CHECK(std::isnan(out[j]));
  }
}

TEST_CASE("numbers are rounded as the hardware does") {
  CHECK(round_bits(half16(), 65520.f) == 0x7c00);
  CHECK(round_bits(half16(), 2049.f) == emu::float_to_half(2048.f));
  CHECK(round_bits(half16(), 5.9604645e-8f) == 1);
  CHECK(round_bits(bfloat16(), 1.00390625f) == 0x3f80);
  CHECK(round_bits(bfloat16(), 1.01171875f) == 0x3f82);
  CHECK(round_bits(bfloat16(), NAN) == 0x7fff);
  CHECK(__uint_as_float(to_tf32(1.00048828125f)) == 1.0009765625f);
  const float a[8] = {1, 1e-8f, 1e-8f, 1e-8f}, b[8] = {1, 1, 1, 1};
  CHECK(emu::truncated_dot(a, b, 8, 1, 0) == 1);
}

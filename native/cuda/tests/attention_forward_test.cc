// Attention forward against softmax in float64 of the same rounded inputs: head sizes, tails, layouts, bias, masks.
#include <doctest/doctest.h>

#include <cstdio>

#include "attention_reference.h"
#include "schedules.h"

using namespace td::cuda;
using namespace td::cuda::test;

namespace {

template <class T, int D, int M, int Keys, bool Bias>
using Tile = AttentionForward<T, D, 4, M, Keys, 2, Bias>;

template <class T, int D, int M, int Keys>
AttentionCase::Run tensor_cores() {
  return [](const AttentionArguments& p, int batch) {
    if (p.bias.data) {
      using F = Tile<T, D, 1, Keys, true>;
      emulator::run_grid(attention_forward_kernel<F>, {dim3((p.queries + F::kRows - 1) / F::kRows * batch * p.heads), dim3(F::kThreads), size_t(F::kShared), false}, p);
    } else {
      using F = Tile<T, D, M, Keys, false>;
      emulator::run_grid(attention_forward_kernel<F>, {dim3((p.queries + F::kRows - 1) / F::kRows * batch * p.heads), dim3(F::kThreads), size_t(F::kShared), false}, p);
    }
  };
}
template <class T, int Columns>
AttentionCase::Run ordinary_cores() {
  return [](const AttentionArguments& p, int batch) {
    using F = AttentionFloat<T, Columns>;
    const dim3 grid((p.queries + 63) / 64 * batch * p.heads, (p.value_size + Columns - 1) / Columns);
    emulator::run_grid(attention_float_kernel<T, Columns>, {grid, dim3(256), size_t(F::kShared), false}, p);
  };
}

template <class T>
AttentionCase::Run run_for(int head_size) {
  if constexpr (std::is_same_v<T, float>) return head_size <= 64 ? ordinary_cores<T, 64>() : ordinary_cores<T, 256>();
  else {
    if (head_size <= 40) return tensor_cores<T, 40, 2, 64>();
    if (head_size <= 64) return tensor_cores<T, 64, 2, 64>();
    if (head_size <= 80) return tensor_cores<T, 80, 1, 64>();
    if (head_size <= 96) return tensor_cores<T, 96, 1, 48>();
    if (head_size <= 128) return tensor_cores<T, 128, 1, 48>();
    if (head_size <= 160) return tensor_cores<T, 160, 1, 32>();
    return tensor_cores<T, 256, 1, 32>();
  }
}

template <class T>
void compare(const AttentionCase& c) {
  const AttentionOutcome<T> r = run_attention<T>(c, run_for<T>(std::max(c.head_size, c.value_size)));
  std::printf("  %-34s error %.2e, %.2f of rounding, lse %.1e\n", c.text().c_str(), r.error.relative(), r.error.times(), r.lse_error);
  CAPTURE(c.text());
  if (sizeof(Number<T>) == 2) CHECK(r.error.times() < 1.5);
  else CHECK(r.error.relative() < 1e-6);
  CHECK(r.lse_error < 1e-5);
}

const AttentionCase kCases[] = {
    {1, 2, 77, 77, 40, 40},
    {2, 2, 100, 77, 40, 40, AttentionLayout::tokens},
    {1, 1, 300, 200, 40, 40},
    {1, 2, 1, 1, 40, 40},
    {1, 2, 129, 65, 64, 64, AttentionLayout::packed},
    {1, 1, 155, 130, 80, 80},
    {1, 1, 70, 77, 96, 96},
    {1, 1, 70, 77, 128, 128},
    {1, 2, 64, 77, 160, 160, AttentionLayout::tokens},
    {1, 1, 65, 40, 256, 256},
    {1, 2, 33, 50, 8, 8, AttentionLayout::tokens},
    {1, 2, 33, 50, 5, 7, AttentionLayout::tokens},
    {1, 1, 20, 70, 48, 72},
    {1, 2, 90, 77, 40, 40, AttentionLayout::heads, true},
    {2, 1, 77, 130, 64, 64, AttentionLayout::tokens, true},
    {1, 1, 50, 40, 160, 160, AttentionLayout::heads, true},
    {1, 1, 77, 77, 64, 64, AttentionLayout::packed, false, true},
    {1, 1, 130, 70, 40, 40, AttentionLayout::heads, true, true},
};

}  // namespace

TEST_CASE("attention forward in half precision") {
  for (const AttentionCase& c : kCases) compare<half16>(c);
}
TEST_CASE("attention forward in bfloat16") {
  for (const AttentionCase& c : kCases) compare<bfloat16>(c);
}
TEST_CASE("attention forward in float32, also with heads of 512 channels") {
  for (const AttentionCase& c : kCases) compare<float>(c);
  compare<float>({1, 1, 70, 66, 512, 512});
}

TEST_CASE("attention forward does not depend on the schedule") {
  for (int i : {1, 4, 8, 13, 15}) {
    std::vector<uint16_t> first;
    for_each_schedule([&] {
      const auto out = run_attention<half16>(kCases[i], run_for<half16>(kCases[i].head_size)).out;
      if (first.empty()) first = out;
      CAPTURE(kCases[i].text());
      CHECK(out == first);
    });
  }
  std::vector<float> first;
  for_each_schedule([&] {
    const auto out = run_attention<float>(kCases[14], run_for<float>(64)).out;
    if (first.empty()) first = out;
    CHECK(out == first);
  });
}

TEST_CASE("attention forward with sums cut off as tensor cores do") {
  emulator::options().truncate = true;
  const auto r = run_attention<half16>(kCases[4], run_for<half16>(64));
  emulator::options().truncate = false;
  CHECK(r.error.times() < 1.5);
}

// Attention with wgmma, bulk copies and mbarriers against float64 of the same rounded inputs.
#include <doctest/doctest.h>

#include <cstdio>

#include "attention_reference.h"
#include "cuda/kernels/attention_hopper.cuh"
#include "schedules.h"

using namespace td::cuda;
using namespace td::cuda::test;

namespace {

TensorMap map_of(const AttentionTensor& x, const AttentionCase& c, int tokens, int size, int rows) {
  TensorMap map{};
  map.base = static_cast<const char*>(x.data);
  const uint64_t dims[4] = {uint64_t(size), uint64_t(tokens), uint64_t(c.heads), uint64_t(c.batch)};
  const int64_t strides[4] = {1, x.strides.token, x.strides.head, x.strides.batch};
  for (int i = 0; i < 4; ++i) map.dims[i] = dims[i], map.strides[i] = 2 * strides[i], map.box[i] = 1;
  map.box[0] = 64, map.box[1] = rows;
  map.rank = 4, map.size = 2, map.swizzle = 128;
  return map;
}

template <class T, int D, int Keys, int Stages>
AttentionCase::Run hopper(const AttentionCase& c) {
  return [c](const AttentionArguments& p, int batch) {
    using F = AttentionHopper<T, D, Keys, Stages, 4>;
    const AttentionHopperArguments all{p, map_of(p.q, c, p.queries, p.head_size, 64), map_of(p.k, c, p.keys, p.head_size, Keys),
                                       map_of(p.v, c, p.keys, p.value_size, Keys)};
    emulator::run_grid(attention_hopper_kernel<F>, {dim3((p.queries + F::kRows - 1) / F::kRows * batch * p.heads), dim3(F::kThreads), size_t(F::kShared), false}, all);
  };
}
template <class T>
AttentionCase::Run run_for(const AttentionCase& c) {
  if (c.head_size <= 40) return hopper<T, 40, 128, 2>(c);
  if (c.head_size <= 64) return hopper<T, 64, 128, 2>(c);
  if (c.head_size <= 80) return hopper<T, 80, 64, 2>(c);
  if (c.head_size <= 96) return hopper<T, 96, 64, 2>(c);
  if (c.head_size <= 128) return hopper<T, 128, 64, 2>(c);
  return hopper<T, 160, 64, 2>(c);
}

const AttentionCase kCases[] = {
    {1, 2, 77, 77, 40, 40},
    {2, 2, 140, 300, 40, 40, AttentionLayout::tokens},
    {1, 2, 129, 129, 64, 64, AttentionLayout::packed},
    {1, 1, 130, 200, 80, 80},
    {1, 1, 40, 77, 96, 96},
    {1, 1, 70, 140, 128, 128, AttentionLayout::tokens},
    {1, 2, 64, 77, 160, 160, AttentionLayout::tokens},
    {1, 1, 20, 30, 24, 24},
    {1, 1, 300, 300, 64, 64, AttentionLayout::packed, false, true},
    {1, 1, 1, 1, 40, 40},
};

}  // namespace

TEST_CASE_TEMPLATE("attention on Hopper", T, half16, bfloat16) {
  for (const AttentionCase& c : kCases) {
    const AttentionOutcome<T> r = run_attention<T>(c, run_for<T>(c));
    std::printf("  %-34s error %.2e, %.2f of rounding, lse %.1e\n", c.text().c_str(), r.error.relative(), r.error.times(), r.lse_error);
    CAPTURE(c.text());
    CHECK(r.error.times() < 1.5);
    CHECK(r.lse_error < 1e-5);
  }
}

TEST_CASE("attention on Hopper does not depend on the schedule") {
  for (int i : {1, 2, 6, 8}) {
    std::vector<uint16_t> first;
    for_each_schedule([&] {
      const auto out = run_attention<half16>(kCases[i], run_for<half16>(kCases[i])).out;
      if (first.empty()) first = out;
      CAPTURE(kCases[i].text());
      CHECK(out == first);
    });
  }
}

TEST_CASE("the polynomial of 2^x") {
  for (float x = -140; x <= 0; x += 0.0173f) CHECK(exp2_polynomial(x) == doctest::Approx(x < -125 ? 0. : std::exp2(double(x))).epsilon(4e-6));
  CHECK(exp2_polynomial(-INFINITY) == 0);
  CHECK(exp2_polynomial(0) == doctest::Approx(1).epsilon(4e-6));
}

#include "cpu/isa.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/errors.h"

namespace td {
namespace {

Isa detect() {
#if TD_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && __builtin_cpu_supports("avx512bf16")) return Isa::avx512_bf16;
  if (avx512) return Isa::avx512;
  if (avx2) return Isa::avx2;
#endif
  return Isa::base;
}

/// What older processors have, for the tests of a newer one.
Isa allowed() {
  const char* most = std::getenv("TFJS_DIFFUSERS_ISA");
  const Isa best = detected_isa();
  if (!most) return best;
  const std::pair<const char*, Isa> names[] = {{"base", Isa::base}, {"avx2", Isa::avx2}, {"avx512", Isa::avx512}};
  for (const auto& [name, isa] : names)
    if (!std::strcmp(most, name)) return isa < best ? isa : best;
  return best;
}

std::atomic<Isa>& chosen() {
  static std::atomic<Isa> value{allowed()};
  return value;
}

}  // namespace

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::avx2:
      return "AVX2";
    case Isa::avx512:
      return "AVX-512";
    case Isa::avx512_bf16:
      return "AVX-512 BF16";
    default:
      return "baseline";
  }
}

Isa detected_isa() {
  static const Isa best = detect();
  return best;
}

Isa isa() { return chosen().load(std::memory_order_relaxed); }

void set_isa(Isa isa) {
  require(isa <= detected_isa(), "this machine has no ", name_of(isa), ", its best is ", name_of(detected_isa()));
  chosen().store(isa, std::memory_order_relaxed);
}

}  // namespace td

#include <cstdlib>
#include <cstring>

#include "cpu/simd/loops.h"

namespace td::simd {

namespace base {
extern const Loops table;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Loops table;
}
namespace avx512 {
extern const Loops table;
}
#endif

CpuFeatures cpu_features() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return {avx2, avx512, avx512 && __builtin_cpu_supports("avx512bf16"), false};
#else
  return {false, false, false, false};
#endif
}

const Loops& loops() {
  static const Loops& chosen = []() -> const Loops& {
#if defined(__x86_64__)
    // TFJS_DIFFUSERS_ISA=avx2|base lets the tests of a newer machine run the code for older ones.
    const char* most = std::getenv("TFJS_DIFFUSERS_ISA");
    const bool only_base = most && !std::strcmp(most, "base");
    const bool only_avx2 = most && !std::strcmp(most, "avx2");
    const CpuFeatures cpu = cpu_features();
    if (cpu.avx512 && !only_avx2 && !only_base) return avx512::table;
    if (cpu.avx2 && !only_base) return avx2::table;
#endif
    return base::table;
  }();
  return chosen;
}

}  // namespace td::simd

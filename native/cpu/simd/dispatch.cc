#include "cpu/simd/loops.h"

#include "cpu/isa.h"

namespace td::simd {

namespace base {
extern const Loops table;
}
#if TD_X86
namespace avx2 {
extern const Loops table;
}
namespace avx512 {
extern const Loops table;
}
#endif

const Loops& loops() {
#if TD_X86
  const Isa best = isa();
  if (best >= Isa::avx512) return avx512::table;
  if (best == Isa::avx2) return avx2::table;
#endif
  return base::table;
}

}  // namespace td::simd

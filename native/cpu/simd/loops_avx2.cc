#define TD_LOOPS avx2
#include "cpu/simd/loops.inc"

#define TD_LOOPS avx512
#include "cpu/simd/loops.inc"

#define TD_ISA avx2
#define TD_ISA_NAME "AVX2"
#include "cpu/simd/loops.inc"

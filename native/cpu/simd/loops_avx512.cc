#define TD_ISA avx512
#define TD_ISA_NAME "AVX-512"
#include "cpu/simd/loops.inc"

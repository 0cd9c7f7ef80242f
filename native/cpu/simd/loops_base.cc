#define TD_ISA base
#define TD_ISA_NAME "baseline"
#include "cpu/simd/loops.inc"

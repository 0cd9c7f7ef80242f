#define TD_LOOPS base
#include "cpu/simd/loops.inc"

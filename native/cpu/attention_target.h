// ATTENTION_TARGET("...") ... ATTENTION_TARGET_END: compiles the functions in between for an instruction set, whatever the flags of the
// build, so that one binary holds every path. Standard headers come before it: their inline functions must stay portable.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#define ATTENTION_X86 1
#define ATTENTION_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define ATTENTION_TARGET(features) \
  ATTENTION_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define ATTENTION_TARGET_END _Pragma("clang attribute pop")
#else
// GCC 12's AVX-512 headers start from deliberately undefined vectors and warn about them wherever they are inlined (GCC bug 105593).
#define ATTENTION_TARGET(features)                                                           \
  _Pragma("GCC push_options") ATTENTION_PRAGMA(GCC target(features))                         \
  _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wuninitialized\"")       \
  _Pragma("GCC diagnostic ignored \"-Wmaybe-uninitialized\"")
#define ATTENTION_TARGET_END _Pragma("GCC diagnostic pop") _Pragma("GCC pop_options")
#endif
#else
#define ATTENTION_X86 0
#endif

#if defined(__GNUC__)
#define ATTENTION_UNROLL _Pragma("GCC unroll 32")
#define ATTENTION_INLINE inline __attribute__((always_inline))
#else
#define ATTENTION_UNROLL
#define ATTENTION_INLINE inline
#endif

// Attention with the dot products of ARMv8.2.

#pragma STDC FP_CONTRACT OFF

#if defined(__aarch64__) && !defined(__AARCH64EB__)

#if defined(__clang__)
#define TCK_TARGET __attribute__((target("+dotprod")))
#else
#define TCK_TARGET __attribute__((target("arch=armv8.2-a+dotprod")))  // gcc adds it to no older architecture.
#endif
#define TCK_ATTENTION(name) tck_neondotprod_##name
#define TCK_DOT_PRODUCTS true

#include "neon_attention.h"

#endif

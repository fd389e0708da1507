// Attention with what every AArch64 processor has.

#pragma STDC FP_CONTRACT OFF

#if defined(__aarch64__) && !defined(__AARCH64EB__)

#define TCK_TARGET
#define TCK_ATTENTION(name) tck_neon_##name
#define TCK_DOT_PRODUCTS false

#include "neon_attention.h"

#endif

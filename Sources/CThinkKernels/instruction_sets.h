// The kernel tables of this build; dispatch.c chooses among them.

#ifndef THINK_KERNELS_INSTRUCTION_SETS_H
#define THINK_KERNELS_INSTRUCTION_SETS_H

#include "think_kernels.h"

#if defined(__GNUC__) && !defined(__clang__)
// gcc has its own spelling of FP_CONTRACT OFF, and fuses vector operations too without it.
#pragma GCC optimize("fp-contract=off")
#endif

#define TCK_HIDDEN __attribute__((visibility("hidden")))

TCK_HIDDEN extern const tck_kernels tck_scalar_kernels;

#if defined(__x86_64__)
TCK_HIDDEN extern const tck_kernels tck_avx2_kernels;
TCK_HIDDEN extern const tck_kernels tck_avx512_kernels;
// What is no faster with wider vectors.
TCK_HIDDEN uint32_t tck_avx2_crc32c(uint32_t crc, const void *bytes, size_t count);
#elif defined(__aarch64__) && !defined(__AARCH64EB__)
TCK_HIDDEN extern const tck_kernels tck_neon_kernels;
#endif

#endif

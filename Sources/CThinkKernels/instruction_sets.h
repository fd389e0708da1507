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
TCK_HIDDEN extern const tck_kernels tck_avx512vnni_kernels;
// What is no faster with wider vectors.
TCK_HIDDEN uint32_t tck_avx2_crc32c(uint32_t crc, const void *bytes, size_t count);
// What needs more of wider vectors than AVX-512 without VNNI has.
TCK_HIDDEN void tck_avx2_attend_blocks(const tck_block_format *format, const void *blocks, size_t block_count,
                                       tck_queries *queries, const void *next, size_t next_byte_count);
TCK_HIDDEN void tck_avx2_attend_rows(tck_rows keys, tck_rows values, size_t tokens, size_t key_dimension,
                                     size_t value_dimension, tck_queries *queries);
TCK_HIDDEN void tck_avx2_join_scores(float *scores, size_t tokens, size_t value_dimension, tck_queries *queries);
TCK_HIDDEN void tck_avx2_multiply_gates(tck_activation activation, float *gates, const float *ups, size_t count);
#elif defined(__aarch64__) && !defined(__AARCH64EB__)
TCK_HIDDEN extern const tck_kernels tck_neon_kernels;
TCK_HIDDEN extern const tck_kernels tck_neondotprod_kernels;
TCK_HIDDEN void tck_neon_attend_blocks(const tck_block_format *format, const void *blocks, size_t block_count,
                                       tck_queries *queries, const void *next, size_t next_byte_count);
TCK_HIDDEN void tck_neon_attend_rows(tck_rows keys, tck_rows values, size_t tokens, size_t key_dimension,
                                     size_t value_dimension, tck_queries *queries);
TCK_HIDDEN void tck_neon_join_scores(float *scores, size_t tokens, size_t value_dimension, tck_queries *queries);
TCK_HIDDEN void tck_neon_multiply_gates(tck_activation activation, float *gates, const float *ups, size_t count);
TCK_HIDDEN void tck_neondotprod_attend_blocks(const tck_block_format *format, const void *blocks, size_t block_count,
                                              tck_queries *queries, const void *next, size_t next_byte_count);
TCK_HIDDEN void tck_neondotprod_attend_rows(tck_rows keys, tck_rows values, size_t tokens, size_t key_dimension,
                                            size_t value_dimension, tck_queries *queries);
TCK_HIDDEN void tck_neondotprod_join_scores(float *scores, size_t tokens, size_t value_dimension,
                                            tck_queries *queries);
TCK_HIDDEN void tck_neondotprod_multiply_gates(tck_activation activation, float *gates, const float *ups,
                                               size_t count);
#endif

#endif

// The kernels of archive coding of each instruction set, which have files of their own.

#ifndef THINK_KERNELS_ARCHIVE_KERNELS_H
#define THINK_KERNELS_ARCHIVE_KERNELS_H

#include "instruction_sets.h"

/// Declares a set's kernels.
#define TCK_ARCHIVE_KERNELS(prefix)                                                                                   \
  TCK_HIDDEN void prefix##multiply_in_order(const float *left, size_t left_row_stride, size_t left_inner_stride,      \
                                            size_t rows, const float *right, size_t right_stride, size_t inner,       \
                                            size_t columns, float *outputs, size_t output_stride);                    \
  TCK_HIDDEN void prefix##decode_symbols(tck_symbol_decoder *decoder, unsigned table, size_t count, int8_t *symbols); \
  TCK_HIDDEN void prefix##widen_codes(const int16_t *codes, size_t count, float step, float *numbers);                \
  TCK_HIDDEN bool prefix##round_to_codes(const float *numbers, size_t count, float inverse_step, int16_t *codes);     \
  TCK_HIDDEN void prefix##rotate_pairs(float *rows, size_t count, size_t row_stride, size_t pairs,                    \
                                       const float *cosines, const float *sines, bool inverse);

/// Their places in the set's table.
#define TCK_ARCHIVE_TABLE(prefix)                     \
  .multiply_in_order = prefix##multiply_in_order,     \
  .decode_symbols = prefix##decode_symbols,           \
  .widen_codes = prefix##widen_codes,                 \
  .round_to_codes = prefix##round_to_codes,           \
  .rotate_pairs = prefix##rotate_pairs

TCK_ARCHIVE_KERNELS(tck_scalar_)
#if defined(__x86_64__)
TCK_ARCHIVE_KERNELS(tck_avx2_)
TCK_ARCHIVE_KERNELS(tck_avx512_)
#elif defined(__aarch64__) && !defined(__AARCH64EB__)
TCK_ARCHIVE_KERNELS(tck_neon_)
#endif

/// The frequencies of every table: generated.
TCK_HIDDEN extern const uint16_t tck_archive_frequencies[TCK_SYMBOL_TABLES][TCK_SYMBOLS];

#endif

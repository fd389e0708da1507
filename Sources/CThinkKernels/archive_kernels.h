// The kernels of archive coding of each instruction set, which have files of their own.

#ifndef THINK_KERNELS_ARCHIVE_KERNELS_H
#define THINK_KERNELS_ARCHIVE_KERNELS_H

#include "instruction_sets.h"

/// Declares a set's kernels.
#define TCK_ARCHIVE_KERNELS(prefix)                                                                                   \
  TCK_HIDDEN void prefix##multiply_in_order(const float *left, size_t left_row_stride, size_t left_inner_stride,      \
                                            size_t rows, const float *right, size_t right_stride, size_t inner,       \
                                            size_t columns, float *outputs, size_t output_stride);                    \
  TCK_HIDDEN void prefix##add_sparse_products(const int16_t *codes, size_t code_stride, size_t rows,                  \
                                              const float *right, size_t right_stride, size_t inner, size_t columns,  \
                                              float *outputs, size_t output_stride);                                  \
  TCK_HIDDEN void prefix##encode_symbols(tck_symbol_encoder *encoder, unsigned table, const int16_t *symbols,         \
                                         size_t count);                                                               \
  TCK_HIDDEN void prefix##decode_symbols(const tck_symbol_call *calls, size_t call_count, size_t count);              \
  TCK_HIDDEN void prefix##widen_codes(const int16_t *codes, size_t count, float step, float *numbers);                \
  TCK_HIDDEN bool prefix##round_to_codes(const float *numbers, size_t count, float inverse_step, int16_t *codes);     \
  TCK_HIDDEN void prefix##restore_rows(const float *sums, size_t sum_stride, size_t count, size_t dimension,          \
                                       const float *steps, const float *means, size_t pairs, const float *cosines,    \
                                       const float *sines, float *rows);                                              \
  TCK_HIDDEN void prefix##rotate_back(float *rows, size_t count, size_t row_stride, size_t pairs,                     \
                                      const float *cosines, const float *sines);

/// Their places in the set's table.
#define TCK_ARCHIVE_TABLE(prefix)                     \
  .multiply_in_order = prefix##multiply_in_order,     \
  .add_sparse_products = prefix##add_sparse_products, \
  .encode_symbols = prefix##encode_symbols,           \
  .decode_symbols = prefix##decode_symbols,           \
  .widen_codes = prefix##widen_codes,                 \
  .round_to_codes = prefix##round_to_codes,           \
  .restore_rows = prefix##restore_rows,               \
  .rotate_back = prefix##rotate_back

TCK_ARCHIVE_KERNELS(tck_scalar_)
#if defined(__x86_64__)
TCK_ARCHIVE_KERNELS(tck_avx2_)
TCK_ARCHIVE_KERNELS(tck_avx512_)
#elif defined(__aarch64__) && !defined(__AARCH64EB__)
TCK_ARCHIVE_KERNELS(tck_neon_)
#endif

/// One pair of restore_rows, of one row, and of rotate_back.
TCK_HIDDEN void tck_scalar_restore_pair(const float *sums, float step, const float *means, size_t pair, size_t pairs,
                                        const float *cosines, const float *sines, float *rows);
TCK_HIDDEN void tck_scalar_rotate_pair_back(float *row, size_t pair, size_t pairs, const float *cosines,
                                            const float *sines);

/// Decodes the symbols of one decoder, from number `first` on.
TCK_HIDDEN void tck_scalar_decode_alone(tck_symbol_call call, size_t first, size_t count);

/// A table's symbols by their lowest 6 bits: the frequency in the highest 16 bits, and in the lowest the sum of the
/// frequencies of the symbols before it.
TCK_HIDDEN const uint32_t *tck_symbol_ranges(unsigned table);

/// 2^TCK_RECIPROCAL_BITS divided by the frequency of a table's symbols, rounded down, by their lowest 6 bits.
TCK_HIDDEN const uint64_t *tck_symbol_reciprocals(unsigned table);

/// Bits of a frequency, and of a reciprocal.
#define TCK_FREQUENCY_BITS 12
#define TCK_RECIPROCAL_BITS 43

/// The frequencies of every table: generated.
TCK_HIDDEN extern const uint16_t tck_archive_frequencies[TCK_SYMBOL_TABLES][TCK_SYMBOLS];

#endif

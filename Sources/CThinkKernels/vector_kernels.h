// The loops of the vector kernels, written once. A file that implements an instruction set defines the operations
// below, includes this header, and ends in its table; everything here is static.
//
// TCK_TARGET              the attribute that lets a function use the set's instructions
// TCK_SUM_LANES           how many `lanes` of sums and as many of squares the registers hold
// lanes                   16 float32 values: lanes_load, lanes_store (of any element type), lanes_splat, lanes_add,
//                         lanes_subtract, lanes_multiply, lanes_divide, lanes_cap (the smaller of the value and a
//                         limit; the limit for NaN), lanes_where_positive (the second where the first is above zero,
//                         else 0), lanes_larger (the larger of two, the second where either is NaN), lanes_magnitude
//                         (without the sign), lanes_are_within (all magnitudes at most a limit; false for NaN),
//                         lanes_add_to (float64 totals), lanes_multiply_add (a * b + c, fused), lanes_load_some (the
//                         first `count` elements of 1...16, zero beyond), lanes_transpose_add (from four a, b, c, d:
//                         lanes whose four l are the sums over the four l of a, b, c, d), lanes_add_neighbours (of each
//                         pair of lanes whose numbers differ by 1, 2, 4 or 8, the sum at the lower and the difference
//                         at the upper), lanes_store_integers (as 16-bit integers, rounded and saturated),
//                         lanes_store_fours (stores the sum of the four fours)
// TCK_PRODUCT_SUMS        how many `lanes` of sums the registers hold, besides what is added to them: 4 or 8
// lanes_pair              32 values in `first` and `second`: lanes_load_pair (bfloat16: those of even and of odd number;
//                         else the first and the last 16)
// lanes_splat_halves, lanes_splat_fours
//                         the first of two floats in the first 8 lanes and the second in the others; each of four
//                         floats in four lanes
// lanes_splat_float16     as lanes_splat_halves, from two pointers to float16
// lanes_splat_pairs       from four pointers to two float16: each two in turns in four lanes
// lanes_evens             each lane of even number in the next one too
// lanes_of_bytes          16 unsigned bytes, of which the first 8 are the first number's, from the least
// octets                  16 bytes: octets_zero, octets_load (the first 4, 8, 12 or, for any larger count, 16, and zero
//                         beyond), octets_larger (the larger as unsigned), octets_compact_scales (as tck_compact_scale),
//                         octets_signed (signed ones as lanes)
// codes                   64 bytes, codes of weights: codes_zero, codes_load (from two pointers to 32), codes_load_fours
//                         (from four pointers to 16), codes_store, codes_or, codes_of_nibbles (from two pointers to 16
//                         bytes, of each the low and then the high halves), codes_of_bits (from two pointers to 32 bits,
//                         a value for each that is set), codes_field (shifts right, or left where the number is
//                         negative, the first 32 by another number than the others but never in the other direction,
//                         and masks each byte; what a left shift moves into the next byte must be masked),
//                         codes_flip_signs (exchanges -128...127 and 0...255), codes_lookup (codes below 16, in a
//                         table)
// codes_member            byte number 0...3 of each dword, times 1, 2^8, 2^16 and, the last, 1
// codes_nibble            half-byte number 0...7 of each dword, the low one of the first byte first, times 16 to the
//                         power of its number, but the last times 1
// line                    64 codes, one per byte: line_zero, line_load, line_store, line_or_shifted (the first or the
//                         second shifted left within its bytes), line_unit (shifts right and masks)
// line_quantize           one unit of codes from four pointers to 16 values each; value l of pointer m goes to byte
//                         l * 4 + m
// line_member             the opposite: the codes of one of the four as lanes
// column                  pieces of 16 bytes, TCK_COLUMN_ROWS of them: column_load, column_store; column_load_rows and
//                         column_store_rows with each piece `spacing` bytes after the last; column_load_quads with
//                         TCK_GROUP_PIECES pieces of a row, and for each further one of TCK_GROUP_QUADS as many
//                         `spacing` bytes on; within each piece column_zip_low_16 and so on, which take elements of
//                         two columns in turn, from the lower or the upper half
// column_least, column_greatest, column_least_unsigned, column_greatest_unsigned, column_not
//                         on elements as integers
// column_fold             gives the first of a row's pieces the least of each element of these pieces
// column_keys             exchanges bits of numbers and integers of the same order: all bits but the sign are inverted
//                         where the sign is set
// column_splat_16, column_add_16, column_subtract_16, column_magnitude_16
//                         on elements as integers of 16 bits
// column_add_squares      adds the squares of each two elements of 16 bits to one of 32
// kept, kept_elements     from a bit mask: which elements of a piece column_store_rows stores

#ifndef THINK_KERNELS_VECTOR_KERNELS_H
#define THINK_KERNELS_VECTOR_KERNELS_H

#include "archive_kernels.h"
#include "vector_bases.h"
#include "vector_fitting.h"
#include "vector_keys.h"
#include "vector_products.h"
#include "vector_rotation.h"
#include "vector_rows.h"
#include "vector_values.h"
#include "vector_weights.h"

/// The set's table, with its name, what is not in this header, and its tck_product_rows.
#define VECTOR_TABLE(set, checksum, attention_prefix, archive_prefix, ...) \
  {                                        \
      .name = set,                         \
      .product_rows = {__VA_ARGS__},       \
      .widen = widen,                      \
      .narrow = narrow,                    \
      .add_channel_sums = add_channel_sums,\
      .subtract_means = subtract_means,    \
      .add_means = add_means,              \
      .rotate_rows = rotate_rows,          \
      .key_ranges = key_ranges,            \
      .value_ranges = value_ranges,        \
      .fit_ranges = fit_ranges,            \
      .encode_scales = encode_scales,      \
      .pack_keys = pack_keys,              \
      .pack_values = pack_values,          \
      .unpack_keys = unpack_keys,          \
      .unpack_values = unpack_values,      \
      .pack_full_keys = pack_full_keys,    \
      .unpack_full_keys = unpack_full_keys,\
      .attend_blocks = attention_prefix##attend_blocks, \
      .attend_rows = attention_prefix##attend_rows, \
      .project_rows = project_rows,        \
      .expand_rows = expand_rows,          \
      .join_scores = attention_prefix##join_scores, \
      .multiply_gates = attention_prefix##multiply_gates, \
      .widen_weights = widen_weights,      \
      .multiply_rows = multiply_rows,      \
      .crc32c = checksum,                  \
      TCK_ARCHIVE_TABLE(archive_prefix),   \
  }

#endif

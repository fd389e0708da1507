// Lines of codes, and groups of values on their way to and from codes. Part of vector_kernels.h.

#ifndef THINK_KERNELS_VECTOR_GROUPS_H
#define THINK_KERNELS_VECTOR_GROUPS_H

#include <string.h>

#include "instruction_sets.h"
#include "vector_support.h"

// MARK: - Code lines

/// Merges units into lines, in order.
typedef struct line_writer {
  uint8_t *next;
  line merged;
  unsigned shift;
} line_writer;

TCK_INLINE void append_unit(line_writer *writer, line unit, unsigned width) {
  writer->merged = writer->shift == 0 ? unit : line_or_shifted(writer->merged, unit, writer->shift);
  writer->shift += width;
  if (writer->shift == 8) {
    line_store(writer->next, writer->merged);
    writer->next += LINE_BYTES;
    writer->shift = 0;
  }
}

TCK_INLINE void finish_line(line_writer *writer) {
  if (writer->shift == 0) return;
  line_store(writer->next, writer->merged);
  writer->next += LINE_BYTES;
  writer->shift = 0;
}

/// Takes units from lines, in order.
typedef struct line_reader {
  const uint8_t *next;
  line merged;
  unsigned shift;
} line_reader;

TCK_INLINE line next_unit(line_reader *reader, unsigned width) {
  if (reader->shift == 0) {
    reader->merged = line_load(reader->next);
    reader->next += LINE_BYTES;
  }
  line unit = line_unit(reader->merged, reader->shift, width);
  reader->shift = (reader->shift + width) % 8;
  return unit;
}

// MARK: - Groups

/// Turns least and greatest elements into ranges: as numbers, without negative zero. Adds to `all_within` whether they
/// can be quantized.
TCK_INLINE void store_ranges(tck_element_type type, const char *low, const char *high, float *minima, float *maxima,
                             bool *all_within) {
  lanes minimum = lanes_add(lanes_load(type, low), lanes_splat(0));
  lanes maximum = lanes_add(lanes_load(type, high), lanes_splat(0));
  *all_within &= lanes_are_within(minimum, TCK_MAX_QUANTIZED_MAGNITUDE);
  *all_within &= lanes_are_within(maximum, TCK_MAX_QUANTIZED_MAGNITUDE);
  lanes_store(TCK_FLOAT32, minima, minimum);
  lanes_store(TCK_FLOAT32, maxima, maximum);
}

/// Scales of 16 groups in float16, for the groups from `first` on.
TCK_INLINE void encode_float16_scales(unsigned width, lanes minimum, lanes maximum, tck_quantizers quantizers,
                                      size_t first) {
  const lanes one = lanes_splat(1), steps = lanes_splat((float)((1u << width) - 1));
  uint16_t *scales = (uint16_t *)quantizers.scales + first, *minima = (uint16_t *)quantizers.minima + first;
  lanes_store(TCK_FLOAT16, minima, minimum);
  lanes_store(TCK_FLOAT16, scales, lanes_divide(lanes_subtract(maximum, minimum), steps));
  lanes scale = lanes_load(TCK_FLOAT16, scales);
  lanes_store(TCK_FLOAT32, quantizers.minimum_values + first, lanes_load(TCK_FLOAT16, minima));
  lanes_store(TCK_FLOAT32, quantizers.inverse_scales + first, lanes_where_positive(scale, lanes_divide(one, scale)));
}

TCK_TARGET static void encode_scales(tck_coding coding, size_t groups, const float *minima, const float *maxima,
                                     tck_quantizers quantizers) {
  if (coding.scales != TCK_FLOAT16_SCALES || groups < LANES) {
    tck_scalar_kernels.encode_scales(coding, groups, minima, maxima, quantizers);
    return;
  }
  // The last lanes may overlap those before, and the ranges are overwritten by then if their arrays are the results'.
  const size_t last = groups - LANES;
  lanes last_minimum = lanes_load(TCK_FLOAT32, minima + last), last_maximum = lanes_load(TCK_FLOAT32, maxima + last);
  for (size_t i = 0; i < last; i += LANES) {
    lanes minimum = lanes_load(TCK_FLOAT32, minima + i), maximum = lanes_load(TCK_FLOAT32, maxima + i);
    encode_float16_scales(coding.width, minimum, maximum, quantizers, i);
  }
  encode_float16_scales(coding.width, last_minimum, last_maximum, quantizers, last);
}

/// Restores one unit's four rows of 16 values.
TCK_INLINE void dequantize_unit(tck_element_type type, line unit, const float *scales, const float *minima,
                                void *const destinations[QUAD]) {
  for (unsigned member = 0; member < QUAD; member++) {
    lanes value = lanes_multiply(line_member(unit, member), lanes_splat(scales[member]));
    value = lanes_add(value, lanes_splat(minima[member]));
    lanes_store(type, destinations[member], lanes_cap(value, TCK_MAX_QUANTIZED_MAGNITUDE));
  }
}

// MARK: - Ranges

// Least and greatest are found among bits as integers, which treats a NaN like a number beyond infinity, so that it is
// always among the extremes: store_ranges refuses it there.

TCK_INLINE column least_of_pairs_16(column a, column b) {
  return column_least(2, column_zip_low_16(a, b), column_zip_high_16(a, b));
}

TCK_INLINE column least_of_pairs_32(size_t size, column a, column b) {
  return column_least(size, column_zip_low_32(a, b), column_zip_high_32(a, b));
}

TCK_INLINE column least_of_pairs_64(size_t size, column a, column b) {
  return column_least(size, column_zip_low_64(a, b), column_zip_high_64(a, b));
}

/// The least and greatest of `bytes` bytes of elements in each of the rows of TCK_GROUP_QUADS quads.
/// A quad's four go to `low` and `high`, the next quad's `spacing` bytes further.
TCK_INLINE void group_ranges(size_t size, const void *rows, size_t stride, size_t bytes, char *low, char *high,
                             size_t spacing) {
  column minima[QUAD], maxima[QUAD];  // The maxima inverted, so that the least is sought of both.
  for (size_t i = 0; i < QUAD; i++) {
    const void *row = offset(rows, i * stride);
    column minimum = column_keys(size, column_load_quads(row, QUAD * stride)), maximum = minimum;
    for (size_t at = 16 * TCK_GROUP_PIECES; at < bytes; at += 16 * TCK_GROUP_PIECES) {
      column keys = column_keys(size, column_load_quads(offset(row, at), QUAD * stride));
      minimum = column_least(size, minimum, keys);
      maximum = column_greatest(size, maximum, keys);
    }
    minima[i] = minimum;
    maxima[i] = column_not(maximum);
  }
  char lowest[sizeof(column)], highest[sizeof(column)];
  if (size == 2) {
    column all = least_of_pairs_64(
        2, least_of_pairs_32(2, least_of_pairs_16(minima[0], minima[1]), least_of_pairs_16(minima[2], minima[3])),
        least_of_pairs_32(2, least_of_pairs_16(maxima[0], maxima[1]), least_of_pairs_16(maxima[2], maxima[3])));
    all = column_fold(2, all);
    column_store(lowest, column_keys(2, all));
    column_store(highest, column_keys(2, column_not(all)));
  } else {
    column least = least_of_pairs_64(4, least_of_pairs_32(4, minima[0], minima[1]),
                                     least_of_pairs_32(4, minima[2], minima[3]));
    column greatest = least_of_pairs_64(4, least_of_pairs_32(4, maxima[0], maxima[1]),
                                        least_of_pairs_32(4, maxima[2], maxima[3]));
    column_store(lowest, column_keys(4, column_fold(4, least)));
    column_store(highest, column_keys(4, column_not(column_fold(4, greatest))));
  }
  for (size_t quad = 0; quad < TCK_GROUP_QUADS; quad++) {
    const size_t at = quad * 16 * TCK_GROUP_PIECES;
    memcpy(low + quad * spacing, lowest + at, QUAD * size);
    memcpy(high + quad * spacing, highest + at + (size == 2 ? 8 : 0), QUAD * size);
  }
}

#endif

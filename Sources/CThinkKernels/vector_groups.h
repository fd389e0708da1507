// Lines of codes, and groups of values on their way to and from codes. Part of vector_kernels.h.

#ifndef THINK_KERNELS_VECTOR_GROUPS_H
#define THINK_KERNELS_VECTOR_GROUPS_H

#include <string.h>

#include "instruction_sets.h"
#include "quantizer.h"
#include "vector_support.h"

// MARK: - Code lines

/// Merges units into the lines of a plane, in order, where these lie: there is then none to finish.
typedef struct plane_writer {
  unsigned width, shift;
  uint8_t *next;
} plane_writer;

TCK_INLINE void append_to_plane(plane_writer *writer, line unit) {
  line_store(writer->next,
             writer->shift == 0 ? unit : line_or_shifted(line_load(writer->next), unit, writer->shift));
  writer->shift = (writer->shift + writer->width) % 8;
  writer->next += writer->shift == 0 ? LINE_BYTES : 0;
}

/// Merges the units of a sub-block into its lines, in order; where there is no second plane its width is 0.
typedef struct line_writer {
  plane_writer first, second;
} line_writer;

TCK_INLINE line_writer write_lines(uint8_t *codes, size_t units, unsigned width) {
  unsigned first = tck_first_plane_width(width);
  return (line_writer){{first, 0, codes}, {width - first, 0, codes + tck_plane_bytes(units, first)}};
}

TCK_INLINE void append_unit(line_writer *writer, line unit) {
  if (writer->second.width > 0) {
    append_to_plane(&writer->second, line_unit(unit, writer->first.width, writer->second.width));
    unit = line_unit(unit, 0, writer->first.width);
  }
  append_to_plane(&writer->first, unit);
}

/// Takes units from the lines of a plane, in order.
typedef struct plane_reader {
  unsigned width, shift;
  const uint8_t *next;
  line merged;
} plane_reader;

TCK_INLINE line next_of_plane(plane_reader *reader) {
  if (reader->shift == 0) {
    reader->merged = line_load(reader->next);
    reader->next += LINE_BYTES;
  }
  line unit = line_unit(reader->merged, reader->shift, reader->width);
  reader->shift = (reader->shift + reader->width) % 8;
  return unit;
}

/// Takes the units of a sub-block from its lines, in order; where there is no second plane its width is 0.
typedef struct line_reader {
  plane_reader first, second;
} line_reader;

TCK_INLINE line_reader read_lines(const uint8_t *codes, size_t units, unsigned width) {
  unsigned first = tck_first_plane_width(width);
  return (line_reader){{first, 0, codes, line_zero()},
                       {width - first, 0, codes + tck_plane_bytes(units, first), line_zero()}};
}

TCK_INLINE line next_unit(line_reader *reader) {
  line unit = next_of_plane(&reader->first);
  if (reader->second.width > 0) unit = line_or_shifted(unit, next_of_plane(&reader->second), reader->first.width);
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

/// What 16 groups' codes are restored with.
typedef struct group_lanes {
  lanes scale, minimum;
} group_lanes;

/// As tck_stored_quantizer, of the groups from `first` on.
TCK_INLINE group_lanes stored_groups(tck_coding coding, const void *scales, const void *minima, size_t first) {
  scales = offset(scales, first * tck_scale_bytes(coding));
  minima = offset(minima, first * tck_scale_bytes(coding));
  if (coding.scales == TCK_COMPACT_SCALES) {
    lanes scale = octets_compact_scales(octets_load(scales, LANES));
    lanes middle = lanes_multiply(octets_signed(octets_load(minima, LANES)), lanes_splat(1.0f / 16));
    lanes lowest = lanes_subtract(middle, lanes_splat(tck_code_centre(coding.width)));
    return (group_lanes){scale, lanes_multiply(lowest, scale)};
  }
  return (group_lanes){lanes_load(TCK_FLOAT16, scales), lanes_load(TCK_FLOAT16, minima)};
}

TCK_INLINE lanes inverses(lanes scale) {
  return lanes_where_positive(scale, lanes_divide(lanes_splat(1), scale));
}

/// As the scalar kernels' of the same name, for 16 groups.
TCK_INLINE void encode_compact_scale(lanes scale, lanes middle, uint8_t *scale_bytes, int8_t *sixteenths) {
  const float most = TCK_COMPACT_MOST_SIXTEENTHS;
  float least_scales[LANES], excess[LANES], rounded[LANES];
  lanes magnitude = lanes_magnitude(middle);
  lanes_store(TCK_FLOAT32, least_scales, lanes_larger(scale, lanes_multiply(magnitude, lanes_splat(16 / most))));
  for (size_t i = 0; i < LANES; i++) scale_bytes[i] = tck_compact_scale_byte(least_scales[i]);
  lanes largest = lanes_multiply(octets_compact_scales(octets_load(scale_bytes, LANES)), lanes_splat(most));
  lanes_store(TCK_FLOAT32, excess, lanes_subtract(lanes_multiply(magnitude, lanes_splat(16)), largest));
  for (size_t i = 0; i < LANES; i++) {
    scale_bytes[i] = (uint8_t)(scale_bytes[i] + (excess[i] > 0 && scale_bytes[i] > 0 && scale_bytes[i] < 255));
  }
  lanes inverse = inverses(octets_compact_scales(octets_load(scale_bytes, LANES)));
  lanes exact = lanes_multiply(lanes_multiply(middle, inverse), lanes_splat(16));
  lanes_store(TCK_FLOAT32, rounded, lanes_larger(lanes_cap(exact, most), lanes_splat(-most)));
  for (size_t i = 0; i < LANES; i++) sixteenths[i] = (int8_t)tck_rounded(rounded[i]);
}

/// As the scalar kernels' of the same name, for 16 groups from `first` on.
TCK_INLINE group_lanes encode_groups(tck_coding coding, lanes minimum, lanes maximum, void *scales, void *minima,
                                     size_t first) {
  void *group_scales = offset_mutable(scales, first * tck_scale_bytes(coding));
  void *group_minima = offset_mutable(minima, first * tck_scale_bytes(coding));
  lanes scale = lanes_divide(lanes_subtract(maximum, minimum), lanes_splat((float)((1u << coding.width) - 1)));
  if (coding.scales == TCK_COMPACT_SCALES) {
    lanes middle = lanes_multiply(lanes_add(minimum, maximum), lanes_splat(0.5f));
    encode_compact_scale(scale, middle, group_scales, group_minima);
  } else {
    lanes_store(TCK_FLOAT16, group_scales, scale);
    lanes_store(TCK_FLOAT16, group_minima, minimum);
  }
  return stored_groups(coding, scales, minima, first);
}

/// encode_scales of 16 groups from `first` on.
TCK_INLINE void encode_sixteen(tck_coding coding, lanes minimum, lanes maximum, tck_quantizers quantizers,
                               size_t first) {
  group_lanes groups = encode_groups(coding, minimum, maximum, quantizers.scales, quantizers.minima, first);
  lanes_store(TCK_FLOAT32, quantizers.minimum_values + first, groups.minimum);
  lanes_store(TCK_FLOAT32, quantizers.inverse_scales + first, inverses(groups.scale));
}

TCK_TARGET static void encode_scales(tck_coding coding, size_t groups, const float *minima, const float *maxima,
                                     tck_quantizers quantizers) {
  if (groups < LANES) {
    tck_scalar_kernels.encode_scales(coding, groups, minima, maxima, quantizers);
    return;
  }
  // The last lanes may overlap those before, and the ranges are overwritten by then if their arrays are the results'.
  const size_t last = groups - LANES;
  lanes last_minimum = lanes_load(TCK_FLOAT32, minima + last), last_maximum = lanes_load(TCK_FLOAT32, maxima + last);
  for (size_t i = 0; i < last; i += LANES) {
    lanes minimum = lanes_load(TCK_FLOAT32, minima + i), maximum = lanes_load(TCK_FLOAT32, maxima + i);
    encode_sixteen(coding, minimum, maximum, quantizers, i);
  }
  encode_sixteen(coding, last_minimum, last_maximum, quantizers, last);
}

/// What the codes of any number of groups from `first` on are restored with.
TCK_INLINE void restore_groups(tck_coding coding, tck_packed source, size_t first, size_t groups, float *scales,
                               float *minima) {
  const size_t whole = groups / LANES * LANES;
  for (size_t i = 0; i < whole; i += LANES) {
    group_lanes stored = stored_groups(coding, source.scales, source.minima, first + i);
    lanes_store(TCK_FLOAT32, scales + i, stored.scale);
    lanes_store(TCK_FLOAT32, minima + i, stored.minimum);
  }
  for (size_t i = whole; i < groups; i++) {
    tck_quantizer stored = tck_stored_quantizer(coding, source.scales, source.minima, first + i);
    scales[i] = stored.scale;
    minima[i] = stored.minimum;
  }
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

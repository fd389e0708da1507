// From rows to channel-major order and back, and ranges of channels. Part of vector_kernels.h.

#ifndef THINK_KERNELS_VECTOR_COLUMNS_H
#define THINK_KERNELS_VECTOR_COLUMNS_H

#include "vector_support.h"

// Channels that the key kernels hold in channel-major order on the stack, 32 tokens each; rows of fewer or more are
// left to the scalar kernels.
#define LEAST_STAGED_CHANNELS 32
#define MAX_STAGED_CHANNELS 256

// Prefetching is spread over the work, since only so many lines can be under way. 32 rows have eight lines per column.
#define LINES_PER_COLUMN 8

/// Lines to prefetch with each of `units` units so that these account for half the lines of 32 rows.
static size_t lines_per_unit(size_t row_bytes, size_t units) {
  return units == 0 ? 0 : (row_bytes / 16 * LINES_PER_COLUMN / 2 + units - 1) / units;
}

// MARK: - Transposes

/// Piece by piece, transposes eight columns of eight 16-bit elements.
TCK_INLINE void transpose_16(column columns[8]) {
  column pairs[8], quads[8];
  for (size_t i = 0; i < 8; i += 2) {
    pairs[i] = column_zip_low_16(columns[i], columns[i + 1]);
    pairs[i + 1] = column_zip_high_16(columns[i], columns[i + 1]);
  }
  for (size_t i = 0; i < 8; i += 4) {
    for (size_t j = 0; j < 2; j++) {
      quads[i + 2 * j] = column_zip_low_32(pairs[i + j], pairs[i + j + 2]);
      quads[i + 2 * j + 1] = column_zip_high_32(pairs[i + j], pairs[i + j + 2]);
    }
  }
  for (size_t i = 0; i < 4; i++) {
    columns[2 * i] = column_zip_low_64(quads[i], quads[i + 4]);
    columns[2 * i + 1] = column_zip_high_64(quads[i], quads[i + 4]);
  }
}

/// Piece by piece, transposes four columns of four 32-bit elements.
TCK_INLINE void transpose_32(column columns[4]) {
  column pairs[4];
  for (size_t i = 0; i < 4; i += 2) {
    pairs[i] = column_zip_low_32(columns[i], columns[i + 1]);
    pairs[i + 1] = column_zip_high_32(columns[i], columns[i + 1]);
  }
  for (size_t i = 0; i < 2; i++) {
    columns[2 * i] = column_zip_low_64(pairs[i], pairs[i + 2]);
    columns[2 * i + 1] = column_zip_high_64(pairs[i], pairs[i + 2]);
  }
}

/// Transposes 32 rows to channel-major order: channel c's 32 elements at `stage + c * 32 * size`.
/// The last column overlaps its neighbour where the head dimension is odd, so that nothing beyond a row is touched.
TCK_INLINE void stage_rows(size_t size, const void *rows, size_t stride, size_t head_dimension, void *stage,
                           prefetcher *ahead, size_t lines) {
  const size_t channels = 16 / size;
  for (size_t next = 0; next < head_dimension; next += channels) {
    size_t start = smaller(next, head_dimension - channels);
    prefetch_lines(ahead, lines, false);
    for (size_t token = 0; token < TCK_SUBBLOCK_TOKENS; token += channels * TCK_COLUMN_ROWS) {
      column columns[8];
      for (size_t i = 0; i < channels; i++) {
        columns[i] = column_load_rows(offset(rows, (token + i) * stride + start * size), channels * stride);
      }
      if (size == 2) transpose_16(columns);
      if (size == 4) transpose_32(columns);
      for (size_t i = 0; i < channels; i++) {
        column_store(offset_mutable(stage, ((start + i) * TCK_SUBBLOCK_TOKENS + token) * size), columns[i]);
      }
    }
  }
}

/// The inverse of stage_rows, for the channels whose byte in `keep` is 1.
TCK_INLINE void unstage_rows(size_t size, const void *stage, size_t head_dimension, const uint8_t *keep, void *rows,
                             size_t stride, prefetcher *ahead) {
  const size_t channels = 16 / size;
  for (size_t next = 0; next < head_dimension; next += channels) {
    size_t start = smaller(next, head_dimension - channels);
    unsigned mask = 0;
    for (size_t i = 0; i < channels; i++) mask |= (unsigned)keep[start + i] << i;
    prefetch_lines(ahead, LINES_PER_COLUMN / 2, true);
    if (mask == 0) continue;
    kept elements = kept_elements(size, mask);
    for (size_t token = 0; token < TCK_SUBBLOCK_TOKENS; token += channels * TCK_COLUMN_ROWS) {
      column columns[8];
      for (size_t i = 0; i < channels; i++) {
        columns[i] = column_load(offset(stage, ((start + i) * TCK_SUBBLOCK_TOKENS + token) * size));
      }
      if (size == 2) transpose_16(columns);
      if (size == 4) transpose_32(columns);
      for (size_t i = 0; i < channels; i++) {
        column_store_rows(size, offset_mutable(rows, (token + i) * stride + start * size), channels * stride,
                          columns[i], elements);
      }
    }
  }
}

static bool can_stage(size_t head_dimension) {
  return head_dimension >= LEAST_STAGED_CHANNELS && head_dimension <= MAX_STAGED_CHANNELS;
}

// MARK: - Ranges

// As group_ranges: among bits as integers.

/// The least and greatest elements of each channel over rows.
TCK_INLINE void channel_ranges(size_t size, const void *rows, size_t stride, size_t tokens, size_t head_dimension,
                               char *low, char *high, prefetcher *ahead) {
  const size_t step = 16 * TCK_COLUMN_ROWS;
  const size_t batch = TCK_SUBBLOCK_TOKENS / TCK_COLUMN_ROWS / (LINES_PER_COLUMN / 4);
  for (size_t next = 0; next < head_dimension * size; next += step) {
    size_t start = smaller(next, head_dimension * size - step);
    // Without keys: as unsigned integers negative numbers are the greatest, the most negative first, and the least is
    // the least number if there are no negative ones, or the greatest if there are no others.
    column first = column_load(offset(rows, start));
    column greatest = first, greatest_unsigned = first, least_unsigned = first;
    for (size_t token = 0; token < tokens; token += batch) {
      prefetch_lines(ahead, 1, false);
      for (size_t i = 0; i < batch; i++) {
        column bits = column_load(offset(rows, (token + i) * stride + start));
        greatest = column_greatest(size, greatest, bits);
        greatest_unsigned = column_greatest_unsigned(size, greatest_unsigned, bits);
        least_unsigned = column_least_unsigned(size, least_unsigned, bits);
      }
    }
    column either = column_keys(size, least_unsigned);
    column minimum = column_least(size, either, column_keys(size, greatest_unsigned));
    column maximum = column_greatest(size, either, column_keys(size, greatest));
    column_store(low + start, column_keys(size, minimum));
    column_store(high + start, column_keys(size, maximum));
  }
}


#endif

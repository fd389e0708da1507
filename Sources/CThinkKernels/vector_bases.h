// Bases of keys and values: products of rows with their matrices. Part of vector_kernels.h.

#ifndef THINK_KERNELS_VECTOR_BASES_H
#define THINK_KERNELS_VECTOR_BASES_H

#include "instruction_sets.h"
#include "vector_support.h"

TCK_INLINE lanes basis_lanes(const int8_t *numbers) { return octets_signed(octets_load(numbers, LANES)); }

/// Four queries at most.
TCK_INLINE void project_some_rows(const int8_t *matrix, size_t components, size_t channels, const float *rows,
                                  size_t row_stride, size_t count, float *outputs, size_t output_stride) {
  for (size_t k = 0; k < components; k++, matrix += channels) {
    lanes sums[TCK_QUERY_ROWS];
    for (size_t r = 0; r < TCK_QUERY_ROWS; r++) sums[r] = lanes_splat(0);
    for (size_t c = 0; c < channels; c += LANES) {
      lanes numbers = basis_lanes(matrix + c);
      for (size_t r = 0; r < count; r++) {
        sums[r] = lanes_multiply_add(numbers, lanes_load(TCK_FLOAT32, rows + r * row_stride + c), sums[r]);
      }
    }
    float totals[TCK_QUERY_ROWS];
    lanes_store_fours(totals, lanes_transpose_add(sums));
    for (size_t r = 0; r < count; r++) outputs[r * output_stride + k] = totals[r];
  }
}

TCK_TARGET static void project_rows(const int8_t *matrix, size_t components, size_t channels, const float *rows,
                                    size_t row_stride, size_t count, float *outputs, size_t output_stride) {
  for (; count >= TCK_QUERY_ROWS; count -= TCK_QUERY_ROWS) {
    project_some_rows(matrix, components, channels, rows, row_stride, TCK_QUERY_ROWS, outputs, output_stride);
    rows += TCK_QUERY_ROWS * row_stride;
    outputs += TCK_QUERY_ROWS * output_stride;
  }
  for (; count > 0; count--, rows += row_stride, outputs += output_stride) {
    project_some_rows(matrix, components, channels, rows, row_stride, 1, outputs, output_stride);
  }
}

TCK_INLINE void expand_some_rows(const int8_t *matrix, size_t components, size_t channels, const float *rows,
                                 size_t row_stride, size_t count, float *outputs, size_t output_stride) {
  for (size_t c = 0; c < channels; c += LANES) {
    lanes sums[TCK_QUERY_ROWS];
    for (size_t r = 0; r < count; r++) sums[r] = lanes_splat(0);
    for (size_t k = 0; k < components; k++) {
      lanes numbers = basis_lanes(matrix + k * channels + c);
      for (size_t r = 0; r < count; r++) {
        sums[r] = lanes_multiply_add(numbers, lanes_splat(rows[r * row_stride + k]), sums[r]);
      }
    }
    for (size_t r = 0; r < count; r++) lanes_store(TCK_FLOAT32, outputs + r * output_stride + c, sums[r]);
  }
}

TCK_TARGET static void expand_rows(const int8_t *matrix, size_t components, size_t channels, const float *rows,
                                   size_t row_stride, size_t count, float *outputs, size_t output_stride) {
  for (; count >= TCK_QUERY_ROWS; count -= TCK_QUERY_ROWS) {
    expand_some_rows(matrix, components, channels, rows, row_stride, TCK_QUERY_ROWS, outputs, output_stride);
    rows += TCK_QUERY_ROWS * row_stride;
    outputs += TCK_QUERY_ROWS * output_stride;
  }
  for (; count > 0; count--, rows += row_stride, outputs += output_stride) {
    expand_some_rows(matrix, components, channels, rows, row_stride, 1, outputs, output_stride);
  }
}

#endif

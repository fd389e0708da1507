// Vector kernels for products of a matrix with a vector. Part of vector_kernels.h.
//
// From memory, float32 is fastest with four rows at once: there is so little to do with each line that the processor
// runs far ahead by itself. With 16 bits and with blocks it doesn't, but it foresees lines in address order: rows are
// taken one after another, and the vector, which all share, is copied to where it stays in the first-level cache. Long
// rows are cut into strips for this.

#ifndef THINK_KERNELS_VECTOR_PRODUCTS_H
#define THINK_KERNELS_VECTOR_PRODUCTS_H

#include <string.h>

#include "instruction_sets.h"
#include "vector_block_products.h"
#include "vector_support.h"

/// Rows whose sums are completed together.
#define PRODUCT_ROWS 4
/// Channels of a strip at the most, but for the step that its width is rounded up to.
#define STRIP_COLUMNS 4096
/// Channels of a row whose products go to sums of their own.
#define PRODUCT_STEP (TCK_PRODUCT_SUMS * LANES)
/// How far ahead of their use rows are fetched, at least.
#define PRODUCT_PREFETCH_BYTES 4096

// MARK: - Float32

/// Each of the rows has its part of the sums.
#define ROW_SUMS (TCK_PRODUCT_SUMS / PRODUCT_ROWS)

TCK_INLINE void multiply_four_rows(const char *const rows[PRODUCT_ROWS], size_t columns, const float *vector,
                                   float totals[PRODUCT_ROWS]) {
  lanes sums[PRODUCT_ROWS][ROW_SUMS];
  for (size_t row = 0; row < PRODUCT_ROWS; row++) {
    for (size_t i = 0; i < ROW_SUMS; i++) sums[row][i] = lanes_splat(0);
  }
  size_t column = 0;
  for (; column + ROW_SUMS * LANES <= columns; column += ROW_SUMS * LANES) {
    for (size_t i = 0; i < ROW_SUMS; i++) {
      lanes factors = lanes_load(TCK_FLOAT32, vector + column + i * LANES);
      for (size_t row = 0; row < PRODUCT_ROWS; row++) {
        lanes values = lanes_load(TCK_FLOAT32, rows[row] + (column + i * LANES) * sizeof(float));
        sums[row][i] = lanes_multiply_add(values, factors, sums[row][i]);
      }
    }
  }
  for (; column < columns; column += LANES) {
    size_t count = smaller(columns - column, LANES);
    lanes factors = lanes_load_some(TCK_FLOAT32, vector + column, count);
    for (size_t row = 0; row < PRODUCT_ROWS; row++) {
      lanes values = lanes_load_some(TCK_FLOAT32, rows[row] + column * sizeof(float), count);
      sums[row][0] = lanes_multiply_add(values, factors, sums[row][0]);
    }
  }
  lanes all[PRODUCT_ROWS];
  for (size_t row = 0; row < PRODUCT_ROWS; row++) {
    all[row] = sums[row][0];
    for (size_t i = 1; i < ROW_SUMS; i++) all[row] = lanes_add(all[row], sums[row][i]);
  }
  lanes_store_fours(totals, lanes_transpose_add(all));
}

TCK_INLINE void multiply_float32(tck_weights matrix, size_t rows, size_t columns, const float *vector, float *outputs) {
  for (size_t start = 0; start < rows; start += PRODUCT_ROWS) {
    size_t count = smaller(rows - start, PRODUCT_ROWS);
    const char *group[PRODUCT_ROWS];
    float totals[PRODUCT_ROWS];
    // Where there are fewer, the last one again: every row is added up by the same instructions.
    for (size_t i = 0; i < PRODUCT_ROWS; i++) {
      group[i] = offset(matrix.bytes, (start + smaller(i, count - 1)) * matrix.row_stride);
    }
    multiply_four_rows(group, columns, vector, totals);
    memcpy(outputs + start, totals, count * sizeof *totals);
  }
}

// MARK: - 16 bits

/// Copies factors to where a strip has them.
TCK_INLINE void arrange_for_numbers(tck_element_type type, const float *vector, size_t columns, float *factors) {
  size_t whole = type == TCK_BFLOAT16 ? columns / PRODUCT_STEP * PRODUCT_STEP : 0;
  for (size_t start = 0; start < whole; start += 2 * LANES) {
    for (size_t i = 0; i < LANES; i++) {
      factors[start + i] = vector[start + 2 * i];
      factors[start + LANES + i] = vector[start + 2 * i + 1];
    }
  }
  memcpy(factors + whole, vector + whole, (columns - whole) * sizeof *factors);
  for (size_t i = columns; i % LANES != 0; i++) factors[i] = 0;
}

/// A row's products, added up to lanes. Meanwhile as many bytes from `ahead` are fetched.
TCK_INLINE lanes multiply_numbers(tck_element_type type, const strip *it, const char *row, const char *ahead) {
  const size_t size = tck_element_bytes(type);
  lanes sums[TCK_PRODUCT_SUMS];
  for (size_t i = 0; i < TCK_PRODUCT_SUMS; i++) sums[i] = lanes_splat(0);
  size_t column = 0;
  for (; column + PRODUCT_STEP <= it->columns; column += PRODUCT_STEP) {
    for (size_t at = 0; at < PRODUCT_STEP * size; at += LINE_BYTES) {
      __builtin_prefetch(ahead + column * size + at, 0, 3);
    }
    for (size_t i = 0; i < TCK_PRODUCT_SUMS; i += 2) {
      const float *factors = it->factors + column + i * LANES;
      lanes_pair values = lanes_load_pair(type, row + (column + i * LANES) * size);
      sums[i] = lanes_multiply_add(values.first, lanes_load(TCK_FLOAT32, factors), sums[i]);
      sums[i + 1] = lanes_multiply_add(values.second, lanes_load(TCK_FLOAT32, factors + LANES), sums[i + 1]);
    }
  }
  for (; column < it->columns; column += LANES) {
    lanes values = lanes_load_some(type, row + column * size, smaller(it->columns - column, LANES));
    sums[0] = lanes_multiply_add(values, lanes_load(TCK_FLOAT32, it->factors + column), sums[0]);
  }
  for (size_t count = TCK_PRODUCT_SUMS / 2; count > 0; count /= 2) {
    for (size_t i = 0; i < count; i++) sums[i] = lanes_add(sums[i], sums[i + count]);
  }
  return sums[0];
}

// MARK: - Strips

/// Columns that strips other than the last have a multiple of.
TCK_INLINE size_t strip_step(tck_weight_type type) {
  return weights_are_numbers(type) ? PRODUCT_STEP : MOST_BLOCK_WEIGHTS;
}

TCK_INLINE lanes multiply_row(tck_weight_type type, const strip *it, const char *row, const char *ahead) {
  return weights_are_numbers(type) ? multiply_numbers(weights_element(type), it, row, ahead)
                                   : multiply_blocks(type, it, row, ahead);
}

TCK_INLINE void multiply_strip(tck_weight_type type, const strip *it, size_t rows, bool is_first, float *outputs) {
  const tck_weight_block block = tck_weight_block_of(type);
  size_t ahead = (1 + PRODUCT_PREFETCH_BYTES / (it->columns / block.length * block.bytes)) * it->stride;
  for (size_t start = 0; start < rows; start += PRODUCT_ROWS) {
    size_t count = smaller(rows - start, PRODUCT_ROWS);
    lanes sums[PRODUCT_ROWS];
    for (size_t i = 0; i < PRODUCT_ROWS; i++) sums[i] = lanes_splat(0);
    for (size_t i = 0; i < count; i++) {
      const char *row = it->bytes + (start + i) * it->stride;
      sums[i] = multiply_row(type, it, row, row + ahead);
    }
    float totals[PRODUCT_ROWS];
    lanes_store_fours(totals, lanes_transpose_add(sums));
    for (size_t i = 0; i < count; i++) outputs[start + i] = is_first ? totals[i] : outputs[start + i] + totals[i];
  }
}

TCK_INLINE void multiply_strips(tck_weight_type type, tck_weights matrix, size_t rows, size_t columns,
                                const float *vector, float *outputs) {
  const tck_weight_block block = tck_weight_block_of(type);
  const size_t step = strip_step(type);
  float factors[(STRIP_COLUMNS + MOST_BLOCK_WEIGHTS) / LINE_WEIGHTS * LINE_FACTORS] __attribute__((aligned(LINE_BYTES)));
  // Strips are of about equal width: a narrow one would read the ends of rows, far apart.
  size_t strips = (columns + STRIP_COLUMNS - 1) / STRIP_COLUMNS;
  size_t steps = (columns / strips + step) / step;
  for (size_t start = 0; start < columns; start += steps * step) {
    strip it = {offset(matrix.bytes, start / block.length * block.bytes), matrix.row_stride,
                smaller(columns - start, steps * step), factors};
    if (weights_are_numbers(type)) {
      arrange_for_numbers(weights_element(type), vector + start, it.columns, factors);
    } else {
      arrange_for_blocks(type, vector + start, it.columns, factors);
    }
    multiply_strip(type, &it, rows, start == 0, outputs);
  }
}

// MARK: - Entry point

#define DEFINE_PRODUCTS(name)                                                                                        \
  TCK_LEAF void multiply_##name(tck_weights matrix, size_t rows, size_t columns, const float *vector,                \
                                float *outputs) {                                                                    \
    multiply_strips(TCK_WEIGHT_##name, matrix, rows, columns, vector, outputs);                                      \
  }
DEFINE_PRODUCTS(F16)
DEFINE_PRODUCTS(BF16)
FOR_EACH_BLOCK_TYPE(DEFINE_PRODUCTS)

#define PRODUCTS_CASE(name) \
  case TCK_WEIGHT_##name: multiply_##name(matrix, rows, columns, vector, outputs); break;

TCK_TARGET static void multiply_rows(tck_weights matrix, size_t rows, size_t columns, const float *vector,
                                     float *outputs) {
  switch (matrix.type) {
    PRODUCTS_CASE(F16)
    PRODUCTS_CASE(BF16)
    FOR_EACH_BLOCK_TYPE(PRODUCTS_CASE)
    default: multiply_float32(matrix, rows, columns, vector, outputs);
  }
}

#endif

// The vector kernels of archive coding, written once, but for the coding of symbols. A file that implements an
// instruction set defines the operations below and includes this header.
//
// TCK_TARGET          the attribute that lets a function use the set's instructions
// TCK_ARCHIVE(name)   the name of a function of the set
// WIDE                float32 values of a register, 4...16
// TCK_TILE_WIDES      how many registers of columns, of 6 rows, have their sums in registers: 2 or 4
// wide                a register: wide_load, wide_store, wide_splat, wide_add, wide_subtract, wide_multiply;
//                     wide_load_some and wide_store_some for the first 1...WIDE values, zero beyond; wide_of_codes
//                     from WIDE signed integers of 16 bits; wide_codes_not_zero, the bits of those that are not 0;
//                     wide_store_codes, as such integers, rounded; wide_are_below (all magnitudes are below a limit;
//                     false for NaN)

#ifndef THINK_KERNELS_VECTOR_ARCHIVE_H
#define THINK_KERNELS_VECTOR_ARCHIVE_H

#include "archive_kernels.h"
#include "archive_rounding.h"
#include "vector_support.h"

// MARK: - Products

// What a tile of sums reads of the right matrix lies in the first-level cache, and in the second what all of them read
// of the left one.
#define TILE_ROWS 6
#define TILE_INNER 64
#define TILE_BLOCK_ROWS (32 * TILE_ROWS)

typedef struct product {
  const float *left, *right;
  float *outputs;
  size_t left_row_stride, left_inner_stride, right_stride, output_stride;
  size_t inner;
  /// Whether sums begin at what the outputs have.
  bool continues;
} product;

/// Adds up a tile; of the last register only the first `some` columns.
TCK_INLINE void multiply_tile(product at, const size_t rows, const size_t wides, const bool is_partial, size_t some) {
  wide sums[TILE_ROWS][TCK_TILE_WIDES];
#pragma GCC unroll 6
  for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
    for (size_t w = 0; w < wides; w++) {
      const float *from = at.outputs + r * at.output_stride + w * WIDE;
      sums[r][w] = !at.continues ? wide_splat(0) : is_partial ? wide_load_some(from, some) : wide_load(from);
    }
  }
  const float *left = at.left, *right = at.right;
  for (size_t i = 0; i < at.inner; i++, left += at.left_inner_stride, right += at.right_stride) {
    wide row[TCK_TILE_WIDES];
#pragma GCC unroll 4
    for (size_t w = 0; w < wides; w++) {
      row[w] = is_partial ? wide_load_some(right, some) : wide_load(right + w * WIDE);
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < rows; r++) {
      wide factor = wide_splat(left[r * at.left_row_stride]);
#pragma GCC unroll 4
      for (size_t w = 0; w < wides; w++) sums[r][w] = wide_add(sums[r][w], wide_multiply(factor, row[w]));
    }
  }
#pragma GCC unroll 6
  for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
    for (size_t w = 0; w < wides; w++) {
      float *to = at.outputs + r * at.output_stride + w * WIDE;
      if (is_partial) {
        wide_store_some(to, some, sums[r][w]);
      } else {
        wide_store(to, sums[r][w]);
      }
    }
  }
}

TCK_INLINE product below(product at, size_t rows) {
  at.left += rows * at.left_row_stride;
  at.outputs += rows * at.output_stride;
  return at;
}

TCK_INLINE void multiply_tiles(product at, size_t rows, const size_t wides, const bool is_partial, size_t some) {
  for (; rows >= TILE_ROWS; rows -= TILE_ROWS, at = below(at, TILE_ROWS)) {
    multiply_tile(at, TILE_ROWS, wides, is_partial, some);
  }
  for (; rows >= 2; rows -= 2, at = below(at, 2)) multiply_tile(at, 2, wides, is_partial, some);
  if (rows > 0) multiply_tile(at, 1, wides, is_partial, some);
}

/// Adds up a column of tiles.
TCK_INLINE void multiply_panel(product at, size_t rows, const size_t wides, const bool is_partial, size_t some) {
  // A stride that the compiler knows leaves nothing to be added up for a factor's address.
  if (at.left_row_stride == 1) {
    at.left_row_stride = 1;
    multiply_tiles(at, rows, wides, is_partial, some);
  } else {
    multiply_tiles(at, rows, wides, is_partial, some);
  }
}

TCK_LEAF void multiply_wide_panel(product at, size_t rows) { multiply_panel(at, rows, TCK_TILE_WIDES, false, 0); }

TCK_LEAF void multiply_narrow_panel(product at, size_t rows) { multiply_panel(at, rows, 1, false, 0); }

TCK_LEAF void multiply_partial_panel(product at, size_t rows, size_t some) { multiply_panel(at, rows, 1, true, some); }

TCK_TARGET void TCK_ARCHIVE(multiply_in_order)(const float *left, size_t left_row_stride, size_t left_inner_stride,
                                               size_t rows, const float *right, size_t right_stride, size_t inner,
                                               size_t columns, float *outputs, size_t output_stride) {
  for (size_t row = 0; row < rows; row += TILE_BLOCK_ROWS) {
    const size_t block_rows = smaller(rows - row, TILE_BLOCK_ROWS);
    size_t i = 0;
    // Once even if there is nothing to add up.
    do {
      product at = {.left = left + row * left_row_stride + i * left_inner_stride,
                    .right = right + i * right_stride,
                    .outputs = outputs + row * output_stride,
                    .left_row_stride = left_row_stride,
                    .left_inner_stride = left_inner_stride,
                    .right_stride = right_stride,
                    .output_stride = output_stride,
                    .inner = smaller(inner - i, TILE_INNER),
                    .continues = i > 0};
      size_t column = 0;
      for (; columns - column >= TCK_TILE_WIDES * WIDE; column += TCK_TILE_WIDES * WIDE) {
        multiply_wide_panel(at, block_rows);
        at.right += TCK_TILE_WIDES * WIDE;
        at.outputs += TCK_TILE_WIDES * WIDE;
      }
      for (; columns - column >= WIDE; column += WIDE) {
        multiply_narrow_panel(at, block_rows);
        at.right += WIDE;
        at.outputs += WIDE;
      }
      if (column < columns) multiply_partial_panel(at, block_rows, columns - column);
      i += TILE_INNER;
    } while (i < inner);
  }
}

TCK_INLINE void add_scaled(float *outputs, const float *row, float factor, size_t count) {
  size_t c = 0;
  for (; c + WIDE <= count; c += WIDE) {
    wide product = wide_multiply(wide_splat(factor), wide_load(row + c));
    wide_store(outputs + c, wide_add(wide_load(outputs + c), product));
  }
  if (c < count) {
    wide product = wide_multiply(wide_splat(factor), wide_load_some(row + c, count - c));
    wide_store_some(outputs + c, count - c, wide_add(wide_load_some(outputs + c, count - c), product));
  }
}

TCK_TARGET void TCK_ARCHIVE(add_sparse_products)(const int16_t *codes, size_t code_stride, size_t rows,
                                                 const float *right, size_t right_stride, size_t inner, size_t columns,
                                                 float *outputs, size_t output_stride) {
  for (size_t i = 0; i < inner; i++, codes += code_stride, right += right_stride) {
    size_t r = 0;
    for (; r + WIDE <= rows; r += WIDE) {
      for (uint32_t set = wide_codes_not_zero(codes + r); set != 0; set &= set - 1) {
        const size_t row = r + (size_t)__builtin_ctz(set);
        add_scaled(outputs + row * output_stride, right, codes[row], columns);
      }
    }
    for (; r < rows; r++) {
      if (codes[r] != 0) add_scaled(outputs + r * output_stride, right, codes[r], columns);
    }
  }
}

// MARK: - Numbers

TCK_TARGET void TCK_ARCHIVE(widen_codes)(const int16_t *codes, size_t count, float step, float *numbers) {
  size_t i = 0;
  for (; i + WIDE <= count; i += WIDE) {
    wide_store(numbers + i, wide_multiply(wide_of_codes(codes + i), wide_splat(step)));
  }
  for (; i < count; i++) numbers[i] = (float)codes[i] * step;
}

TCK_TARGET bool TCK_ARCHIVE(round_to_codes)(const float *numbers, size_t count, float inverse_step, int16_t *codes) {
  bool are_codes = true;
  size_t i = 0;
  for (; i + WIDE <= count; i += WIDE) {
    wide scaled = wide_multiply(wide_load(numbers + i), wide_splat(inverse_step));
    are_codes &= wide_are_below(scaled, TCK_CODE_LIMIT);
    wide_store_codes(codes + i, scaled);
  }
  return tck_scalar_round_to_codes(numbers + i, count - i, inverse_step, codes + i) && are_codes;
}

/// Sums times a step, plus means.
TCK_INLINE wide scale_and_add(const float *sums, wide step, const float *means) {
  return wide_add(wide_multiply(wide_load(sums), step), wide_load(means));
}

TCK_TARGET void TCK_ARCHIVE(restore_rows)(const float *sums, size_t sum_stride, size_t count, size_t dimension,
                                          const float *steps, const float *means, size_t pairs, const float *cosines,
                                          const float *sines, float *rows) {
  const size_t whole_pairs = pairs / WIDE * WIDE;
  for (size_t r = 0; r < count; r++, sums += sum_stride, rows += dimension, cosines += pairs, sines += pairs) {
    const wide step = wide_splat(steps[r]);
    for (size_t i = 0; i < whole_pairs; i += WIDE) {
      wide a = scale_and_add(sums + i, step, means + i);
      wide b = scale_and_add(sums + pairs + i, step, means + pairs + i);
      wide cosine = wide_load(cosines + i), sine = wide_load(sines + i);
      wide_store(rows + i, wide_subtract(wide_multiply(a, cosine), wide_multiply(b, sine)));
      wide_store(rows + pairs + i, wide_add(wide_multiply(b, cosine), wide_multiply(a, sine)));
    }
    for (size_t i = whole_pairs; i < pairs; i++) {
      tck_scalar_restore_pair(sums, steps[r], means, i, pairs, cosines, sines, rows);
    }
    size_t c = 2 * pairs;
    for (; c + WIDE <= dimension; c += WIDE) wide_store(rows + c, scale_and_add(sums + c, step, means + c));
    for (; c < dimension; c++) {
      float product = sums[c] * steps[r];
      rows[c] = product + means[c];
    }
  }
}

TCK_TARGET void TCK_ARCHIVE(rotate_back)(float *rows, size_t count, size_t row_stride, size_t pairs,
                                         const float *cosines, const float *sines) {
  const size_t whole_pairs = pairs / WIDE * WIDE;
  for (size_t r = 0; r < count; r++, rows += row_stride, cosines += pairs, sines += pairs) {
    float *second = rows + pairs;
    for (size_t i = 0; i < whole_pairs; i += WIDE) {
      wide a = wide_load(rows + i), b = wide_load(second + i);
      wide cosine = wide_load(cosines + i), sine = wide_load(sines + i);
      wide_store(rows + i, wide_add(wide_multiply(a, cosine), wide_multiply(b, sine)));
      wide_store(second + i, wide_subtract(wide_multiply(b, cosine), wide_multiply(a, sine)));
    }
    for (size_t i = whole_pairs; i < pairs; i++) tck_scalar_rotate_pair_back(rows, i, pairs, cosines, sines);
  }
}

#endif

// Vector kernels for products of weights in blocks with a vector: a row, or a strip of it. Part of vector_products.h.
//
// Codes become float32 where they lie: a mask that leaves one code of each dword is all that comes before the conversion,
// since the factors make up for its place. So factors lie in the order of the codes, and are divided by powers of two.
// A group's scale multiplies sums of products.

#ifndef THINK_KERNELS_VECTOR_BLOCK_PRODUCTS_H
#define THINK_KERNELS_VECTOR_BLOCK_PRODUCTS_H

#include <string.h>

#include "vector_support.h"
#include "vector_weights.h"

/// Columns of a matrix, and what they are multiplied with.
typedef struct strip {
  const char *bytes;
  size_t stride, columns;
  /// Where weights are numbers: in the order of lanes_load_pair as far as there are whole steps; zero from the end to a
  /// multiple of LANES. For blocks as arrange_for_blocks does it.
  const float *factors;
} strip;

// MARK: - Codes of a byte

/// What a line of 64 weights is multiplied with: factors of the codes 4l, then of the codes 4l + 1 and so on, each
/// divided by what codes_member multiplies its codes with; last their sums over the four, times the opposite of the
/// codes' offset if there is one.
#define LINE_FACTORS (5 * LANES)

TCK_INLINE void arrange_line(tck_weight_type type, const float values[LINE_WEIGHTS], float *factors) {
  static const float units[4] = {1, 0x1p-8f, 0x1p-16f, 1};
  const float factor = weights_have_minima(type) ? 1 : -weights_offset(type);
  for (size_t i = 0; i < LANES; i++) {
    const float *four = values + 4 * i;
    for (size_t member = 0; member < 4; member++) factors[member * LANES + i] = four[member] * units[member];
    factors[4 * LANES + i] = ((four[0] + four[1]) + (four[2] + four[3])) * factor;
  }
}

TCK_INLINE lanes add_line(tck_weight_type type, weight_line line, const float *factors, lanes total) {
  lanes sums = lanes_load(TCK_FLOAT32, factors + 4 * LANES);
  if (weights_have_minima(type)) {
    total = lanes_multiply_add(line.minima, sums, total);
    sums = lanes_multiply(codes_member(line.codes, 0), lanes_load(TCK_FLOAT32, factors));
  } else {
    sums = lanes_multiply_add(codes_member(line.codes, 0), lanes_load(TCK_FLOAT32, factors), sums);
  }
  for (unsigned i = 1; i < 4; i++) {
    sums = lanes_multiply_add(codes_member(line.codes, i), lanes_load(TCK_FLOAT32, factors + i * LANES), sums);
  }
  return lanes_multiply_add(line.scales, sums, total);
}

// MARK: - Codes of half a byte

/// Weights of a line of 64 bytes whose halves are codes.
#define NIBBLE_LINE_WEIGHTS 128
/// What such a line is multiplied with: eight times factors, of the low half of each dword's first byte, of its high half
/// and so on; last sums: of Q4_0 times the opposite of the offset, of Q4_1 in every second lane, since the others have
/// scales where these have minima, and of Q4_K over groups, in the last 8 lanes of a block's first line.
#define NIBBLE_LINE_FACTORS (9 * LANES)

TCK_INLINE bool weights_are_nibbles(tck_weight_type type) {
  return type == TCK_WEIGHT_Q4_0 || type == TCK_WEIGHT_Q4_1 || type == TCK_WEIGHT_Q4_K;
}

/// Bytes whose low halves, and then high halves, are codes of consecutive weights.
TCK_INLINE size_t nibble_run(tck_weight_type type) { return type == TCK_WEIGHT_Q4_K ? 32 : 16; }

TCK_INLINE void arrange_nibble_line(tck_weight_type type, const float *values, float *factors) {
  static const float units[8] = {1, 0x1p-4f, 0x1p-8f, 0x1p-12f, 0x1p-16f, 0x1p-20f, 0x1p-24f, 1};
  const size_t run = nibble_run(type), width = run / 4;
  float *sums = factors + 8 * LANES;
  float all[LANES];
  for (size_t i = 0; i < LANES; i++) {
    const float *low = values + i / width * 2 * run + i % width * 4, *high = low + run;
    for (size_t k = 0; k < 4; k++) {
      factors[2 * k * LANES + i] = low[k] * units[2 * k];
      factors[(2 * k + 1) * LANES + i] = high[k] * units[2 * k + 1];
    }
    all[i] = ((low[0] + low[1]) + (low[2] + low[3])) + ((high[0] + high[1]) + (high[2] + high[3]));
  }
  for (size_t i = 0; i < LANES && type == TCK_WEIGHT_Q4_0; i++) sums[i] = all[i] * -weights_offset(type);
  for (size_t i = 0; i < LANES && type == TCK_WEIGHT_Q4_1; i++) sums[i] = i % 2 == 0 ? 0 : all[i - 1] + all[i];
}

/// The sums of factors over the groups of a block of Q4_K.
TCK_INLINE void arrange_group_sums(const float values[MOST_BLOCK_WEIGHTS], float sums[LANES]) {
  for (size_t group = 0; group < 8; group++) {
    float eight[8] = {0};
    for (size_t i = 0; i < 32; i++) eight[i % 8] += values[32 * group + i];
    sums[group] = 0;
    sums[8 + group] = ((eight[0] + eight[1]) + (eight[2] + eight[3])) + ((eight[4] + eight[5]) + (eight[6] + eight[7]));
  }
}

/// Adds products of the low halves of bytes (`first` is 0) or of the high ones (1).
TCK_INLINE lanes add_nibbles(codes value, unsigned first, const float *factors, lanes sums) {
  for (unsigned i = first; i < 8; i += 2) {
    sums = lanes_multiply_add(codes_nibble(value, i), lanes_load(TCK_FLOAT32, factors + i * LANES), sums);
  }
  return sums;
}

/// Adds four blocks of Q4_0 or Q4_1.
TCK_INLINE lanes add_four_blocks(tck_weight_type type, const uint8_t *next, const float *factors, lanes total) {
  const size_t bytes = tck_weight_block_of(type).bytes, start = bytes - 16;
  lanes pairs = lanes_splat_pairs(next, next + bytes, next + 2 * bytes, next + 3 * bytes);
  codes value = codes_load_fours(next + start, next + start + bytes, next + start + 2 * bytes, next + start + 3 * bytes);
  lanes extra = lanes_load(TCK_FLOAT32, factors + 8 * LANES), sums = extra;
  if (type == TCK_WEIGHT_Q4_1) {
    sums = lanes_splat(0);
    total = lanes_multiply_add(pairs, extra, total);
  }
  sums = add_nibbles(value, 0, factors, sums);
  lanes others = add_nibbles(value, 1, factors, lanes_splat(0));
  return lanes_multiply_add(lanes_evens(pairs), lanes_add(sums, others), total);
}

/// Adds a block of Q4_K.
TCK_INLINE lanes add_q4_block(const uint8_t *block, const float *factors, lanes total) {
  lanes both = scales_and_minima(block);
  float scales[LANES];
  lanes_store(TCK_FLOAT32, scales, both);
  total = lanes_multiply_add(both, lanes_load(TCK_FLOAT32, factors + 8 * LANES), total);
  for (unsigned i = 0; i < 2; i++, factors += NIBBLE_LINE_FACTORS) {
    const uint8_t *bytes = block + 16 + i * LINE_BYTES;
    const float low[2] = {scales[4 * i], scales[4 * i + 2]}, high[2] = {scales[4 * i + 1], scales[4 * i + 3]};
    codes value = codes_load(bytes, bytes + 32);
    total = lanes_multiply_add(lanes_splat_halves(low), add_nibbles(value, 0, factors, lanes_splat(0)), total);
    total = lanes_multiply_add(lanes_splat_halves(high), add_nibbles(value, 1, factors, lanes_splat(0)), total);
  }
  return total;
}

// MARK: - Rows

/// Columns at the front of so many that are taken in lines of halves of bytes.
TCK_INLINE size_t nibble_columns(tck_weight_type type, size_t columns) {
  return weights_are_nibbles(type) ? columns / NIBBLE_LINE_WEIGHTS * NIBBLE_LINE_WEIGHTS : 0;
}

/// Puts factors in the order in which multiply_blocks takes them.
TCK_INLINE void arrange_for_blocks(tck_weight_type type, const float *vector, size_t columns, float *factors) {
  size_t start = 0;
  for (; start < nibble_columns(type, columns); start += NIBBLE_LINE_WEIGHTS, factors += NIBBLE_LINE_FACTORS) {
    arrange_nibble_line(type, vector + start, factors);
    if (type == TCK_WEIGHT_Q4_K && start % MOST_BLOCK_WEIGHTS == 0) {
      arrange_group_sums(vector + start, factors + 8 * LANES);
    }
  }
  for (; start < columns; start += LINE_WEIGHTS, factors += LINE_FACTORS) {
    float values[LINE_WEIGHTS] = {0};
    memcpy(values, vector + start, smaller(columns - start, LINE_WEIGHTS) * sizeof *values);
    arrange_line(type, values, factors);
  }
}

/// As multiply_numbers.
TCK_INLINE lanes multiply_blocks(tck_weight_type type, const strip *it, const char *row, const char *ahead) {
  const tck_weight_block block = tck_weight_block_of(type);
  const uint8_t *next = (const uint8_t *)row;
  const float *factors = it->factors;
  const size_t columns = it->columns;
  lanes total = lanes_splat(0);
  size_t column = 0;
  while (column < columns) {
    bool are_nibbles = column < nibble_columns(type, columns);
    size_t count = block.length > LINE_WEIGHTS ? 1 : are_nibbles ? 4 : 2;
    for (size_t at = 0; at < count * block.bytes; at += LINE_BYTES) __builtin_prefetch(ahead + at, 0, 3);
    if (type == TCK_WEIGHT_Q4_K) {
      total = add_q4_block(next, factors, total);
      factors += 2 * NIBBLE_LINE_FACTORS;
    } else if (are_nibbles) {
      total = add_four_blocks(type, next, factors, total);
      factors += NIBBLE_LINE_FACTORS;
    } else if (block.length < LINE_WEIGHTS) {
      // Where there is but one block it is taken twice, the second time with factors of zero.
      const uint8_t *second = columns - column >= LINE_WEIGHTS ? next + block.bytes : next;
      total = add_line(type, line_of_32(type, next, second), factors, total);
      factors += LINE_FACTORS;
    } else {
      block_scales scales;
      unpack_scales(type, next, &scales);
      for (unsigned i = 0; i < BLOCK_LINES; i++, factors += LINE_FACTORS) {
        total = add_line(type, line_of_256(type, next, &scales, i), factors, total);
      }
    }
    column += count * block.length;
    next += count * block.bytes;
    ahead += count * block.bytes;
  }
  return total;
}

#endif

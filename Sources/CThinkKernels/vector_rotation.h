// Rotation of rows by Walsh-Hadamard transforms. Part of vector_kernels.h.

#ifndef THINK_KERNELS_VECTOR_ROTATION_H
#define THINK_KERNELS_VECTOR_ROTATION_H

#include "instruction_sets.h"
#include "quantizer.h"
#include "vector_support.h"

/// The stages of pairs that lie within 16 numbers, of blocks of `length`.
TCK_INLINE lanes rotate_within(lanes value, size_t length) {
  if (length > 1) value = lanes_add_neighbours(value, 1);
  if (length > 2) value = lanes_add_neighbours(value, 2);
  if (length > 4) value = lanes_add_neighbours(value, 4);
  if (length > 8) value = lanes_add_neighbours(value, 8);
  return value;
}

/// The stage of pairs that lie `distance` apart, a multiple of 16, and then a multiplication of all.
TCK_INLINE void add_distant(float *block, size_t length, size_t distance, float factor) {
  for (size_t start = 0; start < length; start += 2 * distance) {
    for (size_t i = start; i < start + distance; i += LANES) {
      lanes first = lanes_load(TCK_FLOAT32, block + i), second = lanes_load(TCK_FLOAT32, block + i + distance);
      lanes sum = lanes_add(first, second), difference = lanes_subtract(first, second);
      lanes_store(TCK_FLOAT32, block + i, lanes_multiply(sum, lanes_splat(factor)));
      lanes_store(TCK_FLOAT32, block + i + distance, lanes_multiply(difference, lanes_splat(factor)));
    }
  }
}

/// The longest blocks that are rotated in registers: the usual dimensions of heads, 64 and 128.
#define MOST_ROTATED_LANES (128 / LANES)

/// Rotates a block of 64 or 128 numbers, in registers.
TCK_INLINE void rotate_usual(float *block, size_t length, float factor) {
  const size_t count = length / LANES;
  lanes parts[MOST_ROTATED_LANES];
#pragma GCC unroll 8
  for (size_t i = 0; i < count; i++) {
    parts[i] = rotate_within(lanes_load(TCK_FLOAT32, block + i * LANES), length);
  }
#pragma GCC unroll 3
  for (size_t distance = 1; distance < count; distance *= 2) {
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) {
      if ((i & distance) != 0) continue;
      lanes first = parts[i], second = parts[i + distance];
      parts[i] = lanes_add(first, second);
      parts[i + distance] = lanes_subtract(first, second);
    }
  }
#pragma GCC unroll 8
  for (size_t i = 0; i < count; i++) {
    lanes_store(TCK_FLOAT32, block + i * LANES, lanes_multiply(parts[i], lanes_splat(factor)));
  }
}

TCK_TARGET static void rotate_rows(float *rows, size_t count, size_t dimension) {
  const size_t length = tck_rotated_length(dimension);
  const float factor = tck_rotation_factor(length);
  if (length == 64) {
    for (size_t i = 0; i < count * dimension; i += 64) rotate_usual(rows + i, 64, factor);
    return;
  }
  if (length == 128) {
    for (size_t i = 0; i < count * dimension; i += 128) rotate_usual(rows + i, 128, factor);
    return;
  }
  // Blocks of less than 16 numbers: several at once, whichever rows they are of.
  const size_t step = length < LANES ? LANES : length;
  const float *end = rows + count * dimension;
  for (; rows + step <= end; rows += step) {
    for (size_t i = 0; i < step; i += LANES) {
      lanes value = rotate_within(lanes_load(TCK_FLOAT32, rows + i), length);
      if (length <= LANES) value = lanes_multiply(value, lanes_splat(factor));
      lanes_store(TCK_FLOAT32, rows + i, value);
    }
    for (size_t distance = LANES; distance < length; distance *= 2) {
      add_distant(rows, length, distance, 2 * distance < length ? 1 : factor);
    }
  }
  tck_scalar_kernels.rotate_rows(rows, (size_t)(end - rows) / length, length);
}

#endif

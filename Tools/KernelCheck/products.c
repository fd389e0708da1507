// Compares products of matrices and vectors with sums in float64, within the bound that the header states, and checks
// that a row's product is the same in any company. Of weights in blocks, compares what they are widened to.

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { MOST_ROWS = 33 };

/// How weights are called that are stored as such numbers.
static tck_weight_type weight_type(tck_element_type type) {
  return type == TCK_FLOAT32 ? TCK_WEIGHT_F32 : type == TCK_FLOAT16 ? TCK_WEIGHT_F16 : TCK_WEIGHT_BF16;
}

/// Checks that products of some rows are those of all.
static void compare_company(tck_weights matrix, size_t columns, const float *vector, const float *all) {
  float some[MOST_ROWS + 1];
  for (size_t count = 0; count <= MOST_ROWS; count += count < 9 ? 1 : 8) {
    size_t start = random_bits() % (MOST_ROWS + 1 - count);
    memset(some, 0xA5, sizeof some);
    uint32_t guard, before;
    memcpy(&before, some + count, sizeof before);
    tck_weights rows = {(const uint8_t *)matrix.bytes + start * matrix.row_stride, matrix.row_stride, matrix.type};
    other->multiply_rows(rows, count, columns, vector, some);
    memcpy(&guard, some + count, sizeof guard);
    expect(memcmp(some, all + start, count * sizeof *some) == 0, "multiply_rows", "company", columns, count, start,
           matrix.type);
    expect(guard == before, "multiply_rows", "writes beyond", columns, count, start, matrix.type);
  }
}

static void compare_matrix(tck_element_type type, size_t columns) {
  size_t row_bytes = columns * tck_element_bytes(type);
  size_t stride = row_bytes + random_bits() % 4 * 5, shift = random_bits() % 3;
  size_t last = (MOST_ROWS - 1) * stride + row_bytes;
  uint8_t *bytes = malloc(shift + last);  // Nothing behind the last element, for sanitizers to see.
  float *vector = malloc(columns * sizeof *vector), *values = malloc(columns * sizeof *values);
  double sums[MOST_ROWS] = {0}, magnitudes[MOST_ROWS] = {0};
  memset(bytes, 0xFF, shift + last);  // NaN between the rows.
  for (size_t i = 0; i < columns; i++) vector[i] = (float)((int)(random_bits() % 20001) - 10000) / 1000.0f;
  for (size_t row = 0; row < MOST_ROWS; row++) {
    for (size_t i = 0; i < columns; i++) values[i] = (float)((int)(random_bits() % 20001) - 10000) / 3000.0f;
    scalar->narrow(type, values, columns, bytes + shift + row * stride);
    scalar->widen(type, bytes + shift + row * stride, columns, values);
    for (size_t i = 0; i < columns; i++) {
      double product = (double)values[i] * vector[i];
      sums[row] += product;
      magnitudes[row] += fabs(product);
    }
  }
  float all[MOST_ROWS];
  tck_weights matrix = {bytes + shift, stride, weight_type(type)};
  other->multiply_rows(matrix, MOST_ROWS, columns, vector, all);
  for (size_t row = 0; row < MOST_ROWS; row++) {
    double bound = (double)(columns / 16 + 8) * 0x1p-24 * magnitudes[row];
    expect(fabs(all[row] - sums[row]) <= bound, "multiply_rows", "product", columns, row, matrix.type, 0);
  }
  compare_company(matrix, columns, vector, all);
  free(bytes);
  free(vector);
  free(values);
}

/// A type of weights in blocks, and where the float16 scales of a block are.
typedef struct block_type {
  tck_weight_type type;
  size_t scale_count, scales[2];
} block_type;

static const block_type block_types[] = {
    {TCK_WEIGHT_Q8_0, 1, {0, 0}}, {TCK_WEIGHT_Q4_0, 1, {0, 0}},   {TCK_WEIGHT_Q4_1, 2, {0, 2}},
    {TCK_WEIGHT_Q5_0, 1, {0, 0}}, {TCK_WEIGHT_Q5_1, 2, {0, 2}},   {TCK_WEIGHT_IQ4_NL, 1, {0, 0}},
    {TCK_WEIGHT_MXFP4, 0, {0, 0}}, {TCK_WEIGHT_Q2_K, 2, {80, 82}}, {TCK_WEIGHT_Q3_K, 1, {108, 0}},
    {TCK_WEIGHT_Q4_K, 2, {0, 2}}, {TCK_WEIGHT_Q5_K, 2, {0, 2}},   {TCK_WEIGHT_Q6_K, 1, {208, 0}},
};

/// Random codes, and scales of ordinary magnitude.
static void fill_block(const block_type *kind, uint8_t *block) {
  size_t size = tck_weight_block_of(kind->type).bytes;
  for (size_t i = 0; i < size; i++) block[i] = (uint8_t)random_bits();
  for (size_t i = 0; i < kind->scale_count; i++) {
    uint16_t half = (uint16_t)((random_bits() & 0x8FFF) | 0x1C00);
    memcpy(block + kind->scales[i], &half, sizeof half);
  }
  if (kind->type == TCK_WEIGHT_MXFP4) *block = (uint8_t)(118 + *block % 8);
}

static bool are_equal(const float *a, const float *b, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (memcmp(a + i, b + i, sizeof *a) != 0 && !(isnan(a[i]) && isnan(b[i]))) return false;
  }
  return true;
}

static void compare_widening(const block_type *kind, size_t count) {
  tck_weight_block block = tck_weight_block_of(kind->type);
  size_t numbers = count * block.length, shift = random_bits() % 3;
  uint8_t *bytes = malloc(shift + count * block.bytes);
  float *expected = malloc(numbers * sizeof *expected), *widened = malloc(numbers * sizeof *widened);
  for (size_t i = 0; i < shift + count * block.bytes; i++) bytes[i] = (uint8_t)random_bits();  // Any scale.
  scalar->widen_weights(kind->type, bytes + shift, numbers, expected);
  other->widen_weights(kind->type, bytes + shift, numbers, widened);
  expect(are_equal(expected, widened, numbers), "widen_weights", "bits", kind->type, count, 0, 0);
  free(bytes);
  free(expected);
  free(widened);
}

static void compare_blocks_of(const block_type *kind, size_t count) {
  tck_weight_block block = tck_weight_block_of(kind->type);
  size_t columns = count * block.length, row_bytes = count * block.bytes;
  size_t stride = row_bytes + random_bits() % 4 * 5, shift = random_bits() % 3;
  size_t last = (MOST_ROWS - 1) * stride + row_bytes;
  uint8_t *bytes = malloc(shift + last);
  float *vector = malloc(columns * sizeof *vector), *values = malloc(columns * sizeof *values);
  double sums[MOST_ROWS] = {0}, magnitudes[MOST_ROWS] = {0};
  memset(bytes, 0xFF, shift + last);
  for (size_t i = 0; i < columns; i++) vector[i] = (float)((int)(random_bits() % 20001) - 10000) / 1000.0f;
  for (size_t row = 0; row < MOST_ROWS; row++) {
    uint8_t *start = bytes + shift + row * stride;
    for (size_t i = 0; i < count; i++) fill_block(kind, start + i * block.bytes);
    scalar->widen_weights(kind->type, start, columns, values);
    for (size_t i = 0; i < columns; i += block.length) {
      // Of random codes the largest is about the largest that there is.
      double largest = 0;
      for (size_t j = i; j < i + block.length; j++) largest = fmax(largest, fabs(values[j]));
      for (size_t j = i; j < i + block.length; j++) {
        sums[row] += (double)values[j] * vector[j];
        magnitudes[row] += 4 * largest * fabs(vector[j]);
      }
    }
  }
  float all[MOST_ROWS];
  tck_weights matrix = {bytes + shift, stride, kind->type};
  other->multiply_rows(matrix, MOST_ROWS, columns, vector, all);
  for (size_t row = 0; row < MOST_ROWS; row++) {
    double bound = (double)(columns / 16 + 16) * 0x1p-24 * magnitudes[row];
    expect(fabs(all[row] - sums[row]) <= bound, "multiply_rows", "product", columns, row, kind->type, 0);
  }
  compare_company(matrix, columns, vector, all);
  free(bytes);
  free(vector);
  free(values);
}

void compare_products(void) {
  static const size_t many[] = {127, 128, 129, 255, 257, 1000, 4095, 4096, 4097, 4225, 8193};
  static const size_t more_blocks[] = {18, 48, 128, 129, 263};
  for (tck_element_type type = TCK_FLOAT16; type <= TCK_FLOAT32; type++) {
    for (size_t columns = 1; columns <= 67; columns++) compare_matrix(type, columns);
    for (size_t i = 0; i < sizeof many / sizeof *many; i++) compare_matrix(type, many[i]);
  }
  for (size_t t = 0; t < sizeof block_types / sizeof *block_types; t++) {
    const block_type *kind = &block_types[t];
    bool is_short = tck_weight_block_of(kind->type).length == 32;
    for (size_t count = 0; count < 100; count += 1 + count / 8) compare_widening(kind, count);
    for (size_t count = 1; count <= (is_short ? 13 : 5); count++) compare_blocks_of(kind, count);
    for (size_t i = 0; i < sizeof more_blocks / sizeof *more_blocks; i++) {
      compare_blocks_of(kind, is_short ? more_blocks[i] : more_blocks[i] / 8);
    }
  }
}

// Compares products of matrices and vectors with sums in float64, within the bound that the header states, and checks
// that a row's product is the same in any company.

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { MOST_ROWS = 33 };

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
  float all[MOST_ROWS], some[MOST_ROWS + 1];
  other->multiply_rows((tck_rows){bytes + shift, stride, type}, MOST_ROWS, columns, vector, all);
  for (size_t row = 0; row < MOST_ROWS; row++) {
    double bound = (double)(columns / 16 + 8) * 0x1p-24 * magnitudes[row];
    expect(fabs(all[row] - sums[row]) <= bound, "multiply_rows", "product", columns, row, type, 0);
  }
  for (size_t count = 0; count <= MOST_ROWS; count += count < 9 ? 1 : 8) {
    size_t start = random_bits() % (MOST_ROWS + 1 - count);
    memset(some, 0xA5, sizeof some);
    uint32_t guard, before;
    memcpy(&before, some + count, sizeof before);
    other->multiply_rows((tck_rows){bytes + shift + start * stride, stride, type}, count, columns, vector, some);
    memcpy(&guard, some + count, sizeof guard);
    expect(memcmp(some, all + start, count * sizeof *some) == 0, "multiply_rows", "company", columns, count, start,
           type);
    expect(guard == before, "multiply_rows", "writes beyond", columns, count, start, type);
  }
  free(bytes);
  free(vector);
  free(values);
}

void compare_products(void) {
  static const size_t many[] = {127, 128, 129, 255, 257, 1000, 4095, 4096, 4097, 4225, 8193};
  for (tck_element_type type = TCK_FLOAT16; type <= TCK_FLOAT32; type++) {
    for (size_t columns = 1; columns <= 67; columns++) compare_matrix(type, columns);
    for (size_t i = 0; i < sizeof many / sizeof *many; i++) compare_matrix(type, many[i]);
  }
}

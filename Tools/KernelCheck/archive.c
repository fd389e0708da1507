// Compares the kernels of archive coding, bit for bit.

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { MOST_ROWS = 40, MOST_INNER = 300, MOST_COLUMNS = 150, STRIDE_MARGIN = 3, MOST_NUMBERS = 200, MOST_SYMBOLS = 400 };

static float random_number(void) { return (float)((int)(random_bits() % 20001) - 10000) / 1000.0f; }

static void fill_numbers(float *numbers, size_t count) {
  for (size_t i = 0; i < count; i++) numbers[i] = random_number();
}

static void compare_multiplication(void) {
  static float left[(MOST_INNER + STRIDE_MARGIN) * (MOST_ROWS + STRIDE_MARGIN)];
  static float right[MOST_INNER * (MOST_COLUMNS + STRIDE_MARGIN)];
  static float expected[MOST_ROWS * (MOST_COLUMNS + STRIDE_MARGIN)], actual[MOST_ROWS * (MOST_COLUMNS + STRIDE_MARGIN)];
  size_t rows = random_bits() % (MOST_ROWS + 1), columns = random_bits() % (MOST_COLUMNS + 1);
  size_t inner = random_bits() % 4 == 0 ? random_bits() % (MOST_INNER + 1) : random_bits() % 20;
  bool is_transposed = random_bits() % 2 == 0;
  size_t left_stride = (is_transposed ? rows : inner) + random_bits() % STRIDE_MARGIN;
  size_t row_stride = is_transposed ? 1 : left_stride, inner_stride = is_transposed ? left_stride : 1;
  size_t right_stride = columns + random_bits() % STRIDE_MARGIN;
  size_t output_stride = columns + random_bits() % STRIDE_MARGIN;
  fill_numbers(left, (is_transposed ? inner : rows) * left_stride);
  fill_numbers(right, inner * right_stride);
  fill_numbers(expected, sizeof expected / sizeof *expected);
  memcpy(actual, expected, sizeof actual);
  scalar->multiply_in_order(left, row_stride, inner_stride, rows, right, right_stride, inner, columns, expected,
                            output_stride);
  other->multiply_in_order(left, row_stride, inner_stride, rows, right, right_stride, inner, columns, actual,
                           output_stride);
  expect(memcmp(expected, actual, sizeof actual) == 0, "multiply_in_order", "", rows, inner, columns, output_stride);
}

static void compare_numbers(void) {
  static const float awkward[] = {0.5f, 1.5f, -2.5f, 32767.49f, -32767.49f, 32767.5f, -32767.5f, 1e30f, INFINITY, NAN};
  float numbers[MOST_NUMBERS], expected[MOST_NUMBERS + 1], actual[MOST_NUMBERS + 1];
  int16_t codes[MOST_NUMBERS], expected_codes[MOST_NUMBERS + 1], actual_codes[MOST_NUMBERS + 1];
  size_t count = random_bits() % (MOST_NUMBERS + 1);
  float step = random_number();
  for (size_t i = 0; i < MOST_NUMBERS; i++) {
    codes[i] = (int16_t)random_bits();
    numbers[i] = random_number() * 3000;
  }
  memset(expected, 0x5A, sizeof expected);
  memset(actual, 0x5A, sizeof actual);
  scalar->widen_codes(codes, count, step, expected);
  other->widen_codes(codes, count, step, actual);
  expect(memcmp(expected, actual, sizeof actual) == 0, "widen_codes", "", count, 0, 0, 0);
  for (size_t i = 0; i < 1 + sizeof awkward / sizeof *awkward; i++) {
    if (i > 0 && count > 0) numbers[random_bits() % count] = awkward[i - 1];
    memset(expected_codes, 0x5A, sizeof expected_codes);
    memset(actual_codes, 0x5A, sizeof actual_codes);
    bool are_codes = scalar->round_to_codes(numbers, count, 1, expected_codes);
    expect(other->round_to_codes(numbers, count, 1, actual_codes) == are_codes, "round_to_codes", "result", count, i, 0,
           0);
    bool same = are_codes ? memcmp(expected_codes, actual_codes, sizeof actual_codes) == 0
                          : expected_codes[count] == actual_codes[count];
    expect(same, "round_to_codes", "codes", count, i, 0, 0);
  }
}

static void compare_pairs(void) {
  enum { PAIR_ROWS = 5, MOST_PAIRS = 70, MARGIN = 3, TOTAL = PAIR_ROWS * (2 * MOST_PAIRS + MARGIN) };
  static float cosines[PAIR_ROWS * MOST_PAIRS], sines[PAIR_ROWS * MOST_PAIRS], frequencies[MOST_PAIRS];
  static float expected[TOTAL], actual[TOTAL];
  int32_t positions[PAIR_ROWS];
  size_t pairs = random_bits() % (MOST_PAIRS + 1), count = random_bits() % (PAIR_ROWS + 1);
  size_t stride = 2 * pairs + random_bits() % MARGIN;
  for (size_t i = 0; i < pairs; i++) frequencies[i] = 1 / (float)(1 + random_bits() % 1000);
  for (size_t i = 0; i < count; i++) positions[i] = (int32_t)(random_bits() >> random_bits() % 32);
  tck_rotary_angles(frequencies, pairs, positions, count, cosines, sines);
  for (size_t i = 0; i < count * pairs; i++) {
    double angle = (double)positions[i / pairs] * (double)frequencies[i % pairs];
    bool is_near = fabs(cosines[i] - cos(angle)) <= 0x1p-25 + 1e-15 && fabs(sines[i] - sin(angle)) <= 0x1p-25 + 1e-15;
    expect(is_near, "tck_rotary_angles", "", count, pairs, i, 0);
  }
  fill_numbers(expected, TOTAL);
  memcpy(actual, expected, sizeof actual);
  for (int inverse = 0; inverse < 2; inverse++) {
    scalar->rotate_pairs(expected, count, stride, pairs, cosines, sines, inverse);
    other->rotate_pairs(actual, count, stride, pairs, cosines, sines, inverse);
    expect(memcmp(expected, actual, sizeof actual) == 0, "rotate_pairs", "", count, stride, pairs, (size_t)inverse);
  }
}

static bool decoders_equal(const tck_symbol_decoder *a, const tck_symbol_decoder *b) {
  return memcmp(a->states, b->states, sizeof a->states) == 0 && a->words == b->words && a->is_valid == b->is_valid;
}

static void compare_symbols(unsigned table) {
  enum { ROOM = MOST_SYMBOLS + TCK_SYMBOL_LANES };
  uint16_t words[MOST_SYMBOLS];
  uint8_t states[TCK_SYMBOL_STATE_BYTES];
  int8_t symbols[ROOM], expected[ROOM], actual[ROOM];
  size_t count = random_bits() % (MOST_SYMBOLS + 1);
  const uint32_t *lookup = tck_symbol_lookup(table);
  for (size_t i = 0; i < count; i++) symbols[i] = (int8_t)(lookup[random_bits() % TCK_FREQUENCY_TOTAL] >> 24);
  tck_symbol_encoder encoder = tck_start_encoder(words, MOST_SYMBOLS);
  tck_encode_symbols(&encoder, table, symbols, count);
  const uint8_t *coded = tck_finish_symbols(&encoder, states);
  size_t word_count = (size_t)((uint8_t *)(words + MOST_SYMBOLS) - coded) / 2;
  // Whole, cut short, and of random bits. Each lies at the end of memory of its own, for tools that watch it.
  for (unsigned kind = 0; kind < 3; kind++) {
    size_t length = kind == 0 ? word_count : random_bits() % (word_count + 1);
    uint8_t *bytes = malloc(2 * length);
    memcpy(bytes, coded, 2 * length);
    if (kind == 2) {
      for (size_t i = 0; i < sizeof states; i++) states[i] = (uint8_t)(random_bits() | 1);
      for (size_t i = 0; i < 2 * length; i++) bytes[i] = (uint8_t)random_bits();
    }
    tck_symbol_decoder first = tck_start_decoder(states, bytes, length), second = first;
    memset(expected, 0, sizeof expected);
    memset(actual, 0, sizeof actual);
    scalar->decode_symbols(&first, table, count, expected);
    other->decode_symbols(&second, table, count, actual);
    expect(memcmp(expected, actual, count) == 0, "decode_symbols", "symbols", table, count, kind, length);
    expect(decoders_equal(&first, &second), "decode_symbols", "decoder", table, count, kind, length);
    if (kind == 0) {
      expect(memcmp(symbols, actual, count) == 0, "decode_symbols", "round trip", table, count, 0, 0);
      expect(tck_has_ended(&second), "decode_symbols", "end", table, count, 0, 0);
    }
    free(bytes);
  }
}

void compare_archive(void) {
  for (unsigned i = 0; i < 500; i++) {
    compare_multiplication();
    compare_numbers();
    compare_pairs();
    compare_symbols(i % TCK_SYMBOL_TABLES);
  }
}

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

static void compare_sparse_products(void) {
  static int16_t codes[20 * (MOST_ROWS + STRIDE_MARGIN)];
  static float right[20 * (MOST_COLUMNS + STRIDE_MARGIN)];
  static float expected[MOST_ROWS * (MOST_COLUMNS + STRIDE_MARGIN)], actual[MOST_ROWS * (MOST_COLUMNS + STRIDE_MARGIN)];
  size_t rows = random_bits() % (MOST_ROWS + 1), columns = random_bits() % (MOST_COLUMNS + 1);
  size_t inner = random_bits() % 20, code_stride = rows + random_bits() % STRIDE_MARGIN;
  size_t right_stride = columns + random_bits() % STRIDE_MARGIN, stride = columns + random_bits() % STRIDE_MARGIN;
  for (size_t i = 0; i < inner * code_stride; i++) {
    codes[i] = random_bits() % 8 > 0 ? 0 : (int16_t)(random_bits() % 65536 - 32768);
  }
  fill_numbers(right, inner * right_stride);
  fill_numbers(expected, sizeof expected / sizeof *expected);
  memcpy(actual, expected, sizeof actual);
  scalar->add_sparse_products(codes, code_stride, rows, right, right_stride, inner, columns, expected, stride);
  other->add_sparse_products(codes, code_stride, rows, right, right_stride, inner, columns, actual, stride);
  expect(memcmp(expected, actual, sizeof actual) == 0, "add_sparse_products", "", rows, inner, columns, stride);
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
  scalar->rotate_back(expected, count, stride, pairs, cosines, sines);
  other->rotate_back(actual, count, stride, pairs, cosines, sines);
  expect(memcmp(expected, actual, sizeof actual) == 0, "rotate_back", "", count, stride, pairs, 0);
}

static bool decoders_equal(const tck_symbol_decoder *a, const tck_symbol_decoder *b) {
  return memcmp(a->states, b->states, sizeof a->states) == 0 && a->words == b->words && a->is_valid == b->is_valid &&
         a->has_escape == b->has_escape;
}

static void compare_symbols(unsigned table) {
  uint16_t words[MOST_SYMBOLS], other_words[MOST_SYMBOLS];
  uint8_t states[TCK_SYMBOL_STATE_BYTES];
  int16_t symbols[MOST_SYMBOLS], expected[MOST_SYMBOLS], actual[MOST_SYMBOLS];
  size_t count = random_bits() % (MOST_SYMBOLS + 1);
  const uint32_t *lookup = tck_symbol_lookup(table);
  for (size_t i = 0; i < count; i++) symbols[i] = (int8_t)(lookup[random_bits() % TCK_FREQUENCY_TOTAL] >> 24);
  tck_symbol_encoder encoder = tck_start_encoder(words, MOST_SYMBOLS);
  scalar->encode_symbols(&encoder, table, symbols, count);
  const uint8_t *coded = tck_finish_symbols(&encoder, states);
  size_t word_count = (size_t)((uint8_t *)(words + MOST_SYMBOLS) - coded) / 2;
  tck_symbol_encoder other_encoder = tck_start_encoder(other_words, MOST_SYMBOLS);
  other->encode_symbols(&other_encoder, table, symbols, count);
  expect(memcmp(encoder.states, other_encoder.states, sizeof encoder.states) == 0, "encode_symbols", "states", table,
         count, 0, 0);
  expect(other_words + MOST_SYMBOLS - other_encoder.next == words + MOST_SYMBOLS - encoder.next &&
             memcmp(encoder.next, other_encoder.next, 2 * word_count) == 0,
         "encode_symbols", "words", table, count, 0, 0);
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
    tck_symbol_call call = {&first, table, expected};
    scalar->decode_symbols(&call, 1, count);
    call = (tck_symbol_call){&second, table, actual};
    other->decode_symbols(&call, 1, count);
    expect(memcmp(expected, actual, 2 * count) == 0, "decode_symbols", "symbols", table, count, kind, length);
    expect(decoders_equal(&first, &second), "decode_symbols", "decoder", table, count, kind, length);
    if (kind == 0) {
      expect(memcmp(symbols, actual, 2 * count) == 0, "decode_symbols", "round trip", table, count, 0, 0);
      expect(tck_has_ended(&second), "decode_symbols", "end", table, count, 0, 0);
    }
    free(bytes);
  }
}

/// Symbols of one group, of states at the limits: of words, of quotients, and of what there may be.
static void compare_encoders(unsigned table) {
  const uint16_t *frequencies = tck_symbol_frequencies(table);
  for (unsigned index = 0; index < TCK_SYMBOLS; index++) {
    const uint32_t frequency = frequencies[index];
    if (frequency == 0) continue;
    const uint32_t largest = frequency * 0xFFFFF, states[] = {
        0x10000, 0x10001, 0xFFFFFFFF, frequency << 20, (frequency << 20) - 1,
        0x10000 / frequency * frequency + frequency, largest, largest - 1, largest + frequency - 1,
    };
    int16_t symbols[TCK_SYMBOL_LANES];
    uint16_t words[2][TCK_SYMBOL_LANES];
    const size_t count = 1 + random_bits() % TCK_SYMBOL_LANES;
    for (size_t i = 0; i < count; i++) {
      symbols[i] = index == TCK_SYMBOLS - 1 ? TCK_ESCAPE : (int16_t)((int)index - TCK_SYMBOL_LIMIT);
    }
    tck_symbol_encoder encoders[2];
    for (size_t set = 0; set < 2; set++) encoders[set] = tck_start_encoder(words[set], TCK_SYMBOL_LANES);
    for (size_t lane = 0; lane < TCK_SYMBOL_LANES; lane++) {
      uint32_t state = states[random_bits() % (sizeof states / sizeof *states)];
      encoders[0].states[lane] = encoders[1].states[lane] = state < 0x10000 ? 0x10000 : state;
    }
    scalar->encode_symbols(&encoders[0], table, symbols, count);
    other->encode_symbols(&encoders[1], table, symbols, count);
    const size_t word_count = (size_t)(words[0] + TCK_SYMBOL_LANES - encoders[0].next);
    expect(memcmp(encoders[0].states, encoders[1].states, sizeof encoders[0].states) == 0, "encode_symbols", "limits",
           table, index, count, 0);
    expect((size_t)(words[1] + TCK_SYMBOL_LANES - encoders[1].next) == word_count &&
               memcmp(encoders[0].next, encoders[1].next, 2 * word_count) == 0,
           "encode_symbols", "words at limits", table, index, count, 0);
  }
}

/// Several decoders side by side, of tables of their own, some of which end early.
static void compare_decoders(void) {
  enum { MOST_CALLS = 7 };
  static int16_t expected[MOST_CALLS][MOST_SYMBOLS], actual[MOST_CALLS][MOST_SYMBOLS];
  uint8_t *bytes[MOST_CALLS];
  tck_symbol_decoder first[MOST_CALLS], second[MOST_CALLS];
  tck_symbol_call calls[MOST_CALLS];
  size_t call_count = random_bits() % (MOST_CALLS + 1), count = random_bits() % (MOST_SYMBOLS + 1);
  for (size_t i = 0; i < call_count; i++) {
    size_t length = TCK_SYMBOL_STATE_BYTES + 2 * (random_bits() % (MOST_SYMBOLS + 1));
    bytes[i] = malloc(length);
    for (size_t j = 0; j < length; j++) bytes[i][j] = (uint8_t)(random_bits() | (j < TCK_SYMBOL_STATE_BYTES ? 1 : 0));
    first[i] = second[i] = tck_start_decoder(bytes[i], bytes[i] + TCK_SYMBOL_STATE_BYTES,
                                             (length - TCK_SYMBOL_STATE_BYTES) / 2);
    calls[i] = (tck_symbol_call){&first[i], random_bits() % TCK_SYMBOL_TABLES, expected[i]};
  }
  scalar->decode_symbols(calls, call_count, count);
  for (size_t i = 0; i < call_count; i++) calls[i] = (tck_symbol_call){&second[i], calls[i].table, actual[i]};
  other->decode_symbols(calls, call_count, count);
  for (size_t i = 0; i < call_count; i++) {
    expect(memcmp(expected[i], actual[i], 2 * count) == 0, "decode_symbols", "side by side", call_count, count, i, 0);
    expect(decoders_equal(&first[i], &second[i]), "decode_symbols", "decoders", call_count, count, i, 0);
    free(bytes[i]);
  }
}

static void compare_restored_rows(void) {
  enum { MOST_RESTORED = 6, MOST_DIMENSION = 80, MARGIN = 3, TOTAL = MOST_RESTORED * (MOST_DIMENSION + MARGIN) };
  static float sums[TOTAL], expected[TOTAL], actual[TOTAL];
  float steps[MOST_RESTORED], means[MOST_DIMENSION];
  float cosines[MOST_RESTORED * MOST_DIMENSION / 2], sines[MOST_RESTORED * MOST_DIMENSION / 2];
  size_t count = random_bits() % (MOST_RESTORED + 1), dimension = 1 + random_bits() % MOST_DIMENSION;
  if (random_bits() % 2 == 0) dimension = (dimension + 15) / 16 * 16;
  fill_numbers(sums, TOTAL);
  fill_numbers(steps, MOST_RESTORED);
  fill_numbers(means, MOST_DIMENSION);
  fill_numbers(expected, TOTAL);
  memcpy(actual, expected, sizeof actual);
  fill_numbers(cosines, sizeof cosines / sizeof *cosines);
  fill_numbers(sines, sizeof sines / sizeof *sines);
  size_t stride = dimension + random_bits() % MARGIN, pairs = random_bits() % (dimension / 2 + 1);
  // Whole registers often.
  if (random_bits() % 2 == 0) pairs = dimension / 2;
  scalar->restore_rows(sums, stride, count, dimension, steps, means, pairs, cosines, sines, expected);
  other->restore_rows(sums, stride, count, dimension, steps, means, pairs, cosines, sines, actual);
  expect(memcmp(expected, actual, sizeof actual) == 0, "restore_rows", "", count, dimension, stride, pairs);
}

void compare_archive(void) {
  for (unsigned i = 0; i < 500; i++) {
    compare_multiplication();
    compare_sparse_products();
    compare_numbers();
    compare_pairs();
    compare_symbols(i % TCK_SYMBOL_TABLES);
    compare_encoders(i % TCK_SYMBOL_TABLES);
    compare_decoders();
    compare_restored_rows();
  }
}

// The definition of the kernels of archive coding: plain loops, one value at a time.

#pragma STDC FP_CONTRACT OFF

#include "archive_kernels.h"
#include "archive_rounding.h"

void tck_scalar_multiply_in_order(const float *left, size_t left_row_stride, size_t left_inner_stride, size_t rows,
                                  const float *right, size_t right_stride, size_t inner, size_t columns, float *outputs,
                                  size_t output_stride) {
  for (size_t r = 0; r < rows; r++) {
    float *output = outputs + r * output_stride;
    for (size_t c = 0; c < columns; c++) output[c] = 0;
    for (size_t i = 0; i < inner; i++) {
      float factor = left[r * left_row_stride + i * left_inner_stride];
      const float *row = right + i * right_stride;
      for (size_t c = 0; c < columns; c++) {
        float product = factor * row[c];
        output[c] += product;
      }
    }
  }
}

void tck_scalar_add_sparse_products(const int16_t *codes, size_t code_stride, size_t rows, const float *right,
                                    size_t right_stride, size_t inner, size_t columns, float *outputs,
                                    size_t output_stride) {
  for (size_t i = 0; i < inner; i++, codes += code_stride, right += right_stride) {
    for (size_t r = 0; r < rows; r++) {
      if (codes[r] == 0) continue;
      const float factor = codes[r];
      float *output = outputs + r * output_stride;
      for (size_t c = 0; c < columns; c++) {
        float product = factor * right[c];
        output[c] += product;
      }
    }
  }
}

static void store_word(uint16_t *word, uint32_t value) {
  ((uint8_t *)word)[0] = (uint8_t)value;
  ((uint8_t *)word)[1] = (uint8_t)(value >> 8);
}

void tck_scalar_encode_symbols(tck_symbol_encoder *encoder, unsigned table, const int16_t *symbols, size_t count) {
  const uint32_t *ranges = tck_symbol_ranges(table);
  const uint64_t *reciprocals = tck_symbol_reciprocals(table);
  uint16_t *next = encoder->next;
  for (size_t j = count; j-- > 0;) {
    const unsigned symbol = (unsigned)symbols[j] % TCK_SYMBOLS;
    const uint32_t frequency = ranges[symbol] >> 16, first = ranges[symbol] & 0xFFFF;
    uint32_t *lane = &encoder->states[j % TCK_SYMBOL_LANES];
    uint32_t state = *lane;
    // Written whether it counts or not, which nobody can foresee: there is room for a word for each symbol to come.
    bool gives_word = state >= frequency << (32 - TCK_FREQUENCY_BITS);
    store_word(next - 1, state);
    next -= gives_word;
    state = gives_word ? state >> 16 : state;
    // The state is below 2^20 times the frequency, so that the product fits; it may be one too small.
    uint32_t quotient = (uint32_t)(state * reciprocals[symbol] >> TCK_RECIPROCAL_BITS);
    uint32_t remainder = state - quotient * frequency;
    bool is_too_small = remainder >= frequency;
    quotient += is_too_small;
    remainder -= is_too_small ? frequency : 0;
    *lane = (quotient << TCK_FREQUENCY_BITS) + remainder + first;
  }
  encoder->next = next;
}

/// Decodes the next symbol of some lanes, from the first; `words` has as many. Returns the first word that is left, and
/// lowers the least symbol.
static inline const uint8_t *decode_group(uint32_t *states, const uint32_t *lookup, const uint8_t *words, size_t lanes,
                                          int16_t *symbols, int16_t *least) {
  for (size_t lane = 0; lane < lanes; lane++) {
    uint32_t state = states[lane], entry = lookup[state % TCK_FREQUENCY_TOTAL];
    int16_t symbol = (int8_t)(uint8_t)(entry >> 24);
    symbols[lane] = symbol;
    *least = symbol < *least ? symbol : *least;
    state = (entry >> 12 & 0xFFF) * (state >> 12) + (entry & 0xFFF);
    uint32_t refilled = state << 16 | words[0] | (uint32_t)words[1] << 8;
    bool takes_word = state < 0x10000;
    states[lane] = takes_word ? refilled : state;
    words += takes_word ? 2 : 0;
  }
  return words;
}

void tck_scalar_decode_alone(tck_symbol_call call, size_t first, size_t count) {
  const uint32_t *lookup = tck_symbol_lookup(call.table);
  tck_symbol_decoder *decoder = call.decoder;
  const uint8_t *words = decoder->words;
  int16_t *symbols = call.symbols + first, least = 0;
  size_t left = count - first;
  // A group takes a word for each lane at the most.
  for (; left >= TCK_SYMBOL_LANES && decoder->end - words >= 2 * TCK_SYMBOL_LANES; left -= TCK_SYMBOL_LANES) {
    words = decode_group(decoder->states, lookup, words, TCK_SYMBOL_LANES, symbols, &least);
    symbols += TCK_SYMBOL_LANES;
  }
  while (left > 0) {
    size_t lanes = left < TCK_SYMBOL_LANES ? left : TCK_SYMBOL_LANES;
    size_t available = (size_t)(decoder->end - words) / 2 * 2;
    uint8_t last[2 * TCK_SYMBOL_LANES] = {0};
    if (available > sizeof last) available = sizeof last;
    for (size_t i = 0; i < available; i++) last[i] = words[i];
    size_t taken = (size_t)(decode_group(decoder->states, lookup, last, lanes, symbols, &least) - last);
    if (taken > available) {
      decoder->is_valid = false;
      taken = available;
    }
    words += taken;
    symbols += lanes;
    left -= lanes;
  }
  decoder->words = words;
  decoder->has_escape |= least == TCK_ESCAPE;
}

void tck_scalar_decode_symbols(const tck_symbol_call *calls, size_t call_count, size_t count) {
  for (size_t i = 0; i < call_count; i++) tck_scalar_decode_alone(calls[i], 0, count);
}

void tck_scalar_widen_codes(const int16_t *codes, size_t count, float step, float *numbers) {
  for (size_t i = 0; i < count; i++) numbers[i] = (float)codes[i] * step;
}

bool tck_scalar_round_to_codes(const float *numbers, size_t count, float inverse_step, int16_t *codes) {
  bool are_codes = true;
  for (size_t i = 0; i < count; i++) {
    float scaled = numbers[i] * inverse_step;
    bool is_code = tck_rounds_to_code(scaled);
    are_codes &= is_code;
    codes[i] = is_code ? tck_round_to_code(scaled) : 0;
  }
  return are_codes;
}

void tck_scalar_restore_pair(const float *sums, float step, const float *means, size_t pair, size_t pairs,
                             const float *cosines, const float *sines, float *rows) {
  float a = sums[pair] * step, b = sums[pair + pairs] * step;
  a += means[pair];
  b += means[pair + pairs];
  float a_sine = a * sines[pair], b_sine = b * sines[pair], a_cosine = a * cosines[pair], b_cosine = b * cosines[pair];
  rows[pair] = a_cosine - b_sine;
  rows[pair + pairs] = b_cosine + a_sine;
}

void tck_scalar_restore_rows(const float *sums, size_t sum_stride, size_t count, size_t dimension, const float *steps,
                             const float *means, size_t pairs, const float *cosines, const float *sines, float *rows) {
  for (size_t r = 0; r < count; r++, sums += sum_stride, rows += dimension, cosines += pairs, sines += pairs) {
    for (size_t i = 0; i < pairs; i++) {
      tck_scalar_restore_pair(sums, steps[r], means, i, pairs, cosines, sines, rows);
    }
    for (size_t c = 2 * pairs; c < dimension; c++) {
      float product = sums[c] * steps[r];
      rows[c] = product + means[c];
    }
  }
}

void tck_scalar_rotate_pair_back(float *row, size_t pair, size_t pairs, const float *cosines, const float *sines) {
  float a = row[pair], b = row[pair + pairs];
  float a_sine = a * sines[pair], b_sine = b * sines[pair], a_cosine = a * cosines[pair], b_cosine = b * cosines[pair];
  row[pair] = a_cosine + b_sine;
  row[pair + pairs] = b_cosine - a_sine;
}

void tck_scalar_rotate_back(float *rows, size_t count, size_t row_stride, size_t pairs, const float *cosines,
                            const float *sines) {
  for (size_t r = 0; r < count; r++, rows += row_stride, cosines += pairs, sines += pairs) {
    for (size_t i = 0; i < pairs; i++) tck_scalar_rotate_pair_back(rows, i, pairs, cosines, sines);
  }
}

// Coding of symbols by interleaved range asymmetric numeral systems (rANS): what is looked up, and how coding begins and
// ends.

#include <pthread.h>
#include <stdatomic.h>

#include "archive_kernels.h"

/// The least state; below it a decoder takes a word, and an encoder begins with it.
#define LEAST_STATE 0x10000u
/// Bits of a word.
#define WORD_BITS 16

static uint16_t costs[TCK_SYMBOL_TABLES][TCK_SYMBOLS];
static uint32_t lookups[TCK_SYMBOL_TABLES][TCK_FREQUENCY_TOTAL];
static uint32_t ranges[TCK_SYMBOL_TABLES][TCK_SYMBOLS];
static uint64_t reciprocals[TCK_SYMBOL_TABLES][TCK_SYMBOLS];
/// Up to this magnitude no symbol of a table needs an escape.
static int16_t plain_limits[TCK_SYMBOL_TABLES];

/// -log2(frequency / 4096) in 1/256, rounded; the frequency is not 0.
static uint16_t cost(uint32_t frequency) {
  // log2, rounded down to 22 bits of fraction: first its whole part, then a bit for each squaring of what remains, which
  // is 1...2 in 2^-31. No logarithm is so close to the middle of two costs that this would matter.
  uint32_t logarithm = 0;
  while (frequency >> (logarithm + 1) != 0) logarithm++;
  uint64_t rest = (uint64_t)frequency << (31 - logarithm);
  for (unsigned bit = 0; bit < 22; bit++) {
    rest = rest * rest >> 31;
    uint32_t is_two = (uint32_t)(rest >> 32);
    rest >>= is_two;
    logarithm = logarithm << 1 | is_two;
  }
  return (uint16_t)((((uint32_t)TCK_FREQUENCY_BITS << 22) - logarithm + (1 << 13)) >> 14);
}

static void build(unsigned table) {
  const uint16_t *frequencies = tck_archive_frequencies[table];
  const uint16_t escape_cost = (uint16_t)(cost(frequencies[TCK_SYMBOLS - 1]) + (WORD_BITS << 8));
  uint32_t first = 0;
  for (unsigned index = 0; index < TCK_SYMBOLS; index++) {
    uint32_t frequency = frequencies[index];
    bool is_escape = index == TCK_SYMBOLS - 1;
    costs[table][index] = frequency == 0 || is_escape ? escape_cost : cost(frequency);
    if (frequency == 0) continue;
    uint32_t symbol = is_escape ? (uint32_t)TCK_ESCAPE : index - TCK_SYMBOL_LIMIT;
    for (uint32_t i = 0; i < frequency; i++) lookups[table][first + i] = symbol << 24 | frequency << 12 | i;
    ranges[table][symbol % TCK_SYMBOLS] = frequency << 16 | first;
    reciprocals[table][symbol % TCK_SYMBOLS] = ((uint64_t)1 << TCK_RECIPROCAL_BITS) / frequency;
    first += frequency;
  }
  const uint16_t *zero = frequencies + TCK_SYMBOL_LIMIT;
  int16_t limit = 0;
  while (limit < TCK_SYMBOL_LIMIT && zero[limit + 1] != 0 && zero[-limit - 1] != 0) limit++;
  plain_limits[table] = zero[0] == 0 ? -1 : limit;
}

static void build_all(void) {
  for (unsigned table = 0; table < TCK_SYMBOL_TABLES; table++) build(table);
}

/// Sees to it that everything is built.
static void prepare(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  static atomic_bool is_built = false;  // Decoding asks often: this is less than a call.
  if (atomic_load_explicit(&is_built, memory_order_acquire)) return;
  pthread_once(&once, build_all);
  atomic_store_explicit(&is_built, true, memory_order_release);
}

const uint16_t *tck_symbol_frequencies(unsigned table) { return tck_archive_frequencies[table]; }

const uint16_t *tck_symbol_costs(unsigned table) {
  prepare();
  return costs[table];
}

uint64_t tck_sum_of_squares(const int16_t *codes, size_t count) {
  uint64_t sum = 0;
  for (size_t i = 0; i < count; i++) sum += (uint32_t)(codes[i] * codes[i]);
  return sum;
}

void tck_count_symbols(const int16_t *codes, size_t count, unsigned low_bits, uint16_t counts[TCK_SYMBOLS]) {
  // In turns, since most numbers are 0: a count must be stored before it can be raised again.
  enum { TURNS = 4 };
  uint16_t parts[TURNS][TCK_SYMBOLS] = {{0}};
  const int half = 1 << low_bits >> 1;
  for (size_t i = 0; i < count; i++) {
    int symbol = (codes[i] + half) >> low_bits;
    bool is_wide = symbol > TCK_SYMBOL_LIMIT || symbol < -TCK_SYMBOL_LIMIT;
    parts[i % TURNS][is_wide ? TCK_SYMBOLS - 1 : symbol + TCK_SYMBOL_LIMIT]++;
  }
  for (size_t symbol = 0; symbol < TCK_SYMBOLS; symbol++) {
    unsigned sum = 0;
    for (size_t turn = 0; turn < TURNS; turn++) sum += parts[turn][symbol];
    counts[symbol] = (uint16_t)sum;
  }
}

uint32_t tck_symbols_cost(unsigned table, const uint16_t counts[TCK_SYMBOLS]) {
  prepare();
  uint32_t sum = 0;
  for (size_t symbol = 0; symbol < TCK_SYMBOLS; symbol++) sum += (uint32_t)costs[table][symbol] * counts[symbol];
  return sum;
}

bool tck_need_no_escape(unsigned table, const int16_t *codes, size_t count) {
  prepare();
  int16_t least = 0, largest = 0;
  for (size_t i = 0; i < count; i++) {
    least = codes[i] < least ? codes[i] : least;
    largest = codes[i] > largest ? codes[i] : largest;
  }
  return largest <= plain_limits[table] && least >= -plain_limits[table];
}

const uint32_t *tck_symbol_lookup(unsigned table) {
  prepare();
  return lookups[table];
}

const uint32_t *tck_symbol_ranges(unsigned table) {
  prepare();
  return ranges[table];
}

const uint64_t *tck_symbol_reciprocals(unsigned table) {
  prepare();
  return reciprocals[table];
}

// MARK: - Encoding

tck_symbol_encoder tck_start_encoder(uint16_t *buffer, size_t word_count) {
  tck_symbol_encoder encoder = {.next = buffer + word_count};
  for (size_t lane = 0; lane < TCK_SYMBOL_LANES; lane++) encoder.states[lane] = LEAST_STATE;
  return encoder;
}

const uint8_t *tck_finish_symbols(const tck_symbol_encoder *encoder, void *states) {
  uint8_t *next = states;
  for (size_t lane = 0; lane < TCK_SYMBOL_LANES; lane++, next += 4) {
    for (unsigned byte = 0; byte < 4; byte++) next[byte] = (uint8_t)(encoder->states[lane] >> 8 * byte);
  }
  return (const uint8_t *)encoder->next;
}

// MARK: - Decoding

tck_symbol_decoder tck_start_decoder(const void *states, const void *words, size_t word_count) {
  const uint8_t *next = states;
  tck_symbol_decoder decoder = {.words = words, .end = (const uint8_t *)words + 2 * word_count, .is_valid = true};
  for (size_t lane = 0; lane < TCK_SYMBOL_LANES; lane++, next += 4) {
    uint32_t state = next[0] | (uint32_t)next[1] << 8 | (uint32_t)next[2] << 16 | (uint32_t)next[3] << 24;
    decoder.is_valid &= state >= LEAST_STATE;
    decoder.states[lane] = state < LEAST_STATE ? LEAST_STATE : state;
  }
  return decoder;
}

bool tck_has_ended(const tck_symbol_decoder *decoder) {
  bool has_ended = decoder->is_valid && decoder->words == decoder->end;
  for (size_t lane = 0; lane < TCK_SYMBOL_LANES; lane++) has_ended &= decoder->states[lane] == LEAST_STATE;
  return has_ended;
}

// Archive coding with AVX-512 (F, BW, DQ, VL): the lanes of coded symbols are one register.

#pragma STDC FP_CONTRACT OFF

#if defined(__x86_64__)

#define TCK_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,popcnt")))
#define TCK_ARCHIVE(name) tck_avx512_##name

#include <immintrin.h>

#include "instruction_sets.h"
#include "vector_support.h"

// MARK: - Registers

#define WIDE 16
#define TCK_TILE_WIDES 4

typedef __m512 wide;

TCK_INLINE __mmask16 first_lanes(size_t count) { return (__mmask16)((1u << count) - 1); }

TCK_INLINE wide wide_load(const float *numbers) { return _mm512_loadu_ps(numbers); }

TCK_INLINE wide wide_load_some(const float *numbers, size_t count) {
  return _mm512_maskz_loadu_ps(first_lanes(count), numbers);
}

TCK_INLINE void wide_store(float *numbers, wide value) { _mm512_storeu_ps(numbers, value); }

TCK_INLINE void wide_store_some(float *numbers, size_t count, wide value) {
  _mm512_mask_storeu_ps(numbers, first_lanes(count), value);
}

TCK_INLINE wide wide_splat(float value) { return _mm512_set1_ps(value); }

TCK_INLINE wide wide_add(wide a, wide b) { return _mm512_add_ps(a, b); }

TCK_INLINE wide wide_subtract(wide a, wide b) { return _mm512_sub_ps(a, b); }

TCK_INLINE wide wide_multiply(wide a, wide b) { return _mm512_mul_ps(a, b); }

TCK_INLINE wide wide_of_codes(const int16_t *codes) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)codes)));
}

TCK_INLINE uint32_t wide_codes_not_zero(const int16_t *codes) {
  __m256i all = _mm256_loadu_si256((const __m256i *)codes);
  return _mm256_test_epi16_mask(all, all);
}

TCK_INLINE void wide_store_codes(int16_t *codes, wide value) {
  _mm256_storeu_si256((__m256i *)codes, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(value)));
}

TCK_INLINE bool wide_are_below(wide value, float limit) {
  return _mm512_cmp_ps_mask(_mm512_abs_ps(value), _mm512_set1_ps(limit), _CMP_LT_OQ) == 0xFFFF;
}

#include "vector_archive.h"

// MARK: - Symbols

/// The ranges of 16 symbols, of which the lowest 6 bits count: tck_symbol_ranges.
TCK_INLINE __m512i find_ranges(const uint32_t *ranges, __m512i symbols) {
  const uint32_t *second = ranges + TCK_SYMBOLS / 2;
  return _mm512_mask_mov_epi32(
      _mm512_permutex2var_epi32(_mm512_loadu_si512(ranges), symbols, _mm512_loadu_si512(ranges + 16)),
      _mm512_test_epi32_mask(symbols, _mm512_set1_epi32(TCK_SYMBOLS / 2)),
      _mm512_permutex2var_epi32(_mm512_loadu_si512(second), symbols, _mm512_loadu_si512(second + 16)));
}

TCK_TARGET void tck_avx512_encode_symbols(tck_symbol_encoder *encoder, unsigned table, const int16_t *symbols,
                                          size_t count) {
  const uint32_t *ranges = tck_symbol_ranges(table);
  __m512i states = _mm512_loadu_si512(encoder->states);
  uint16_t *next = encoder->next;
  while (count > 0) {
    const size_t last = count % LANES, lane_count = last > 0 ? last : LANES;
    const __mmask16 lanes = first_lanes(lane_count);
    count -= lane_count;
    __m512i range = find_ranges(ranges, _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(lanes, symbols + count)));
    __m512i frequency = _mm512_srli_epi32(range, 16), first = _mm512_and_si512(range, _mm512_set1_epi32(0xFFFF));
    // The last lane's word was to come first, and lies highest.
    __m512i least_full = _mm512_slli_epi32(frequency, 32 - TCK_FREQUENCY_BITS);
    __mmask16 giving = _mm512_mask_cmpge_epu32_mask(lanes, states, least_full);
    const size_t word_count = (unsigned)_mm_popcnt_u32(giving);
    __m256i words = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(giving, states));
    next -= word_count;
    _mm256_mask_storeu_epi16(next, first_lanes(word_count), words);
    __m512i state = _mm512_mask_srli_epi32(states, giving, states, 16);
    // Below 2^20, and since two roundings of 2^-24 each came before, at the most one too large or too small.
    __m512i quotient =
        _mm512_cvttps_epi32(_mm512_div_ps(_mm512_cvtepu32_ps(state), _mm512_cvtepi32_ps(frequency)));
    __m512i remainder = _mm512_sub_epi32(state, _mm512_mullo_epi32(quotient, frequency));
    __mmask16 is_large = _mm512_movepi32_mask(remainder);
    quotient = _mm512_mask_sub_epi32(quotient, is_large, quotient, _mm512_set1_epi32(1));
    remainder = _mm512_mask_add_epi32(remainder, is_large, remainder, frequency);
    __mmask16 is_small = _mm512_cmpge_epi32_mask(remainder, frequency);
    quotient = _mm512_mask_add_epi32(quotient, is_small, quotient, _mm512_set1_epi32(1));
    remainder = _mm512_mask_sub_epi32(remainder, is_small, remainder, frequency);
    state = _mm512_add_epi32(_mm512_slli_epi32(quotient, TCK_FREQUENCY_BITS), _mm512_add_epi32(remainder, first));
    states = _mm512_mask_mov_epi32(states, lanes, state);
  }
  _mm512_storeu_si512(encoder->states, states);
  encoder->next = next;
}

/// A decoder in registers.
typedef struct stream {
  __m512i states;
  const uint32_t *lookup;
  const uint8_t *words, *end;
  bool is_valid;
  /// The least entries that were looked up, which are those of the least symbols.
  __m512i least_entries;
} stream;

/// Decodes the next symbol of each lane. `words` has the words that follow, and zeros beyond them. Returns how many of
/// them were taken.
TCK_INLINE size_t decode_group(stream *at, __m256i words, int16_t *symbols) {
  const __m512i twelve_bits = _mm512_set1_epi32(TCK_FREQUENCY_TOTAL - 1);
  __m512i entries = _mm512_i32gather_epi32(_mm512_and_si512(at->states, twelve_bits), at->lookup, 4);
  _mm256_storeu_si256((__m256i *)symbols, _mm512_cvtepi32_epi16(_mm512_srai_epi32(entries, 24)));
  at->least_entries = _mm512_min_epi32(at->least_entries, entries);
  __m512i frequencies = _mm512_and_si512(_mm512_srli_epi32(entries, 12), twelve_bits);
  __m512i next = _mm512_mullo_epi32(frequencies, _mm512_srli_epi32(at->states, 12));
  next = _mm512_add_epi32(next, _mm512_and_si512(entries, twelve_bits));
  __mmask16 taking = _mm512_cmplt_epu32_mask(next, _mm512_set1_epi32(0x10000));
  __m512i taken = _mm512_maskz_expand_epi32(taking, _mm512_cvtepu16_epi32(words));
  at->states = _mm512_mask_or_epi32(next, taking, _mm512_slli_epi32(next, 16), taken);
  return (unsigned)_mm_popcnt_u32(taking);
}

enum { MOST_STREAMS = 4 };

/// Decodes groups of some decoders side by side, from symbol `done` on, while whole ones are left and, unless
/// `is_near_end`, no decoder is near its words' end. Returns how many symbols are decoded then.
///
/// With `is_near_end` every decoder's words are counted, those of decoders that have many left too: records that are
/// side by side mostly end together.
TCK_INLINE size_t decode_groups(const tck_symbol_call *calls, const size_t call_count, size_t done, size_t count,
                                const bool is_near_end) {
  stream streams[MOST_STREAMS];
#pragma GCC unroll 4
  for (size_t i = 0; i < call_count; i++) {
    const tck_symbol_decoder *decoder = calls[i].decoder;
    streams[i] = (stream){.states = _mm512_loadu_si512(decoder->states),
                          .lookup = tck_symbol_lookup(calls[i].table),
                          .words = decoder->words,
                          .end = decoder->end,
                          .is_valid = decoder->is_valid,
                          .least_entries = _mm512_setzero_si512()};
  }
  for (; count - done >= LANES; done += LANES) {
    bool have_words = true;
#pragma GCC unroll 4
    for (size_t i = 0; i < call_count; i++) have_words &= streams[i].end - streams[i].words >= 2 * LANES;
    if (!is_near_end && !have_words) break;
#pragma GCC unroll 4
    for (size_t i = 0; i < call_count; i++) {
      stream *at = &streams[i];
      const size_t available = is_near_end ? smaller((size_t)(at->end - at->words) / 2, LANES) : LANES;
      __m256i words = is_near_end ? _mm256_maskz_loadu_epi16(first_lanes(available), at->words)
                                  : _mm256_loadu_si256((const __m256i *)at->words);
      const size_t taken = decode_group(at, words, calls[i].symbols + done);
      if (is_near_end && taken > available) at->is_valid = false;
      at->words += 2 * (is_near_end ? smaller(taken, available) : taken);
    }
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < call_count; i++) {
    tck_symbol_decoder *decoder = calls[i].decoder;
    _mm512_storeu_si512(decoder->states, streams[i].states);
    decoder->words = streams[i].words;
    decoder->is_valid = streams[i].is_valid;
    decoder->has_escape |= _mm512_reduce_min_epi32(streams[i].least_entries) >> 24 == TCK_ESCAPE;
  }
  return done;
}

TCK_INLINE void decode_all_groups(const tck_symbol_call *calls, const size_t call_count, size_t count) {
  size_t done = decode_groups(calls, call_count, 0, count, false);
  if (count - done >= LANES) decode_groups(calls, call_count, done, count, true);
}

TCK_LEAF void decode_one(const tck_symbol_call *calls, size_t count) { decode_all_groups(calls, 1, count); }

TCK_LEAF void decode_two(const tck_symbol_call *calls, size_t count) { decode_all_groups(calls, 2, count); }

TCK_LEAF void decode_three(const tck_symbol_call *calls, size_t count) { decode_all_groups(calls, 3, count); }

TCK_LEAF void decode_four(const tck_symbol_call *calls, size_t count) { decode_all_groups(calls, 4, count); }

TCK_TARGET void tck_avx512_decode_symbols(const tck_symbol_call *calls, size_t call_count, size_t count) {
  for (size_t i = 0; i < call_count; i += MOST_STREAMS) {
    switch (smaller(call_count - i, MOST_STREAMS)) {
      case 1: decode_one(calls + i, count); break;
      case 2: decode_two(calls + i, count); break;
      case 3: decode_three(calls + i, count); break;
      default: decode_four(calls + i, count);
    }
  }
  const size_t whole = count / LANES * LANES;
  for (size_t i = 0; i < call_count && whole < count; i++) tck_scalar_decode_alone(calls[i], whole, count);
}

#endif

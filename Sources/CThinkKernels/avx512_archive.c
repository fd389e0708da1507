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

TCK_INLINE void wide_store_codes(int16_t *codes, wide value) {
  _mm256_storeu_si256((__m256i *)codes, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(value)));
}

TCK_INLINE bool wide_are_below(wide value, float limit) {
  return _mm512_cmp_ps_mask(_mm512_abs_ps(value), _mm512_set1_ps(limit), _CMP_LT_OQ) == 0xFFFF;
}

#include "vector_archive.h"

// MARK: - Symbols

/// Decodes the next symbol of the lanes whose bits are set. `words` has the words that follow, and zeros beyond them.
/// Sets the bits of the lanes that took one.
TCK_INLINE __m512i decode_group(__m512i states, const uint32_t *lookup, __mmask16 lanes, __m256i words,
                                __mmask16 *taking, int8_t *symbols) {
  const __m512i twelve_bits = _mm512_set1_epi32(TCK_FREQUENCY_TOTAL - 1);
  __m512i entries = _mm512_i32gather_epi32(_mm512_and_si512(states, twelve_bits), lookup, 4);
  _mm_storeu_si128((__m128i *)symbols, _mm512_cvtepi32_epi8(_mm512_srli_epi32(entries, 24)));
  __m512i frequencies = _mm512_and_si512(_mm512_srli_epi32(entries, 12), twelve_bits);
  __m512i next = _mm512_mullo_epi32(frequencies, _mm512_srli_epi32(states, 12));
  next = _mm512_add_epi32(next, _mm512_and_si512(entries, twelve_bits));
  *taking = _mm512_mask_cmplt_epu32_mask(lanes, next, _mm512_set1_epi32(0x10000));
  __m512i taken = _mm512_maskz_expand_epi32(*taking, _mm512_cvtepu16_epi32(words));
  next = _mm512_mask_or_epi32(next, *taking, _mm512_slli_epi32(next, 16), taken);
  return _mm512_mask_mov_epi32(states, lanes, next);
}

/// A decoder in registers.
typedef struct stream {
  __m512i states;
  const uint32_t *lookup;
  const uint8_t *words, *end;
} stream;

enum { MOST_STREAMS = 4 };

/// Decodes whole groups of some decoders side by side, until one is near its words' end. Returns how many symbols.
TCK_INLINE size_t decode_groups(const tck_symbol_call *calls, const size_t call_count, size_t count) {
  stream streams[MOST_STREAMS];
#pragma GCC unroll 4
  for (size_t i = 0; i < call_count; i++) {
    const tck_symbol_decoder *decoder = calls[i].decoder;
    streams[i] = (stream){_mm512_loadu_si512(decoder->states), tck_symbol_lookup(calls[i].table), decoder->words,
                          decoder->end};
  }
  size_t done = 0;
  for (; count - done >= LANES; done += LANES) {
    bool is_near_end = false;
#pragma GCC unroll 4
    for (size_t i = 0; i < call_count; i++) is_near_end |= streams[i].end - streams[i].words < 2 * LANES;
    if (is_near_end) break;
#pragma GCC unroll 4
    for (size_t i = 0; i < call_count; i++) {
      __mmask16 taking;
      __m256i words = _mm256_loadu_si256((const __m256i *)streams[i].words);
      streams[i].states =
          decode_group(streams[i].states, streams[i].lookup, 0xFFFF, words, &taking, calls[i].symbols + done);
      streams[i].words += 2 * (unsigned)_mm_popcnt_u32(taking);
    }
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < call_count; i++) {
    _mm512_storeu_si512(calls[i].decoder->states, streams[i].states);
    calls[i].decoder->words = streams[i].words;
  }
  return done;
}

TCK_LEAF size_t decode_one(const tck_symbol_call *calls, size_t count) { return decode_groups(calls, 1, count); }

TCK_LEAF size_t decode_two(const tck_symbol_call *calls, size_t count) { return decode_groups(calls, 2, count); }

TCK_LEAF size_t decode_three(const tck_symbol_call *calls, size_t count) { return decode_groups(calls, 3, count); }

TCK_LEAF size_t decode_four(const tck_symbol_call *calls, size_t count) { return decode_groups(calls, 4, count); }

/// Decodes what is left of one decoder's symbols, also near its words' end.
TCK_LEAF void decode_rest(tck_symbol_call call, size_t count) {
  size_t done = decode_one(&call, count);
  tck_symbol_decoder *decoder = call.decoder;
  const uint32_t *lookup = tck_symbol_lookup(call.table);
  __m512i states = _mm512_loadu_si512(decoder->states);
  while (done < count) {
    size_t lanes = smaller(count - done, LANES);
    size_t available = smaller((size_t)(decoder->end - decoder->words) / 2, LANES);
    __m256i words = _mm256_maskz_loadu_epi16(first_lanes(available), decoder->words);
    __mmask16 taking;
    states = decode_group(states, lookup, first_lanes(lanes), words, &taking, call.symbols + done);
    size_t taken = (size_t)_mm_popcnt_u32(taking);
    if (taken > available) decoder->is_valid = false;
    decoder->words += 2 * smaller(taken, available);
    done += lanes;
  }
  _mm512_storeu_si512(decoder->states, states);
}

TCK_TARGET void tck_avx512_decode_symbols(const tck_symbol_call *calls, size_t call_count, size_t count) {
  for (size_t i = 0; i < call_count;) {
    const size_t together = smaller(call_count - i, MOST_STREAMS);
    const size_t done = together == 4   ? decode_four(calls + i, count)
                        : together == 3 ? decode_three(calls + i, count)
                        : together == 2 ? decode_two(calls + i, count)
                                        : 0;
    for (size_t end = i + together; i < end; i++) {
      tck_symbol_call rest = calls[i];
      rest.symbols += done;
      decode_rest(rest, count - done);
    }
  }
}

#endif

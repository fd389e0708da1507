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

TCK_TARGET void tck_avx512_decode_symbols(tck_symbol_decoder *decoder, unsigned table, size_t count,
                                          int8_t *symbols) {
  const uint32_t *lookup = tck_symbol_lookup(table);
  const uint8_t *words = decoder->words, *end = decoder->end;
  __m512i states = _mm512_loadu_si512(decoder->states);
  __mmask16 taking;
  for (; count >= LANES && end - words >= 2 * LANES; count -= LANES, symbols += LANES) {
    __m256i next = _mm256_loadu_si256((const __m256i *)words);
    states = decode_group(states, lookup, 0xFFFF, next, &taking, symbols);
    words += 2 * (unsigned)_mm_popcnt_u32(taking);
  }
  while (count > 0) {
    size_t lanes = smaller(count, LANES), available = smaller((size_t)(end - words) / 2, LANES);
    __m256i next = _mm256_maskz_loadu_epi16(first_lanes(available), words);
    states = decode_group(states, lookup, first_lanes(lanes), next, &taking, symbols);
    size_t taken = (size_t)_mm_popcnt_u32(taking);
    if (taken > available) decoder->is_valid = false;
    words += 2 * smaller(taken, available);
    symbols += lanes;
    count -= lanes;
  }
  _mm512_storeu_si512(decoder->states, states);
  decoder->words = words;
}

#endif

// Archive coding with AVX2: the lanes of coded symbols are two registers.

#pragma STDC FP_CONTRACT OFF

#if defined(__x86_64__)

#define TCK_TARGET __attribute__((target("avx2,sse4.2,popcnt")))
#define TCK_ARCHIVE(name) tck_avx2_##name

#include <immintrin.h>

#include "instruction_sets.h"
#include "vector_support.h"

// MARK: - Registers

#define WIDE 8
#define TCK_TILE_WIDES 2

typedef __m256 wide;

TCK_INLINE __m256i first_lanes(size_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

TCK_INLINE wide wide_load(const float *numbers) { return _mm256_loadu_ps(numbers); }

TCK_INLINE wide wide_load_some(const float *numbers, size_t count) {
  return _mm256_maskload_ps(numbers, first_lanes(count));
}

TCK_INLINE void wide_store(float *numbers, wide value) { _mm256_storeu_ps(numbers, value); }

TCK_INLINE void wide_store_some(float *numbers, size_t count, wide value) {
  _mm256_maskstore_ps(numbers, first_lanes(count), value);
}

TCK_INLINE wide wide_splat(float value) { return _mm256_set1_ps(value); }

TCK_INLINE wide wide_add(wide a, wide b) { return _mm256_add_ps(a, b); }

TCK_INLINE wide wide_subtract(wide a, wide b) { return _mm256_sub_ps(a, b); }

TCK_INLINE wide wide_multiply(wide a, wide b) { return _mm256_mul_ps(a, b); }

TCK_INLINE wide wide_of_codes(const int16_t *codes) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)codes)));
}

TCK_INLINE uint32_t wide_codes_not_zero(const int16_t *codes) {
  __m128i are_zero = _mm_cmpeq_epi16(_mm_loadu_si128((const __m128i *)codes), _mm_setzero_si128());
  return ~(uint32_t)_mm_movemask_epi8(_mm_packs_epi16(are_zero, are_zero)) & 0xFF;
}

TCK_INLINE void wide_store_codes(int16_t *codes, wide value) {
  __m256i integers = _mm256_cvtps_epi32(value);
  _mm_storeu_si128((__m128i *)codes,
                   _mm_packs_epi32(_mm256_castsi256_si128(integers), _mm256_extracti128_si256(integers, 1)));
}

TCK_INLINE bool wide_are_below(wide value, float limit) {
  __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), value);
  return _mm256_movemask_ps(_mm256_cmp_ps(magnitude, _mm256_set1_ps(limit), _CMP_LT_OQ)) == 0xFF;
}

#include "vector_archive.h"

// MARK: - Symbols

/// Decodes the next symbol of 8 lanes, into the lowest byte of each. Returns how many words were taken.
TCK_INLINE unsigned decode_half(__m256i *states, const uint32_t *lookup, const uint8_t *words, __m256i *symbols) {
  const __m256i twelve_bits = _mm256_set1_epi32(TCK_FREQUENCY_TOTAL - 1), zero = _mm256_setzero_si256();
  __m256i entries = _mm256_i32gather_epi32((const int *)lookup, _mm256_and_si256(*states, twelve_bits), 4);
  *symbols = _mm256_srai_epi32(entries, 24);
  __m256i frequencies = _mm256_and_si256(_mm256_srli_epi32(entries, 12), twelve_bits);
  __m256i next = _mm256_mullo_epi32(frequencies, _mm256_srli_epi32(*states, 12));
  next = _mm256_add_epi32(next, _mm256_and_si256(entries, twelve_bits));
  // -1 in the lanes that take a word; sums of these up to a lane, that included, tell which word it takes.
  __m256i taking = _mm256_cmpeq_epi32(_mm256_srli_epi32(next, 16), zero);
  __m256i sums = _mm256_add_epi32(taking, _mm256_slli_si256(taking, 4));
  sums = _mm256_add_epi32(sums, _mm256_slli_si256(sums, 8));
  __m256i lower = _mm256_permutevar8x32_epi32(sums, _mm256_set1_epi32(3));
  sums = _mm256_add_epi32(sums, _mm256_blend_epi32(zero, lower, 0xF0));
  __m256i following = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)words));
  // The first is number 0: the sums' complement.
  __m256i taken = _mm256_permutevar8x32_epi32(following, _mm256_xor_si256(sums, _mm256_set1_epi32(-1)));
  __m256i refilled = _mm256_or_si256(_mm256_slli_epi32(next, 16), taken);
  *states = _mm256_blendv_epi8(next, refilled, taking);
  return (unsigned)_mm_popcnt_u32((unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(taking)));
}

/// A decoder in registers.
typedef struct stream {
  __m256i low, high;
  const uint32_t *lookup;
  const uint8_t *words, *end;
  /// -1 where a symbol was an escape.
  __m256i escapes;
} stream;

/// Decodes whole groups of some decoders side by side, until one is near its words' end. Returns how many symbols.
TCK_INLINE size_t decode_groups(const tck_symbol_call *calls, const size_t call_count, size_t count) {
  stream streams[2];
#pragma GCC unroll 2
  for (size_t i = 0; i < call_count; i++) {
    const tck_symbol_decoder *decoder = calls[i].decoder;
    streams[i] = (stream){_mm256_loadu_si256((const __m256i *)decoder->states),
                          _mm256_loadu_si256((const __m256i *)decoder->states + 1), tck_symbol_lookup(calls[i].table),
                          decoder->words, decoder->end, _mm256_setzero_si256()};
  }
  size_t done = 0;
  for (; count - done >= LANES; done += LANES) {
    bool is_near_end = false;
#pragma GCC unroll 2
    for (size_t i = 0; i < call_count; i++) is_near_end |= streams[i].end - streams[i].words < 2 * LANES;
    if (is_near_end) break;
#pragma GCC unroll 2
    for (size_t i = 0; i < call_count; i++) {
      stream *at = &streams[i];
      __m256i low_symbols, high_symbols;
      at->words += 2 * decode_half(&at->low, at->lookup, at->words, &low_symbols);
      at->words += 2 * decode_half(&at->high, at->lookup, at->words, &high_symbols);
      __m256i symbols = _mm256_packs_epi32(low_symbols, high_symbols);
      symbols = _mm256_permute4x64_epi64(symbols, 0xD8);
      _mm256_storeu_si256((__m256i *)(calls[i].symbols + done), symbols);
      at->escapes = _mm256_or_si256(at->escapes, _mm256_cmpeq_epi16(symbols, _mm256_set1_epi16(TCK_ESCAPE)));
    }
  }
#pragma GCC unroll 2
  for (size_t i = 0; i < call_count; i++) {
    tck_symbol_decoder *decoder = calls[i].decoder;
    _mm256_storeu_si256((__m256i *)decoder->states, streams[i].low);
    _mm256_storeu_si256((__m256i *)decoder->states + 1, streams[i].high);
    decoder->words = streams[i].words;
    decoder->has_escape |= !_mm256_testz_si256(streams[i].escapes, streams[i].escapes);
  }
  return done;
}

TCK_LEAF size_t decode_one(const tck_symbol_call *calls, size_t count) { return decode_groups(calls, 1, count); }

TCK_LEAF size_t decode_two(const tck_symbol_call *calls, size_t count) { return decode_groups(calls, 2, count); }

void tck_avx2_encode_symbols(tck_symbol_encoder *encoder, unsigned table, const int16_t *symbols, size_t count) {
  tck_scalar_encode_symbols(encoder, table, symbols, count);
}

TCK_TARGET void tck_avx2_decode_symbols(const tck_symbol_call *calls, size_t call_count, size_t count) {
  for (size_t i = 0; i < call_count;) {
    const size_t together = smaller(call_count - i, 2);
    const size_t done = together == 2 ? decode_two(calls + i, count) : 0;
    for (size_t end = i + together; i < end; i++) {
      tck_symbol_call rest = calls[i];
      rest.symbols += done;
      const size_t first = done + decode_one(&rest, count - done);
      // What is not a whole group, or near the words' end.
      if (first < count) tck_scalar_decode_alone(calls[i], first, count);
    }
  }
}

#endif

// AVX-512 (F, BW, DQ, VL): 16 values are one register, and so is a line of codes.

#pragma STDC FP_CONTRACT OFF

#if defined(__x86_64__)

#define TCK_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,f16c")))

#include <immintrin.h>

#include "instruction_sets.h"
#include "vector_support.h"

#define TCK_SUM_LANES 8
#define TCK_COLUMN_ROWS 4
#define TCK_GROUP_PIECES 2
#define TCK_GROUP_QUADS 2

// MARK: - 16 values

typedef __m512 lanes;

TCK_INLINE lanes lanes_load(tck_element_type type, const void *bytes) {
  if (type == TCK_FLOAT32) return _mm512_loadu_ps(bytes);
  __m256i bits = _mm256_loadu_si256(bytes);
  if (type == TCK_FLOAT16) return _mm512_cvtph_ps(bits);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

TCK_INLINE void lanes_store(tck_element_type type, void *bytes, lanes value) {
  if (type == TCK_FLOAT32) {
    _mm512_storeu_ps(bytes, value);
  } else if (type == TCK_FLOAT16) {
    _mm256_storeu_si256(bytes, _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  } else {
    // As tck_float_to_bfloat; the processors' own conversion takes subnormals for zero.
    __m512i bits = _mm512_castps_si512(value);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
    __mmask16 is_nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
    rounded = _mm512_mask_or_epi32(rounded, is_nan, bits, _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256(bytes, _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
  }
}

TCK_INLINE lanes lanes_splat(float value) { return _mm512_set1_ps(value); }

TCK_INLINE lanes lanes_add(lanes a, lanes b) { return _mm512_add_ps(a, b); }

TCK_INLINE lanes lanes_subtract(lanes a, lanes b) { return _mm512_sub_ps(a, b); }

TCK_INLINE lanes lanes_multiply(lanes a, lanes b) { return _mm512_mul_ps(a, b); }

TCK_INLINE lanes lanes_divide(lanes a, lanes b) { return _mm512_div_ps(a, b); }

TCK_INLINE lanes lanes_cap(lanes value, float limit) {
  return _mm512_min_ps(value, _mm512_set1_ps(limit));  // The processor's minimum is its second operand for NaN.
}

TCK_INLINE lanes lanes_where_positive(lanes condition, lanes value) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(condition, _mm512_setzero_ps(), _CMP_GT_OQ), value);
}

TCK_INLINE bool lanes_are_within(lanes value, float limit) {
  return _mm512_cmp_ps_mask(_mm512_abs_ps(value), _mm512_set1_ps(limit), _CMP_LE_OQ) == 0xFFFF;
}

TCK_INLINE void lanes_add_to(double *totals, lanes value) {
  __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(value));
  __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(value, 1));
  _mm512_storeu_pd(totals, _mm512_add_pd(_mm512_loadu_pd(totals), low));
  _mm512_storeu_pd(totals + 8, _mm512_add_pd(_mm512_loadu_pd(totals + 8), high));
}

// MARK: - Lines

typedef __m512i line;

TCK_INLINE line line_zero(void) { return _mm512_setzero_si512(); }

TCK_INLINE line line_load(const void *bytes) { return _mm512_loadu_si512(bytes); }

TCK_INLINE void line_store(void *bytes, line value) { _mm512_storeu_si512(bytes, value); }

TCK_INLINE line line_or_shifted(line a, line b, unsigned shift) {
  return _mm512_or_si512(a, _mm512_sll_epi16(b, _mm_cvtsi32_si128((int)shift)));
}

TCK_INLINE line line_unit(line value, unsigned shift, unsigned width) {
  return _mm512_and_si512(_mm512_srl_epi16(value, _mm_cvtsi32_si128((int)shift)),
                          _mm512_set1_epi8((char)((1u << width) - 1)));
}

/// Packing saturates to 0...255, which is why values need no clamping before.
TCK_INLINE line line_quantize(tck_element_type type, const void *const values[4], const float *minima,
                              const float *inverses, unsigned width) {
  const __m512i turn = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  __m512i codes[4];
  for (size_t i = 0; i < 4; i++) {
    __m512 steps = _mm512_sub_ps(lanes_load(type, values[i]), _mm512_set1_ps(minima[i]));
    codes[i] = _mm512_cvtps_epi32(_mm512_mul_ps(steps, _mm512_set1_ps(inverses[i])));
  }
  __m512i bytes = _mm512_packus_epi16(_mm512_packs_epi32(codes[0], codes[1]), _mm512_packs_epi32(codes[2], codes[3]));
  bytes = _mm512_min_epu8(bytes, _mm512_set1_epi8((char)((1u << width) - 1)));
  return _mm512_shuffle_epi8(bytes, turn);
}

TCK_INLINE lanes line_member(line unit, unsigned member) {
  const __m512i pick = _mm512_add_epi32(_mm512_set1_epi32((int)member),
                                        _mm512_broadcast_i32x4(_mm_setr_epi32((int)0x80808000, (int)0x80808004,
                                                                              (int)0x80808008, (int)0x8080800C)));
  return _mm512_cvtepi32_ps(_mm512_shuffle_epi8(unit, pick));
}

// MARK: - Columns

typedef __m512i column;
typedef __mmask8 kept;

TCK_INLINE column column_load(const void *bytes) { return _mm512_loadu_si512(bytes); }

TCK_INLINE void column_store(void *bytes, column value) { _mm512_storeu_si512(bytes, value); }

TCK_INLINE column column_load_rows(const void *row, size_t spacing) {
  __m512i value = _mm512_castsi128_si512(_mm_loadu_si128(row));
  value = _mm512_inserti32x4(value, _mm_loadu_si128(offset(row, spacing)), 1);
  value = _mm512_inserti32x4(value, _mm_loadu_si128(offset(row, 2 * spacing)), 2);
  return _mm512_inserti32x4(value, _mm_loadu_si128(offset(row, 3 * spacing)), 3);
}

TCK_INLINE kept kept_elements(size_t size, unsigned mask) {
  (void)size;
  return (kept)mask;
}

TCK_INLINE void store_piece(size_t size, void *bytes, __m128i piece, kept elements) {
  if (size == 2) _mm_mask_storeu_epi16(bytes, elements, piece);
  if (size == 4) _mm_mask_storeu_epi32(bytes, elements, piece);
}

TCK_INLINE void column_store_rows(size_t size, void *row, size_t spacing, column value, kept elements) {
  store_piece(size, row, _mm512_castsi512_si128(value), elements);
  store_piece(size, offset_mutable(row, spacing), _mm512_extracti32x4_epi32(value, 1), elements);
  store_piece(size, offset_mutable(row, 2 * spacing), _mm512_extracti32x4_epi32(value, 2), elements);
  store_piece(size, offset_mutable(row, 3 * spacing), _mm512_extracti32x4_epi32(value, 3), elements);
}

TCK_INLINE column column_zip_low_16(column a, column b) { return _mm512_unpacklo_epi16(a, b); }
TCK_INLINE column column_zip_high_16(column a, column b) { return _mm512_unpackhi_epi16(a, b); }
TCK_INLINE column column_zip_low_32(column a, column b) { return _mm512_unpacklo_epi32(a, b); }
TCK_INLINE column column_zip_high_32(column a, column b) { return _mm512_unpackhi_epi32(a, b); }
TCK_INLINE column column_zip_low_64(column a, column b) { return _mm512_unpacklo_epi64(a, b); }
TCK_INLINE column column_zip_high_64(column a, column b) { return _mm512_unpackhi_epi64(a, b); }

TCK_INLINE column column_load_quads(const void *row, size_t spacing) {
  __m512i first = _mm512_castsi256_si512(_mm256_loadu_si256(row));
  return _mm512_inserti64x4(first, _mm256_loadu_si256(offset(row, spacing)), 1);
}

TCK_INLINE column column_keys(size_t size, column bits) {
  __m512i signs = size == 2 ? _mm512_srai_epi16(bits, 15) : _mm512_srai_epi32(bits, 31);
  __m512i magnitude = size == 2 ? _mm512_set1_epi16(0x7FFF) : _mm512_set1_epi32(0x7FFFFFFF);
  return _mm512_xor_si512(bits, _mm512_and_si512(signs, magnitude));  // Two instructions, with vpternlog.
}

TCK_INLINE column column_not(column value) { return _mm512_xor_si512(value, _mm512_set1_epi32(-1)); }

TCK_INLINE column column_least(size_t size, column a, column b) {
  return size == 2 ? _mm512_min_epi16(a, b) : _mm512_min_epi32(a, b);
}

TCK_INLINE column column_greatest(size_t size, column a, column b) {
  return size == 2 ? _mm512_max_epi16(a, b) : _mm512_max_epi32(a, b);
}

TCK_INLINE column column_least_unsigned(size_t size, column a, column b) {
  return size == 2 ? _mm512_min_epu16(a, b) : _mm512_min_epu32(a, b);
}

TCK_INLINE column column_greatest_unsigned(size_t size, column a, column b) {
  return size == 2 ? _mm512_max_epu16(a, b) : _mm512_max_epu32(a, b);
}

TCK_INLINE column column_fold(size_t size, column value) {
  return column_least(size, value, _mm512_permutex_epi64(value, 0x4E));
}

#include "vector_kernels.h"

const tck_kernels tck_avx512_kernels = VECTOR_TABLE("avx512", tck_avx2_crc32c);

#endif

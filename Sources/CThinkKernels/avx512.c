// AVX-512 (F, BW, DQ, VL): 16 values are one register, and so is a line of codes.

#pragma STDC FP_CONTRACT OFF

#if defined(__x86_64__)

#define TCK_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,f16c")))

#include <immintrin.h>
#include <string.h>

#include "instruction_sets.h"
#include "quantizer.h"
#include "vector_support.h"

#define TCK_SUM_LANES 8
#define TCK_PRODUCT_SUMS 8
#define TCK_COLUMN_ROWS 4
#define TCK_GROUP_PIECES 2
#define TCK_GROUP_QUADS 2

// MARK: - 16 values

typedef __m512 lanes;

typedef struct lanes_pair {
  lanes first, second;
} lanes_pair;

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

TCK_INLINE lanes lanes_larger(lanes a, lanes b) { return _mm512_max_ps(a, b); }

TCK_INLINE lanes lanes_magnitude(lanes value) { return _mm512_abs_ps(value); }

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

TCK_INLINE lanes lanes_multiply_add(lanes a, lanes b, lanes c) { return _mm512_fmadd_ps(a, b, c); }

TCK_INLINE lanes_pair lanes_load_pair(tck_element_type type, const void *bytes) {
  if (type != TCK_BFLOAT16) {
    return (lanes_pair){lanes_load(type, bytes), lanes_load(type, offset(bytes, LANES * tck_element_bytes(type)))};
  }
  __m512i bits = _mm512_loadu_si512(bytes);
  return (lanes_pair){_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16)),
                      _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32((int)0xFFFF0000)))};
}

TCK_INLINE lanes lanes_load_some(tck_element_type type, const void *bytes, size_t count) {
  __mmask16 some = (__mmask16)((1u << count) - 1);
  if (type == TCK_FLOAT32) return _mm512_maskz_loadu_ps(some, bytes);
  __m256i bits = _mm256_maskz_loadu_epi16(some, bytes);
  if (type == TCK_FLOAT16) return _mm512_cvtph_ps(bits);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

TCK_INLINE lanes lanes_transpose_add(const lanes value[4]) {
  __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(value[0], value[1]), _mm512_unpackhi_ps(value[0], value[1]));
  __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(value[2], value[3]), _mm512_unpackhi_ps(value[2], value[3]));
  return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xEE));
}

TCK_INLINE void lanes_store_fours(float *four, lanes value) {
  __m256 half = _mm256_add_ps(_mm512_castps512_ps256(value), _mm512_extractf32x8_ps(value, 1));
  _mm_storeu_ps(four, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

TCK_INLINE lanes lanes_add_neighbours(lanes value, size_t distance) {
  // What each lane faces, less the lane itself where it is the upper one.
  if (distance == 1) {
    __m512 facing = _mm512_permute_ps(value, 0xB1);
    return _mm512_mask_sub_ps(_mm512_add_ps(facing, value), 0xAAAA, facing, value);
  }
  if (distance == 2) {
    __m512 facing = _mm512_permute_ps(value, 0x4E);
    return _mm512_mask_sub_ps(_mm512_add_ps(facing, value), 0xCCCC, facing, value);
  }
  if (distance == 4) {
    __m512 facing = _mm512_shuffle_f32x4(value, value, 0xB1);
    return _mm512_mask_sub_ps(_mm512_add_ps(facing, value), 0xF0F0, facing, value);
  }
  __m512 facing = _mm512_shuffle_f32x4(value, value, 0x4E);
  return _mm512_mask_sub_ps(_mm512_add_ps(facing, value), 0xFF00, facing, value);
}

TCK_INLINE void lanes_store_integers(int16_t *integers, lanes value) {
  _mm256_storeu_si256((__m256i *)integers, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(value)));
}

// MARK: - 16 bytes

typedef __m128i octets;

TCK_INLINE octets octets_zero(void) { return _mm_setzero_si128(); }

TCK_INLINE octets octets_load(const void *bytes, size_t count) {
  if (count >= LANES) return _mm_loadu_si128(bytes);
  return _mm_maskz_loadu_epi8((__mmask16)((1u << count) - 1), bytes);
}

TCK_INLINE octets octets_larger(octets a, octets b) { return _mm_max_epu8(a, b); }

TCK_INLINE lanes octets_compact_scales(octets value) {
  // Twice, since the permutation looks at an index's lowest four bits.
  const __m512 powers = _mm512_broadcast_f32x8(_mm256_loadu_ps(tck_compact_powers));
  __m512i eighths = _mm512_cvtepu8_epi32(value);
  __m512i power = _mm512_castps_si512(_mm512_permutexvar_ps(eighths, powers));
  __m512i shifted = _mm512_slli_epi32(_mm512_srli_epi32(eighths, 3), 23);
  return _mm512_castsi512_ps(_mm512_maskz_add_epi32(_mm512_test_epi32_mask(eighths, eighths), power, shifted));
}

TCK_INLINE lanes octets_signed(octets value) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(value)); }

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

// MARK: - Weights

TCK_INLINE lanes lanes_splat_halves(const float *two) {
  return _mm512_mask_mov_ps(_mm512_set1_ps(two[0]), 0xFF00, _mm512_set1_ps(two[1]));
}

TCK_INLINE lanes lanes_splat_fours(const float *four) {
  const __m512i quads = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  return _mm512_permutexvar_ps(quads, _mm512_castps128_ps512(_mm_loadu_ps(four)));
}

TCK_INLINE lanes lanes_splat_float16(const void *first, const void *second) {
  short low, high;
  memcpy(&low, first, sizeof low);
  memcpy(&high, second, sizeof high);
  return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_set1_epi16(low), _mm_set1_epi16(high), 1));
}

TCK_INLINE lanes lanes_splat_pairs(const void *a, const void *b, const void *c, const void *d) {
  int of[4];
  memcpy(&of[0], a, sizeof *of);
  memcpy(&of[1], b, sizeof *of);
  memcpy(&of[2], c, sizeof *of);
  memcpy(&of[3], d, sizeof *of);
  __m128i low = _mm_blend_epi32(_mm_set1_epi32(of[0]), _mm_set1_epi32(of[1]), 0xC);
  __m128i high = _mm_blend_epi32(_mm_set1_epi32(of[2]), _mm_set1_epi32(of[3]), 0xC);
  return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1));
}

TCK_INLINE lanes lanes_evens(lanes value) { return _mm512_moveldup_ps(value); }

TCK_INLINE lanes lanes_of_bytes(uint64_t low, uint64_t high) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_set_epi64x((long long)high, (long long)low)));
}

typedef __m512i codes;

TCK_INLINE codes codes_zero(void) { return _mm512_setzero_si512(); }

TCK_INLINE codes codes_load(const void *first, const void *second) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256(first)), _mm256_loadu_si256(second), 1);
}

TCK_INLINE codes codes_load_fours(const void *a, const void *b, const void *c, const void *d) {
  __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(a)), _mm_loadu_si128(b), 1);
  __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(c)), _mm_loadu_si128(d), 1);
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

TCK_INLINE void codes_store(void *bytes, codes value) { _mm512_storeu_si512(bytes, value); }

TCK_INLINE codes codes_or(codes a, codes b) { return _mm512_or_si512(a, b); }

TCK_INLINE codes codes_of_nibbles(const void *first, const void *second) {
  const __m512i shifts = _mm512_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4);
  __m256i low = _mm256_broadcastsi128_si256(_mm_loadu_si128(first));
  __m256i high = _mm256_broadcastsi128_si256(_mm_loadu_si128(second));
  __m512i all = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  return _mm512_and_si512(_mm512_srlv_epi32(all, shifts), _mm512_set1_epi8(15));
}

TCK_INLINE codes codes_of_bits(const void *first, const void *second, uint8_t value) {
  uint32_t low, high;
  memcpy(&low, first, sizeof low);
  memcpy(&high, second, sizeof high);
  return _mm512_maskz_set1_epi8((__mmask64)(low | (uint64_t)high << 32), (char)value);
}

TCK_INLINE __m512i splat_halves_16(int first, int second) {
  return _mm512_inserti64x4(_mm512_set1_epi16((short)first), _mm256_set1_epi16((short)second), 1);
}

TCK_INLINE codes codes_field(codes value, int first, int second, uint8_t mask) {
  if (first > 0 || second > 0) {
    value = _mm512_srlv_epi16(value, splat_halves_16(first, second));
  } else if (first < 0 || second < 0) {
    value = _mm512_sllv_epi16(value, splat_halves_16(-first, -second));
  }
  return _mm512_and_si512(value, _mm512_set1_epi8((char)mask));
}

TCK_INLINE codes codes_flip_signs(codes value) { return _mm512_xor_si512(value, _mm512_set1_epi8((char)0x80)); }

TCK_INLINE codes codes_lookup(codes value, const uint8_t table[16]) {
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table)), value);
}

TCK_INLINE lanes codes_member(codes value, unsigned member) {
  value = member == 3 ? _mm512_srli_epi32(value, 24)
                      : _mm512_and_si512(value, _mm512_set1_epi32((int)(0xFFu << 8 * member)));
  return _mm512_cvtepi32_ps(value);
}

TCK_INLINE lanes codes_nibble(codes value, unsigned index) {
  value = index == 7 ? _mm512_srli_epi32(value, 28)
                     : _mm512_and_si512(value, _mm512_set1_epi32((int)(0xFu << 4 * index)));
  return _mm512_cvtepi32_ps(value);
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

TCK_INLINE column column_splat_16(int16_t value) { return _mm512_set1_epi16(value); }
TCK_INLINE column column_add_16(column a, column b) { return _mm512_add_epi16(a, b); }
TCK_INLINE column column_subtract_16(column a, column b) { return _mm512_sub_epi16(a, b); }
TCK_INLINE column column_magnitude_16(column value) { return _mm512_abs_epi16(value); }

TCK_INLINE column column_add_squares(column sums, column value) {
  return _mm512_add_epi32(sums, _mm512_madd_epi16(value, value));
}

TCK_INLINE column column_fold(size_t size, column value) {
  return column_least(size, value, _mm512_permutex_epi64(value, 0x4E));
}

#include "vector_kernels.h"

const tck_kernels tck_avx512_kernels =
    VECTOR_TABLE("avx512", tck_avx2_crc32c, tck_avx2_, tck_avx512_, PTRDIFF_MAX, 128, 32);

// MARK: - Attention

#undef TCK_TARGET
#define TCK_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,f16c,fma")))

TCK_INLINE lanes lanes_exp2(lanes power) {
  // 2^whole * 2^rest with rest of 0...1, the latter by a polynomial of relative error 2e-7.
  __m512 rest = _mm512_reduce_ps(power, _MM_FROUND_TO_NEG_INF);
  __m512 result = _mm512_set1_ps(1.867130050e-03f);
  result = _mm512_fmadd_ps(result, rest, _mm512_set1_ps(9.017030708e-03f));
  result = _mm512_fmadd_ps(result, rest, _mm512_set1_ps(5.579991266e-02f));
  result = _mm512_fmadd_ps(result, rest, _mm512_set1_ps(2.401644439e-01f));
  result = _mm512_fmadd_ps(result, rest, _mm512_set1_ps(6.931512952e-01f));
  result = _mm512_fmadd_ps(result, rest, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(result, power);  // Rounds the power down.
}

TCK_INLINE lanes lanes_splat_four(const float *four) { return _mm512_broadcast_f32x4(_mm_loadu_ps(four)); }

TCK_INLINE lanes lanes_splat_two_fours(const float *eight) {
  return _mm512_shuffle_f32x4(_mm512_castps256_ps512(_mm256_loadu_ps(eight)),
                              _mm512_castps256_ps512(_mm256_loadu_ps(eight)), 0x50);
}

TCK_INLINE lanes lanes_highest_of_fours(lanes value) {
  value = _mm512_max_ps(value, _mm512_permute_ps(value, 0xB1));
  return _mm512_max_ps(value, _mm512_permute_ps(value, 0x4E));
}

TCK_INLINE void lanes_store_highest(float *four, const lanes value[4]) {
  __m512 a = _mm512_max_ps(_mm512_unpacklo_ps(value[0], value[1]), _mm512_unpackhi_ps(value[0], value[1]));
  __m512 b = _mm512_max_ps(_mm512_unpacklo_ps(value[2], value[3]), _mm512_unpackhi_ps(value[2], value[3]));
  __m512 all = _mm512_max_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xEE));
  __m256 half = _mm256_max_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
  _mm_storeu_ps(four, _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

typedef __m256i halves;

TCK_INLINE halves halves_zero(void) { return _mm256_setzero_si256(); }

TCK_INLINE halves halves_larger(halves a, const void *bytes, size_t count) {
  __mmask16 some = (__mmask16)((1u << smaller(count, LANES)) - 1);
  return _mm256_max_epu16(a, _mm256_and_si256(_mm256_maskz_loadu_epi16(some, bytes), _mm256_set1_epi16(0x7FFF)));
}

TCK_INLINE lanes halves_lanes(halves value) { return _mm512_cvtph_ps(value); }

TCK_INLINE line line_pack_signed(const lanes value[4]) {
  __m512i low = _mm512_packs_epi32(_mm512_cvtps_epi32(value[0]), _mm512_cvtps_epi32(value[1]));
  __m512i high = _mm512_packs_epi32(_mm512_cvtps_epi32(value[2]), _mm512_cvtps_epi32(value[3]));
  return _mm512_packs_epi16(low, high);
}

TCK_INLINE line line_pack_unsigned(const lanes value[4]) {
  __m512i low = _mm512_packs_epi32(_mm512_cvtps_epi32(value[0]), _mm512_cvtps_epi32(value[1]));
  __m512i high = _mm512_packs_epi32(_mm512_cvtps_epi32(value[2]), _mm512_cvtps_epi32(value[3]));
  return _mm512_packus_epi16(low, high);
}

TCK_INLINE void line_split_signed(const lanes value[4], line *high, line *low) {
  __m512i a = _mm512_packs_epi32(_mm512_cvtps_epi32(value[0]), _mm512_cvtps_epi32(value[1]));
  __m512i b = _mm512_packs_epi32(_mm512_cvtps_epi32(value[2]), _mm512_cvtps_epi32(value[3]));
  __m512i half = _mm512_set1_epi16(64);
  __m512i high_a = _mm512_srai_epi16(_mm512_add_epi16(a, half), 7);
  __m512i high_b = _mm512_srai_epi16(_mm512_add_epi16(b, half), 7);
  *high = _mm512_packs_epi16(high_a, high_b);
  *low = _mm512_packs_epi16(_mm512_sub_epi16(a, _mm512_slli_epi16(high_a, 7)),
                            _mm512_sub_epi16(b, _mm512_slli_epi16(high_b, 7)));
}

TCK_INLINE void line_split_unsigned(const lanes value[4], line *high, line *low) {
  __m512i a = _mm512_packus_epi32(_mm512_cvtps_epi32(value[0]), _mm512_cvtps_epi32(value[1]));
  __m512i b = _mm512_packus_epi32(_mm512_cvtps_epi32(value[2]), _mm512_cvtps_epi32(value[3]));
  __m512i byte = _mm512_set1_epi16(0xFF);
  *high = _mm512_packus_epi16(_mm512_srli_epi16(a, 8), _mm512_srli_epi16(b, 8));
  *low = _mm512_packus_epi16(_mm512_and_si512(a, byte), _mm512_and_si512(b, byte));
}

TCK_INLINE line line_add_fours(line totals, line bytes) {
  return _mm512_dpbusd_epi32(totals, bytes, _mm512_set1_epi8(1));
}

TCK_INLINE line line_add_signed_fours(line totals, line bytes) {
  return _mm512_dpbusd_epi32(totals, _mm512_set1_epi8(1), bytes);
}

TCK_INLINE lanes line_lanes(line integers) { return _mm512_cvtepi32_ps(integers); }

// MARK: - Pieces

typedef __m512i piece;
typedef __m512i tally;

#define TCK_PIECES 1
#define TCK_DOT_SETS 2
#define TCK_PART_LIMIT 0

TCK_INLINE piece piece_load(const void *bytes) { return _mm512_loadu_si512(bytes); }

TCK_INLINE piece piece_unit(piece value, unsigned shift, unsigned width) { return line_unit(value, shift, width); }

TCK_INLINE piece piece_or_shifted(piece a, piece b, unsigned shift) { return line_or_shifted(a, b, shift); }

TCK_INLINE piece piece_splat(const uint8_t *four) {
  int32_t all;
  memcpy(&all, four, sizeof all);
  return _mm512_set1_epi32(all);
}

TCK_INLINE piece piece_flip_signs(piece value) { return _mm512_xor_si512(value, _mm512_set1_epi8((char)0x80)); }

TCK_INLINE tally tally_zero(void) { return _mm512_setzero_si512(); }

TCK_INLINE tally tally_add(tally sums, piece bytes, piece signed_bytes) {
  return _mm512_dpbusd_epi32(sums, bytes, signed_bytes);
}

TCK_INLINE tally tally_add_wide(tally sums, piece bytes, piece signed_bytes) {
  return _mm512_dpbusd_epi32(sums, bytes, signed_bytes);
}

TCK_INLINE tally tally_sum(tally a, tally b) { return _mm512_add_epi32(a, b); }

TCK_INLINE void tally_store(float *sums, tally value) { _mm512_storeu_ps(sums, _mm512_cvtepi32_ps(value)); }

TCK_INLINE void tally_store_split(float *sums, tally high, float factor, tally low) {
  _mm512_storeu_ps(sums, _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), _mm512_set1_ps(factor), _mm512_cvtepi32_ps(low)));
}

TCK_INLINE void tally_add_scaled(float *sums, tally value, float factor) {
  _mm512_storeu_ps(sums, _mm512_fmadd_ps(_mm512_cvtepi32_ps(value), _mm512_set1_ps(factor), _mm512_loadu_ps(sums)));
}

TCK_INLINE void tally_add_scaled_by(float *sums, tally value, const float *factors) {
  _mm512_storeu_ps(sums, _mm512_fmadd_ps(_mm512_cvtepi32_ps(value), _mm512_loadu_ps(factors), _mm512_loadu_ps(sums)));
}

#define TCK_VALUE_SLICES 4
#define TCK_PRECISE_VALUE_SLICES 2

#include "vector_attention.h"

const tck_kernels tck_avx512vnni_kernels =
    VECTOR_TABLE("avx512vnni", tck_avx2_crc32c, , tck_avx512_, PTRDIFF_MAX, PTRDIFF_MAX, 256);

#endif

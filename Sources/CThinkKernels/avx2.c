// AVX2 with F16C: 16 values are two registers, and a line of codes is two registers of lanes 0-7 and 8-15.

#pragma STDC FP_CONTRACT OFF

#if defined(__x86_64__)

#define TCK_TARGET __attribute__((target("avx2,fma,f16c,sse4.2,pclmul")))

#include <immintrin.h>
#include <string.h>

#include "instruction_sets.h"
#include "quantizer.h"
#include "vector_support.h"

#define TCK_SUM_LANES 2
#define TCK_PRODUCT_SUMS 4
#define TCK_COLUMN_ROWS 2
#define TCK_GROUP_PIECES 2
#define TCK_GROUP_QUADS 1

// MARK: - 16 values

typedef struct lanes {
  __m256 low, high;
} lanes;

typedef struct lanes_pair {
  lanes first, second;
} lanes_pair;

TCK_INLINE __m256 load_8(tck_element_type type, const void *bytes) {
  if (type == TCK_FLOAT32) return _mm256_loadu_ps(bytes);
  if (type == TCK_FLOAT16) return _mm256_cvtph_ps(_mm_loadu_si128(bytes));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(bytes)), 16));
}

TCK_INLINE void store_8(tck_element_type type, void *bytes, __m256 value) {
  if (type == TCK_FLOAT32) {
    _mm256_storeu_ps(bytes, value);
  } else if (type == TCK_FLOAT16) {
    _mm_storeu_si128(bytes, _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  } else {
    // As tck_float_to_bfloat.
    __m256i bits = _mm256_castps_si256(value);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    __m256i result = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, is_nan), 16);
    _mm_storeu_si128(bytes,
                     _mm_packus_epi32(_mm256_castsi256_si128(result), _mm256_extracti128_si256(result, 1)));
  }
}

TCK_INLINE lanes lanes_load(tck_element_type type, const void *bytes) {
  return (lanes){load_8(type, bytes), load_8(type, offset(bytes, 8 * tck_element_bytes(type)))};
}

TCK_INLINE void lanes_store(tck_element_type type, void *bytes, lanes value) {
  store_8(type, bytes, value.low);
  store_8(type, offset_mutable(bytes, 8 * tck_element_bytes(type)), value.high);
}

TCK_INLINE lanes lanes_splat(float value) { return (lanes){_mm256_set1_ps(value), _mm256_set1_ps(value)}; }

TCK_INLINE lanes lanes_add(lanes a, lanes b) {
  return (lanes){_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}

TCK_INLINE lanes lanes_subtract(lanes a, lanes b) {
  return (lanes){_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}

TCK_INLINE lanes lanes_multiply(lanes a, lanes b) {
  return (lanes){_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}

TCK_INLINE lanes lanes_divide(lanes a, lanes b) {
  return (lanes){_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}

TCK_INLINE lanes lanes_cap(lanes value, float limit) {
  // The processor's minimum is its second operand for NaN.
  __m256 limits = _mm256_set1_ps(limit);
  return (lanes){_mm256_min_ps(value.low, limits), _mm256_min_ps(value.high, limits)};
}

TCK_INLINE lanes lanes_larger(lanes a, lanes b) {
  return (lanes){_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}

TCK_INLINE lanes lanes_magnitude(lanes value) {
  __m256 sign = _mm256_set1_ps(-0.0f);
  return (lanes){_mm256_andnot_ps(sign, value.low), _mm256_andnot_ps(sign, value.high)};
}

TCK_INLINE lanes lanes_where_positive(lanes condition, lanes value) {
  __m256 zero = _mm256_setzero_ps();
  return (lanes){_mm256_and_ps(_mm256_cmp_ps(condition.low, zero, _CMP_GT_OQ), value.low),
                 _mm256_and_ps(_mm256_cmp_ps(condition.high, zero, _CMP_GT_OQ), value.high)};
}

TCK_INLINE bool lanes_are_within(lanes value, float limit) {
  __m256 limits = _mm256_set1_ps(limit), sign = _mm256_set1_ps(-0.0f);
  __m256 low = _mm256_cmp_ps(_mm256_andnot_ps(sign, value.low), limits, _CMP_LE_OQ);
  __m256 high = _mm256_cmp_ps(_mm256_andnot_ps(sign, value.high), limits, _CMP_LE_OQ);
  return _mm256_movemask_ps(_mm256_and_ps(low, high)) == 0xFF;
}

TCK_INLINE void add_4_to(double *totals, __m128 value) {
  _mm256_storeu_pd(totals, _mm256_add_pd(_mm256_loadu_pd(totals), _mm256_cvtps_pd(value)));
}

TCK_INLINE void lanes_add_to(double *totals, lanes value) {
  add_4_to(totals, _mm256_castps256_ps128(value.low));
  add_4_to(totals + 4, _mm256_extractf128_ps(value.low, 1));
  add_4_to(totals + 8, _mm256_castps256_ps128(value.high));
  add_4_to(totals + 12, _mm256_extractf128_ps(value.high, 1));
}

TCK_INLINE lanes lanes_multiply_add(lanes a, lanes b, lanes c) {
  return (lanes){_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}

TCK_INLINE __m256 even_8(__m256i bits) { return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16)); }

TCK_INLINE __m256 odd_8(__m256i bits) {
  return _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32((int)0xFFFF0000)));
}

TCK_INLINE lanes_pair lanes_load_pair(tck_element_type type, const void *bytes) {
  if (type != TCK_BFLOAT16) {
    return (lanes_pair){lanes_load(type, bytes), lanes_load(type, offset(bytes, LANES * tck_element_bytes(type)))};
  }
  __m256i low = _mm256_loadu_si256(bytes), high = _mm256_loadu_si256((const __m256i *)bytes + 1);
  return (lanes_pair){{even_8(low), even_8(high)}, {odd_8(low), odd_8(high)}};
}

TCK_INLINE lanes lanes_load_some(tck_element_type type, const void *bytes, size_t count) {
  uint32_t some[LANES] = {0};  // Room for any type.
  memcpy(some, bytes, count * tck_element_bytes(type));
  return lanes_load(type, some);
}

TCK_INLINE __m256 transpose_add_8(__m256 a, __m256 b, __m256 c, __m256 d) {
  return _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
}

TCK_INLINE lanes lanes_transpose_add(const lanes value[4]) {
  return (lanes){transpose_add_8(value[0].low, value[1].low, value[2].low, value[3].low),
                 transpose_add_8(value[0].high, value[1].high, value[2].high, value[3].high)};
}

TCK_INLINE __m128 add_fours(lanes value) {
  __m256 eight = _mm256_add_ps(value.low, value.high);
  return _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
}

TCK_INLINE void lanes_store_fours(float *four, lanes value) { _mm_storeu_ps(four, add_fours(value)); }

/// Each lane, its sign changed where bits are set, added to the one that it faces.
TCK_INLINE __m256 add_facing(__m256 value, __m256 facing, __m256i signs) {
  return _mm256_add_ps(facing, _mm256_xor_ps(value, _mm256_castsi256_ps(signs)));
}

TCK_INLINE __m256 add_neighbours_8(__m256 value, size_t distance) {
  const int minus = (int)0x80000000;
  if (distance == 1) {
    return add_facing(value, _mm256_permute_ps(value, 0xB1), _mm256_setr_epi32(0, minus, 0, minus, 0, minus, 0, minus));
  }
  if (distance == 2) {
    return add_facing(value, _mm256_permute_ps(value, 0x4E), _mm256_setr_epi32(0, 0, minus, minus, 0, 0, minus, minus));
  }
  return add_facing(value, _mm256_permute2f128_ps(value, value, 1),
                    _mm256_setr_epi32(0, 0, 0, 0, minus, minus, minus, minus));
}

TCK_INLINE lanes lanes_add_neighbours(lanes value, size_t distance) {
  if (distance == 8) return (lanes){_mm256_add_ps(value.low, value.high), _mm256_sub_ps(value.low, value.high)};
  return (lanes){add_neighbours_8(value.low, distance), add_neighbours_8(value.high, distance)};
}

TCK_INLINE void lanes_store_integers(int16_t *integers, lanes value) {
  __m256i packed = _mm256_packs_epi32(_mm256_cvtps_epi32(value.low), _mm256_cvtps_epi32(value.high));
  _mm256_storeu_si256((__m256i *)integers, _mm256_permute4x64_epi64(packed, 0xD8));
}

// MARK: - 16 bytes

typedef __m128i octets;

TCK_INLINE octets octets_zero(void) { return _mm_setzero_si128(); }

TCK_INLINE __m128i load_four_bytes(const void *bytes) {
  int four;
  memcpy(&four, bytes, sizeof four);
  return _mm_cvtsi32_si128(four);
}

TCK_INLINE octets octets_load(const void *bytes, size_t count) {
  if (count >= LANES) return _mm_loadu_si128(bytes);
  if (count == 12) return _mm_unpacklo_epi64(_mm_loadl_epi64(bytes), load_four_bytes(offset(bytes, 8)));
  return count == 8 ? _mm_loadl_epi64(bytes) : load_four_bytes(bytes);
}

TCK_INLINE octets octets_larger(octets a, octets b) { return _mm_max_epu8(a, b); }

/// Of the first 8 bytes; the permutation looks at an index's lowest three bits only.
TCK_INLINE __m256 compact_scales_8(__m128i bytes) {
  __m256i eighths = _mm256_cvtepu8_epi32(bytes);
  __m256i power = _mm256_castps_si256(_mm256_permutevar8x32_ps(_mm256_loadu_ps(tck_compact_powers), eighths));
  power = _mm256_add_epi32(power, _mm256_slli_epi32(_mm256_srli_epi32(eighths, 3), 23));
  return _mm256_castsi256_ps(_mm256_and_si256(power, _mm256_cmpgt_epi32(eighths, _mm256_setzero_si256())));
}

TCK_INLINE lanes octets_compact_scales(octets value) {
  return (lanes){compact_scales_8(value), compact_scales_8(_mm_unpackhi_epi64(value, value))};
}

TCK_INLINE lanes octets_signed(octets value) {
  return (lanes){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(value)),
                 _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(value, value)))};
}

// MARK: - Lines

typedef struct line {
  __m256i low, high;
} line;

TCK_INLINE line line_zero(void) { return (line){_mm256_setzero_si256(), _mm256_setzero_si256()}; }

TCK_INLINE line line_load(const void *bytes) {
  return (line){_mm256_loadu_si256(bytes), _mm256_loadu_si256((const __m256i *)bytes + 1)};
}

TCK_INLINE void line_store(void *bytes, line value) {
  _mm256_storeu_si256(bytes, value.low);
  _mm256_storeu_si256((__m256i *)bytes + 1, value.high);
}

TCK_INLINE line line_or_shifted(line a, line b, unsigned shift) {
  __m128i count = _mm_cvtsi32_si128((int)shift);
  return (line){_mm256_or_si256(a.low, _mm256_sll_epi16(b.low, count)),
                _mm256_or_si256(a.high, _mm256_sll_epi16(b.high, count))};
}

TCK_INLINE line line_unit(line value, unsigned shift, unsigned width) {
  __m128i count = _mm_cvtsi32_si128((int)shift);
  __m256i mask = _mm256_set1_epi8((char)((1u << width) - 1));
  return (line){_mm256_and_si256(_mm256_srl_epi16(value.low, count), mask),
                _mm256_and_si256(_mm256_srl_epi16(value.high, count), mask)};
}

TCK_INLINE __m256i quantize_8(tck_element_type type, const void *values, float minimum, float inverse) {
  __m256 steps = _mm256_sub_ps(load_8(type, values), _mm256_set1_ps(minimum));
  return _mm256_cvtps_epi32(_mm256_mul_ps(steps, _mm256_set1_ps(inverse)));
}

/// Eight lanes of a unit: packing saturates to 0...255, which is why values need no clamping before.
TCK_INLINE __m256i quantize_half(tck_element_type type, const void *const values[4], size_t at, const float *minima,
                                 const float *inverses, unsigned width) {
  const __m256i turn = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  __m256i codes[4];
  for (size_t i = 0; i < 4; i++) codes[i] = quantize_8(type, offset(values[i], at), minima[i], inverses[i]);
  __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(codes[0], codes[1]), _mm256_packs_epi32(codes[2], codes[3]));
  bytes = _mm256_min_epu8(bytes, _mm256_set1_epi8((char)((1u << width) - 1)));
  return _mm256_shuffle_epi8(bytes, turn);
}

TCK_INLINE line line_quantize(tck_element_type type, const void *const values[4], const float *minima,
                              const float *inverses, unsigned width) {
  return (line){quantize_half(type, values, 0, minima, inverses, width),
                quantize_half(type, values, 8 * tck_element_bytes(type), minima, inverses, width)};
}

TCK_INLINE lanes line_member(line unit, unsigned member) {
  const __m256i pick = _mm256_add_epi32(_mm256_set1_epi32((int)member),
                                        _mm256_broadcastsi128_si256(_mm_setr_epi32(
                                            (int)0x80808000, (int)0x80808004, (int)0x80808008, (int)0x8080800C)));
  return (lanes){_mm256_cvtepi32_ps(_mm256_shuffle_epi8(unit.low, pick)),
                 _mm256_cvtepi32_ps(_mm256_shuffle_epi8(unit.high, pick))};
}

// MARK: - Weights

TCK_INLINE lanes lanes_splat_halves(const float *two) { return (lanes){_mm256_set1_ps(two[0]), _mm256_set1_ps(two[1])}; }

TCK_INLINE lanes lanes_splat_fours(const float *four) {
  return (lanes){_mm256_blend_ps(_mm256_set1_ps(four[0]), _mm256_set1_ps(four[1]), 0xF0),
                 _mm256_blend_ps(_mm256_set1_ps(four[2]), _mm256_set1_ps(four[3]), 0xF0)};
}

TCK_INLINE __m256 splat_float16(const void *bytes) {
  short bits;
  memcpy(&bits, bytes, sizeof bits);
  return _mm256_cvtph_ps(_mm_set1_epi16(bits));
}

TCK_INLINE lanes lanes_splat_float16(const void *first, const void *second) {
  return (lanes){splat_float16(first), splat_float16(second)};
}

TCK_INLINE __m256 splat_pairs(const void *first, const void *second) {
  int low, high;
  memcpy(&low, first, sizeof low);
  memcpy(&high, second, sizeof high);
  return _mm256_cvtph_ps(_mm_blend_epi32(_mm_set1_epi32(low), _mm_set1_epi32(high), 0xC));
}

TCK_INLINE lanes lanes_splat_pairs(const void *a, const void *b, const void *c, const void *d) {
  return (lanes){splat_pairs(a, b), splat_pairs(c, d)};
}

TCK_INLINE lanes lanes_evens(lanes value) {
  return (lanes){_mm256_moveldup_ps(value.low), _mm256_moveldup_ps(value.high)};
}

TCK_INLINE __m256 widen_8_bytes(uint64_t bytes) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)bytes)));
}

TCK_INLINE lanes lanes_of_bytes(uint64_t low, uint64_t high) { return (lanes){widen_8_bytes(low), widen_8_bytes(high)}; }

typedef struct codes {
  __m256i low, high;
} codes;

TCK_INLINE codes codes_zero(void) { return (codes){_mm256_setzero_si256(), _mm256_setzero_si256()}; }

TCK_INLINE codes codes_load(const void *first, const void *second) {
  return (codes){_mm256_loadu_si256(first), _mm256_loadu_si256(second)};
}

TCK_INLINE __m256i load_two(const void *first, const void *second) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(first)), _mm_loadu_si128(second), 1);
}

TCK_INLINE codes codes_load_fours(const void *a, const void *b, const void *c, const void *d) {
  return (codes){load_two(a, b), load_two(c, d)};
}

TCK_INLINE void codes_store(void *bytes, codes value) {
  _mm256_storeu_si256(bytes, value.low);
  _mm256_storeu_si256((__m256i *)bytes + 1, value.high);
}

TCK_INLINE codes codes_or(codes a, codes b) {
  return (codes){_mm256_or_si256(a.low, b.low), _mm256_or_si256(a.high, b.high)};
}

TCK_INLINE __m256i nibbles_32(const void *bytes) {
  __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes));
  return _mm256_and_si256(_mm256_srlv_epi32(both, _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4)), _mm256_set1_epi8(15));
}

TCK_INLINE codes codes_of_nibbles(const void *first, const void *second) {
  return (codes){nibbles_32(first), nibbles_32(second)};
}

TCK_INLINE __m256i bits_32(const void *bytes, char value) {
  int bits;
  memcpy(&bits, bytes, sizeof bits);
  const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i each = _mm256_set1_epi64x((long long)0x8040201008040201);
  __m256i repeated = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread), each);
  return _mm256_and_si256(_mm256_cmpeq_epi8(repeated, each), _mm256_set1_epi8(value));
}

TCK_INLINE codes codes_of_bits(const void *first, const void *second, uint8_t value) {
  return (codes){bits_32(first, (char)value), bits_32(second, (char)value)};
}

TCK_INLINE __m256i field_32(__m256i value, int shift, uint8_t mask) {
  __m128i count = _mm_cvtsi32_si128(shift < 0 ? -shift : shift);
  if (shift != 0) value = shift < 0 ? _mm256_sll_epi16(value, count) : _mm256_srl_epi16(value, count);
  return _mm256_and_si256(value, _mm256_set1_epi8((char)mask));
}

TCK_INLINE codes codes_field(codes value, int first, int second, uint8_t mask) {
  return (codes){field_32(value.low, first, mask), field_32(value.high, second, mask)};
}

TCK_INLINE codes codes_flip_signs(codes value) {
  __m256i signs = _mm256_set1_epi8((char)0x80);
  return (codes){_mm256_xor_si256(value.low, signs), _mm256_xor_si256(value.high, signs)};
}

TCK_INLINE codes codes_lookup(codes value, const uint8_t table[16]) {
  __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
  return (codes){_mm256_shuffle_epi8(both, value.low), _mm256_shuffle_epi8(both, value.high)};
}

TCK_INLINE __m256 member_8(__m256i value, unsigned member) {
  value = member == 3 ? _mm256_srli_epi32(value, 24)
                      : _mm256_and_si256(value, _mm256_set1_epi32((int)(0xFFu << 8 * member)));
  return _mm256_cvtepi32_ps(value);
}

TCK_INLINE lanes codes_member(codes value, unsigned member) {
  return (lanes){member_8(value.low, member), member_8(value.high, member)};
}

TCK_INLINE __m256 nibble_8(__m256i value, unsigned index) {
  value = index == 7 ? _mm256_srli_epi32(value, 28)
                     : _mm256_and_si256(value, _mm256_set1_epi32((int)(0xFu << 4 * index)));
  return _mm256_cvtepi32_ps(value);
}

TCK_INLINE lanes codes_nibble(codes value, unsigned index) {
  return (lanes){nibble_8(value.low, index), nibble_8(value.high, index)};
}

// MARK: - Columns

typedef __m256i column;
typedef __m128i kept;

TCK_INLINE column column_load(const void *bytes) { return _mm256_loadu_si256(bytes); }

TCK_INLINE void column_store(void *bytes, column value) { _mm256_storeu_si256(bytes, value); }

TCK_INLINE column column_load_rows(const void *row, size_t spacing) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(row)),
                                 _mm_loadu_si128(offset(row, spacing)), 1);
}

TCK_INLINE kept kept_elements(size_t size, unsigned mask) {
  if (size == 2) {
    __m128i bits = _mm_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm_cmpeq_epi16(_mm_and_si128(_mm_set1_epi16((short)mask), bits), bits);
  }
  __m128i bits = _mm_setr_epi32(1, 2, 4, 8);
  return _mm_cmpeq_epi32(_mm_and_si128(_mm_set1_epi32((int)mask), bits), bits);
}

TCK_INLINE void column_store_rows(size_t size, void *row, size_t spacing, column value, kept elements) {
  (void)size;
  void *second = offset_mutable(row, spacing);
  _mm_storeu_si128(row, _mm_blendv_epi8(_mm_loadu_si128(row), _mm256_castsi256_si128(value), elements));
  _mm_storeu_si128(second, _mm_blendv_epi8(_mm_loadu_si128(second), _mm256_extracti128_si256(value, 1), elements));
}

TCK_INLINE column column_zip_low_16(column a, column b) { return _mm256_unpacklo_epi16(a, b); }
TCK_INLINE column column_zip_high_16(column a, column b) { return _mm256_unpackhi_epi16(a, b); }
TCK_INLINE column column_zip_low_32(column a, column b) { return _mm256_unpacklo_epi32(a, b); }
TCK_INLINE column column_zip_high_32(column a, column b) { return _mm256_unpackhi_epi32(a, b); }
TCK_INLINE column column_zip_low_64(column a, column b) { return _mm256_unpacklo_epi64(a, b); }
TCK_INLINE column column_zip_high_64(column a, column b) { return _mm256_unpackhi_epi64(a, b); }

TCK_INLINE column column_load_quads(const void *row, size_t spacing) {
  (void)spacing;
  return column_load(row);
}

TCK_INLINE column column_keys(size_t size, column bits) {
  __m256i inverted = size == 2 ? _mm256_srli_epi16(_mm256_srai_epi16(bits, 15), 1)
                               : _mm256_srli_epi32(_mm256_srai_epi32(bits, 31), 1);
  return _mm256_xor_si256(bits, inverted);
}

TCK_INLINE column column_not(column value) { return _mm256_xor_si256(value, _mm256_set1_epi32(-1)); }

TCK_INLINE column column_least(size_t size, column a, column b) {
  return size == 2 ? _mm256_min_epi16(a, b) : _mm256_min_epi32(a, b);
}

TCK_INLINE column column_greatest(size_t size, column a, column b) {
  return size == 2 ? _mm256_max_epi16(a, b) : _mm256_max_epi32(a, b);
}

TCK_INLINE column column_least_unsigned(size_t size, column a, column b) {
  return size == 2 ? _mm256_min_epu16(a, b) : _mm256_min_epu32(a, b);
}

TCK_INLINE column column_greatest_unsigned(size_t size, column a, column b) {
  return size == 2 ? _mm256_max_epu16(a, b) : _mm256_max_epu32(a, b);
}

TCK_INLINE column column_splat_16(int16_t value) { return _mm256_set1_epi16(value); }
TCK_INLINE column column_add_16(column a, column b) { return _mm256_add_epi16(a, b); }
TCK_INLINE column column_subtract_16(column a, column b) { return _mm256_sub_epi16(a, b); }
TCK_INLINE column column_magnitude_16(column value) { return _mm256_abs_epi16(value); }

TCK_INLINE column column_add_squares(column sums, column value) {
  return _mm256_add_epi32(sums, _mm256_madd_epi16(value, value));
}

TCK_INLINE column column_fold(size_t size, column value) {
  return column_least(size, value, _mm256_permute4x64_epi64(value, 0x4E));
}

#include "vector_kernels.h"

// MARK: - Checksum

TCK_INLINE uint32_t crc32c_byte(uint32_t crc, uint8_t byte) { return _mm_crc32_u8(crc, byte); }

TCK_INLINE uint64_t crc32c_word(uint64_t crc, uint64_t word) { return _mm_crc32_u64(crc, word); }

TCK_INLINE uint64_t crc32c_product(uint64_t crc, uint64_t factor) {
  __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), _mm_cvtsi64_si128((long long)factor), 0);
  return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

#include "vector_crc32c.h"

TCK_TARGET uint32_t tck_avx2_crc32c(uint32_t crc, const void *bytes, size_t count) {
  return crc32c_streams(crc, bytes, count);
}

// MARK: - Attention

TCK_INLINE __m256 exp2_8(__m256 power) {
  // 2^whole * 2^rest with rest of 0...1, the latter by a polynomial of relative error 2e-7.
  power = _mm256_max_ps(power, _mm256_set1_ps(-126));
  __m256 whole = _mm256_floor_ps(power);
  __m256 rest = _mm256_sub_ps(power, whole);
  __m256 result = _mm256_set1_ps(1.867130050e-03f);
  result = _mm256_fmadd_ps(result, rest, _mm256_set1_ps(9.017030708e-03f));
  result = _mm256_fmadd_ps(result, rest, _mm256_set1_ps(5.579991266e-02f));
  result = _mm256_fmadd_ps(result, rest, _mm256_set1_ps(2.401644439e-01f));
  result = _mm256_fmadd_ps(result, rest, _mm256_set1_ps(6.931512952e-01f));
  result = _mm256_fmadd_ps(result, rest, _mm256_set1_ps(1.0f));
  __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(whole), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(result), exponent));
}

TCK_INLINE lanes lanes_exp2(lanes power) { return (lanes){exp2_8(power.low), exp2_8(power.high)}; }

TCK_INLINE lanes lanes_splat_four(const float *four) {
  __m256 both = _mm256_broadcast_ps((const __m128 *)four);
  return (lanes){both, both};
}

TCK_INLINE lanes lanes_splat_two_fours(const float *eight) {
  return (lanes){_mm256_broadcast_ps((const __m128 *)eight), _mm256_broadcast_ps((const __m128 *)(eight + 4))};
}

TCK_INLINE __m256 highest_of_fours_8(__m256 value) {
  value = _mm256_max_ps(value, _mm256_permute_ps(value, 0xB1));
  return _mm256_max_ps(value, _mm256_permute_ps(value, 0x4E));
}

TCK_INLINE lanes lanes_highest_of_fours(lanes value) {
  return (lanes){highest_of_fours_8(value.low), highest_of_fours_8(value.high)};
}

TCK_INLINE void lanes_store_highest(float *four, const lanes value[4]) {
  __m256 of[4];
  for (size_t i = 0; i < 4; i++) of[i] = _mm256_max_ps(value[i].low, value[i].high);
  __m256 a = _mm256_max_ps(_mm256_unpacklo_ps(of[0], of[1]), _mm256_unpackhi_ps(of[0], of[1]));
  __m256 b = _mm256_max_ps(_mm256_unpacklo_ps(of[2], of[3]), _mm256_unpackhi_ps(of[2], of[3]));
  __m256 all = _mm256_max_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xEE));
  _mm_storeu_ps(four, _mm_max_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}

typedef __m256i halves;

TCK_INLINE halves halves_zero(void) { return _mm256_setzero_si256(); }

TCK_INLINE halves halves_larger(halves a, const void *bytes, size_t count) {
  __m256i value;
  if (count >= LANES) {
    value = _mm256_loadu_si256(bytes);
  } else {
    uint16_t some[LANES] = {0};
    memcpy(some, bytes, count * sizeof *some);
    value = _mm256_loadu_si256((const __m256i *)some);
  }
  return _mm256_max_epu16(a, _mm256_and_si256(value, _mm256_set1_epi16(0x7FFF)));
}

TCK_INLINE lanes halves_lanes(halves value) {
  return (lanes){_mm256_cvtph_ps(_mm256_castsi256_si128(value)), _mm256_cvtph_ps(_mm256_extracti128_si256(value, 1))};
}

/// Eight lanes of four vectors as 16-bit integers: a has those of the first two in turns of four, b of the others.
typedef struct halves_8 {
  __m256i a, b;
} halves_8;

TCK_INLINE halves_8 round_low(const lanes value[4]) {
  return (halves_8){_mm256_packs_epi32(_mm256_cvtps_epi32(value[0].low), _mm256_cvtps_epi32(value[1].low)),
                    _mm256_packs_epi32(_mm256_cvtps_epi32(value[2].low), _mm256_cvtps_epi32(value[3].low))};
}

TCK_INLINE halves_8 round_high(const lanes value[4]) {
  return (halves_8){_mm256_packs_epi32(_mm256_cvtps_epi32(value[0].high), _mm256_cvtps_epi32(value[1].high)),
                    _mm256_packs_epi32(_mm256_cvtps_epi32(value[2].high), _mm256_cvtps_epi32(value[3].high))};
}

TCK_INLINE line line_pack_signed(const lanes value[4]) {
  halves_8 low = round_low(value), high = round_high(value);
  return (line){_mm256_packs_epi16(low.a, low.b), _mm256_packs_epi16(high.a, high.b)};
}

TCK_INLINE line line_pack_unsigned(const lanes value[4]) {
  halves_8 low = round_low(value), high = round_high(value);
  return (line){_mm256_packus_epi16(low.a, low.b), _mm256_packus_epi16(high.a, high.b)};
}

TCK_INLINE void split_signed(halves_8 value, __m256i *high, __m256i *low) {
  __m256i half = _mm256_set1_epi16(64);
  __m256i high_a = _mm256_srai_epi16(_mm256_add_epi16(value.a, half), 7);
  __m256i high_b = _mm256_srai_epi16(_mm256_add_epi16(value.b, half), 7);
  *high = _mm256_packs_epi16(high_a, high_b);
  *low = _mm256_packs_epi16(_mm256_sub_epi16(value.a, _mm256_slli_epi16(high_a, 7)),
                            _mm256_sub_epi16(value.b, _mm256_slli_epi16(high_b, 7)));
}

TCK_INLINE void line_split_signed(const lanes value[4], line *high, line *low) {
  split_signed(round_low(value), &high->low, &low->low);
  split_signed(round_high(value), &high->high, &low->high);
}

TCK_INLINE void split_unsigned(__m256 a, __m256 b, __m256 c, __m256 d, __m256i *high, __m256i *low) {
  __m256i first = _mm256_packus_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
  __m256i second = _mm256_packus_epi32(_mm256_cvtps_epi32(c), _mm256_cvtps_epi32(d));
  __m256i byte = _mm256_set1_epi16(0xFF);
  *high = _mm256_packus_epi16(_mm256_srli_epi16(first, 8), _mm256_srli_epi16(second, 8));
  *low = _mm256_packus_epi16(_mm256_and_si256(first, byte), _mm256_and_si256(second, byte));
}

TCK_INLINE void line_split_unsigned(const lanes value[4], line *high, line *low) {
  split_unsigned(value[0].low, value[1].low, value[2].low, value[3].low, &high->low, &low->low);
  split_unsigned(value[0].high, value[1].high, value[2].high, value[3].high, &high->high, &low->high);
}

// MARK: - Pieces

typedef __m256i piece;
typedef __m256i tally;

#define TCK_PIECES 2
#define TCK_DOT_SETS 1

TCK_INLINE piece piece_load(const void *bytes) { return _mm256_loadu_si256(bytes); }

TCK_INLINE piece piece_unit(piece value, unsigned shift, unsigned width) {
  return _mm256_and_si256(_mm256_srl_epi16(value, _mm_cvtsi32_si128((int)shift)),
                          _mm256_set1_epi8((char)((1u << width) - 1)));
}

TCK_INLINE piece piece_or_shifted(piece a, piece b, unsigned shift) {
  return _mm256_or_si256(a, _mm256_sll_epi16(b, _mm_cvtsi32_si128((int)shift)));
}

TCK_INLINE piece piece_splat(const uint8_t *four) {
  int32_t all;
  memcpy(&all, four, sizeof all);
  return _mm256_set1_epi32(all);
}

TCK_INLINE piece piece_flip_signs(piece value) { return _mm256_xor_si256(value, _mm256_set1_epi8((char)0x80)); }

TCK_INLINE tally tally_zero(void) { return _mm256_setzero_si256(); }

#define TCK_PART_LIMIT 32767

TCK_INLINE tally tally_add(tally parts, piece bytes, piece signed_bytes) {
  return _mm256_add_epi16(parts, _mm256_maddubs_epi16(bytes, signed_bytes));
}

TCK_INLINE tally tally_add_part(tally sums, tally part) {
  return _mm256_add_epi32(sums, _mm256_madd_epi16(part, _mm256_set1_epi16(1)));
}

TCK_INLINE tally tally_add_wide(tally sums, piece bytes, piece signed_bytes) {
  // Two products of full range exceed 16 bits: one at a time.
  __m256i even = _mm256_and_si256(bytes, _mm256_set1_epi16(0xFF));
  sums = tally_add_part(sums, _mm256_maddubs_epi16(even, signed_bytes));
  return tally_add_part(sums, _mm256_maddubs_epi16(_mm256_xor_si256(bytes, even), signed_bytes));
}

TCK_INLINE tally tally_sum(tally a, tally b) { return _mm256_add_epi32(a, b); }

TCK_INLINE void tally_store(float *sums, tally value) { _mm256_storeu_ps(sums, _mm256_cvtepi32_ps(value)); }

TCK_INLINE void tally_store_split(float *sums, tally high, float factor, tally low) {
  _mm256_storeu_ps(sums, _mm256_fmadd_ps(_mm256_cvtepi32_ps(high), _mm256_set1_ps(factor), _mm256_cvtepi32_ps(low)));
}

TCK_INLINE void tally_add_scaled(float *sums, tally value, float factor) {
  _mm256_storeu_ps(sums, _mm256_fmadd_ps(_mm256_cvtepi32_ps(value), _mm256_set1_ps(factor), _mm256_loadu_ps(sums)));
}

TCK_INLINE void tally_add_scaled_by(float *sums, tally value, const float *factors) {
  _mm256_storeu_ps(sums, _mm256_fmadd_ps(_mm256_cvtepi32_ps(value), _mm256_loadu_ps(factors), _mm256_loadu_ps(sums)));
}

TCK_INLINE line line_add_fours(line totals, line bytes) {
  __m256i ones = _mm256_set1_epi8(1);
  return (line){tally_add_part(totals.low, _mm256_maddubs_epi16(bytes.low, ones)),
                tally_add_part(totals.high, _mm256_maddubs_epi16(bytes.high, ones))};
}

TCK_INLINE line line_add_signed_fours(line totals, line bytes) {
  __m256i ones = _mm256_set1_epi8(1);
  return (line){tally_add_part(totals.low, _mm256_maddubs_epi16(ones, bytes.low)),
                tally_add_part(totals.high, _mm256_maddubs_epi16(ones, bytes.high))};
}

TCK_INLINE lanes line_lanes(line integers) {
  return (lanes){_mm256_cvtepi32_ps(integers.low), _mm256_cvtepi32_ps(integers.high)};
}

#define TCK_VALUE_SLICES 2
#define TCK_PRECISE_VALUE_SLICES 1

#include "vector_attention.h"

TCK_TARGET void tck_avx2_attend_blocks(const tck_block_format *format, const void *blocks, size_t block_count,
                                       tck_queries *queries, const void *next, size_t next_byte_count) {
  attend_blocks(format, blocks, block_count, queries, next, next_byte_count);
}

TCK_TARGET void tck_avx2_attend_rows(tck_rows keys, tck_rows values, size_t tokens, size_t key_dimension,
                                     size_t value_dimension, tck_queries *queries) {
  attend_rows(keys, values, tokens, key_dimension, value_dimension, queries);
}

TCK_TARGET void tck_avx2_join_scores(float *scores, size_t tokens, size_t value_dimension, tck_queries *queries) {
  join_scores(scores, tokens, value_dimension, queries);
}

TCK_TARGET void tck_avx2_multiply_gates(tck_activation activation, float *gates, const float *ups, size_t count) {
  multiply_gates(activation, gates, ups, count);
}

const tck_kernels tck_avx2_kernels = VECTOR_TABLE("avx2", tck_avx2_crc32c, , tck_avx2_, PTRDIFF_MAX, 128, 32);

#endif

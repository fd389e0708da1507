// Attention with NEON: what vector_attention.h asks of a set, and its functions with the set's names. A line is four
// registers of 16 bytes as they lie in memory.
//
// TCK_TARGET           as always
// TCK_ATTENTION(name)  the name of a function of the set
// TCK_DOT_PRODUCTS     whether the set has the dot products of ARMv8.2

#ifndef THINK_KERNELS_NEON_ATTENTION_H
#define THINK_KERNELS_NEON_ATTENTION_H

#include <string.h>

#include "instruction_sets.h"
#include "neon_lanes.h"

// MARK: - 16 values

TCK_INLINE float32x4_t exp2_4(float32x4_t power) {
  // 2^whole * 2^rest with rest of 0...1, the latter by a polynomial of relative error 2e-7.
  power = larger_4(power, vdupq_n_f32(-126));
  float32x4_t whole = vrndmq_f32(power);
  float32x4_t rest = vsubq_f32(power, whole);
  float32x4_t result = vdupq_n_f32(1.867130050e-03f);
  result = vfmaq_f32(vdupq_n_f32(9.017030708e-03f), result, rest);
  result = vfmaq_f32(vdupq_n_f32(5.579991266e-02f), result, rest);
  result = vfmaq_f32(vdupq_n_f32(2.401644439e-01f), result, rest);
  result = vfmaq_f32(vdupq_n_f32(6.931512952e-01f), result, rest);
  result = vfmaq_f32(vdupq_n_f32(1.0f), result, rest);
  int32x4_t exponent = vshlq_n_s32(vcvtq_s32_f32(whole), 23);
  return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(result), exponent));
}

TCK_INLINE lanes lanes_exp2(lanes power) {
  EACH(i) power.of[i] = exp2_4(power.of[i]);
  return power;
}

TCK_INLINE lanes lanes_splat_four(const float *four) {
  lanes result;
  EACH(i) result.of[i] = vld1q_f32(four);
  return result;
}

TCK_INLINE lanes lanes_splat_two_fours(const float *eight) {
  lanes result;
  EACH(i) result.of[i] = vld1q_f32(eight + i / 2 * 4);
  return result;
}

TCK_INLINE lanes lanes_highest_of_fours(lanes value) {
  EACH(i) value.of[i] = vdupq_n_f32(vmaxvq_f32(value.of[i]));
  return value;
}

TCK_INLINE void lanes_store_highest(float *four, const lanes value[4]) {
  float32x4_t of[4];
  EACH(i) {
    of[i] = vpmaxq_f32(vpmaxq_f32(value[0].of[i], value[1].of[i]), vpmaxq_f32(value[2].of[i], value[3].of[i]));
  }
  vst1q_f32(four, vmaxq_f32(vmaxq_f32(of[0], of[1]), vmaxq_f32(of[2], of[3])));
}

typedef uint16x8x2_t halves;

TCK_INLINE halves halves_zero(void) { return (halves){{vdupq_n_u16(0), vdupq_n_u16(0)}}; }

TCK_INLINE halves halves_larger(halves a, const void *bytes, size_t count) {
  uint16_t some[LANES] = {0};
  memcpy(some, bytes, smaller(count, LANES) * sizeof *some);
  uint16x8_t magnitude = vdupq_n_u16(0x7FFF);
  a.val[0] = vmaxq_u16(a.val[0], vandq_u16(vld1q_u16(some), magnitude));
  a.val[1] = vmaxq_u16(a.val[1], vandq_u16(vld1q_u16(some + 8), magnitude));
  return a;
}

TCK_INLINE lanes halves_lanes(halves value) {
  uint16_t bits[LANES];
  vst1q_u16(bits, value.val[0]);
  vst1q_u16(bits + 8, value.val[1]);
  return lanes_load(TCK_FLOAT16, bits);
}

// MARK: - Lines

typedef struct line {
  uint8x16_t of[4];
} line;

TCK_INLINE line line_zero(void) {
  line result;
  EACH(i) result.of[i] = vdupq_n_u8(0);
  return result;
}

TCK_INLINE void line_store(void *bytes, line value) {
  EACH(i) vst1q_u8((uint8_t *)bytes + 16 * i, value.of[i]);
}

/// Two vectors' four lanes as 16-bit integers.
TCK_INLINE int16x8_t round_signed(float32x4_t a, float32x4_t b) {
  return vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(a)), vqmovn_s32(vcvtnq_s32_f32(b)));
}

TCK_INLINE uint16x8_t round_unsigned(float32x4_t a, float32x4_t b) {
  return vcombine_u16(vqmovun_s32(vcvtnq_s32_f32(a)), vqmovun_s32(vcvtnq_s32_f32(b)));
}

TCK_INLINE uint8x16_t narrow_signed(int16x8_t a, int16x8_t b) {
  return vreinterpretq_u8_s8(vcombine_s8(vqmovn_s16(a), vqmovn_s16(b)));
}

TCK_INLINE line line_pack_signed(const lanes value[4]) {
  line result;
  EACH(i) {
    result.of[i] = narrow_signed(round_signed(value[0].of[i], value[1].of[i]),
                                 round_signed(value[2].of[i], value[3].of[i]));
  }
  return result;
}

TCK_INLINE line line_pack_unsigned(const lanes value[4]) {
  line result;
  EACH(i) {
    result.of[i] = vcombine_u8(vqmovn_u16(round_unsigned(value[0].of[i], value[1].of[i])),
                               vqmovn_u16(round_unsigned(value[2].of[i], value[3].of[i])));
  }
  return result;
}

TCK_INLINE void line_split_signed(const lanes value[4], line *high, line *low) {
  EACH(i) {
    int16x8_t a = round_signed(value[0].of[i], value[1].of[i]);
    int16x8_t b = round_signed(value[2].of[i], value[3].of[i]);
    int16x8_t high_a = vrshrq_n_s16(a, 7), high_b = vrshrq_n_s16(b, 7);
    high->of[i] = narrow_signed(high_a, high_b);
    low->of[i] = narrow_signed(vsubq_s16(a, vshlq_n_s16(high_a, 7)), vsubq_s16(b, vshlq_n_s16(high_b, 7)));
  }
}

TCK_INLINE void line_split_unsigned(const lanes value[4], line *high, line *low) {
  EACH(i) {
    uint16x8_t a = round_unsigned(value[0].of[i], value[1].of[i]);
    uint16x8_t b = round_unsigned(value[2].of[i], value[3].of[i]);
    high->of[i] = vcombine_u8(vshrn_n_u16(a, 8), vshrn_n_u16(b, 8));
    low->of[i] = vcombine_u8(vmovn_u16(a), vmovn_u16(b));
  }
}

TCK_INLINE line line_add_fours(line totals, line bytes) {
  EACH(i) {
    uint32x4_t total = vreinterpretq_u32_u8(totals.of[i]);
    totals.of[i] = vreinterpretq_u8_u32(vpadalq_u16(total, vpaddlq_u8(bytes.of[i])));
  }
  return totals;
}

TCK_INLINE line line_add_signed_fours(line totals, line bytes) {
  EACH(i) {
    int32x4_t total = vreinterpretq_s32_u8(totals.of[i]);
    totals.of[i] = vreinterpretq_u8_s32(vpadalq_s16(total, vpaddlq_s8(vreinterpretq_s8_u8(bytes.of[i]))));
  }
  return totals;
}

TCK_INLINE lanes line_lanes(line integers) {
  lanes result;
  EACH(i) result.of[i] = vcvtq_f32_s32(vreinterpretq_s32_u8(integers.of[i]));
  return result;
}

// MARK: - Pieces

#define TCK_PIECES 4
#define TCK_DOT_SETS 2
#define TCK_PART_LIMIT 0

typedef struct piece {
  uint8x16_t bytes;
  /// Codes of up to 5 bits are the same numbers with or without sign, so that a product takes the other operand's sign.
  /// A constant once loops are unrolled.
  bool is_small;
} piece;

typedef int32x4_t tally;

TCK_INLINE piece piece_load(const void *bytes) { return (piece){vld1q_u8(bytes), false}; }

TCK_INLINE piece piece_unit(piece value, unsigned shift, unsigned width) {
  uint8x16_t codes = value.bytes >> vdupq_n_u8((uint8_t)shift);
  return (piece){vandq_u8(codes, vdupq_n_u8((uint8_t)((1u << width) - 1))), width < 8};
}

TCK_INLINE piece piece_or_shifted(piece a, piece b, unsigned shift) {
  return (piece){vorrq_u8(a.bytes, b.bytes << vdupq_n_u8((uint8_t)shift)), a.is_small};
}

TCK_INLINE piece piece_splat(const uint8_t *four) {
  uint32_t all;
  memcpy(&all, four, sizeof all);
  return (piece){vreinterpretq_u8_u32(vdupq_n_u32(all)), false};
}

TCK_INLINE piece piece_flip_signs(piece value) {
  return (piece){veorq_u8(value.bytes, vdupq_n_u8(0x80)), false};
}

TCK_INLINE tally tally_zero(void) { return vdupq_n_s32(0); }

#if TCK_DOT_PRODUCTS

TCK_INLINE tally add_signed(tally sums, uint8x16_t a, uint8x16_t b) {
  return vdotq_s32(sums, vreinterpretq_s8_u8(a), vreinterpretq_s8_u8(b));
}

TCK_INLINE tally add_unsigned(tally sums, uint8x16_t a, uint8x16_t b) {
  return vreinterpretq_s32_u32(vdotq_u32(vreinterpretq_u32_s32(sums), a, b));
}

TCK_INLINE tally tally_add_wide(tally sums, piece bytes, piece signed_bytes) {
  // A signed byte is its lower seven bits less what its sign stands for, and both are unsigned.
  uint8x16_t sign = vdupq_n_u8(0x80);
  tally subtracted = add_unsigned(tally_zero(), bytes.bytes, vandq_u8(signed_bytes.bytes, sign));
  sums = add_unsigned(sums, bytes.bytes, vbicq_u8(signed_bytes.bytes, sign));
  return vsubq_s32(sums, subtracted);
}

#else

// Two products of small codes, but not two of any bytes, keep within 16 bits.

TCK_INLINE tally add_signed(tally sums, uint8x16_t a, uint8x16_t b) {
  int8x16_t first = vreinterpretq_s8_u8(a), second = vreinterpretq_s8_u8(b);
  int16x8_t low = vmull_s8(vget_low_s8(first), vget_low_s8(second)), high = vmull_high_s8(first, second);
  return vpadalq_s16(sums, vpaddq_s16(low, high));
}

TCK_INLINE tally add_unsigned(tally sums, uint8x16_t a, uint8x16_t b) {
  uint16x8_t low = vmull_u8(vget_low_u8(a), vget_low_u8(b)), high = vmull_high_u8(a, b);
  return vreinterpretq_s32_u32(vpadalq_u16(vreinterpretq_u32_s32(sums), vpaddq_u16(low, high)));
}

TCK_INLINE tally tally_add_wide(tally sums, piece bytes, piece signed_bytes) {
  int8x16_t second = vreinterpretq_s8_u8(signed_bytes.bytes);
  int16x8_t low = vmulq_s16(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(bytes.bytes))), vmovl_s8(vget_low_s8(second)));
  int16x8_t high = vmulq_s16(vreinterpretq_s16_u16(vmovl_high_u8(bytes.bytes)), vmovl_high_s8(second));
  return vaddq_s32(sums, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
}

#endif

TCK_INLINE tally tally_add(tally sums, piece bytes, piece signed_bytes) {
  return bytes.is_small ? add_signed(sums, bytes.bytes, signed_bytes.bytes)
                        : add_unsigned(sums, bytes.bytes, signed_bytes.bytes);
}

TCK_INLINE tally tally_sum(tally a, tally b) { return vaddq_s32(a, b); }

TCK_INLINE void tally_store(float *sums, tally value) { vst1q_f32(sums, vcvtq_f32_s32(value)); }

TCK_INLINE void tally_store_split(float *sums, tally high, float factor, tally low) {
  vst1q_f32(sums, vfmaq_f32(vcvtq_f32_s32(low), vcvtq_f32_s32(high), vdupq_n_f32(factor)));
}

TCK_INLINE void tally_add_scaled(float *sums, tally value, float factor) {
  vst1q_f32(sums, vfmaq_f32(vld1q_f32(sums), vcvtq_f32_s32(value), vdupq_n_f32(factor)));
}

TCK_INLINE void tally_add_scaled_by(float *sums, tally value, const float *factors) {
  vst1q_f32(sums, vfmaq_f32(vld1q_f32(sums), vcvtq_f32_s32(value), vld1q_f32(factors)));
}

#define TCK_VALUE_SLICES 4
#define TCK_PRECISE_VALUE_SLICES 2

#include "vector_attention.h"

// MARK: - The set's functions

TCK_TARGET void TCK_ATTENTION(attend_blocks)(const tck_block_format *format, const void *blocks, size_t block_count,
                                             tck_queries *queries, const void *next, size_t next_byte_count) {
  attend_blocks(format, blocks, block_count, queries, next, next_byte_count);
}

TCK_TARGET void TCK_ATTENTION(attend_rows)(tck_rows keys, tck_rows values, size_t tokens, size_t key_dimension,
                                           size_t value_dimension, tck_queries *queries) {
  attend_rows(keys, values, tokens, key_dimension, value_dimension, queries);
}

TCK_TARGET void TCK_ATTENTION(join_scores)(float *scores, size_t tokens, size_t value_dimension, tck_queries *queries) {
  join_scores(scores, tokens, value_dimension, queries);
}

TCK_TARGET void TCK_ATTENTION(multiply_gates)(tck_activation activation, float *gates, const float *ups, size_t count) {
  multiply_gates(activation, gates, ups, count);
}

#endif

// NEON (AArch64): 16 values are four registers; a line of codes is one register for each of the four members of its
// dwords, since the processor takes turns among four registers as it loads and stores. Attention, which takes lines as
// they lie, is in neon_attention.c and, with the dot products of ARMv8.2, in neondotprod_attention.c.

#pragma STDC FP_CONTRACT OFF

#if defined(__aarch64__) && !defined(__AARCH64EB__)

#define TCK_TARGET

#include <arm_acle.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif

#include "instruction_sets.h"
#include "neon_lanes.h"

#define TCK_SUM_LANES 2
#define TCK_PRODUCT_SUMS 4
#define TCK_COLUMN_ROWS 1
#define TCK_GROUP_PIECES 1
#define TCK_GROUP_QUADS 1

// MARK: - Lines

typedef uint8x16x4_t line;

TCK_INLINE line line_zero(void) {
  line result;
  EACH(i) result.val[i] = vdupq_n_u8(0);
  return result;
}

TCK_INLINE line line_load(const void *bytes) { return vld4q_u8(bytes); }

TCK_INLINE void line_store(void *bytes, line value) { vst4q_u8(bytes, value); }

TCK_INLINE line line_or_shifted(line a, line b, unsigned shift) {
  int8x16_t count = vdupq_n_s8((int8_t)shift);
  EACH(i) a.val[i] = vorrq_u8(a.val[i], vshlq_u8(b.val[i], count));
  return a;
}

TCK_INLINE line line_unit(line value, unsigned shift, unsigned width) {
  int8x16_t count = vdupq_n_s8((int8_t)-(int)shift);
  uint8x16_t mask = vdupq_n_u8((uint8_t)((1u << width) - 1));
  EACH(i) value.val[i] = vandq_u8(vshlq_u8(value.val[i], count), mask);
  return value;
}

/// Narrowing saturates to 0...255, which is why values need no clamping before.
TCK_INLINE line line_quantize(tck_element_type type, const void *const values[4], const float *minima,
                              const float *inverses, unsigned width) {
  uint8x16_t highest = vdupq_n_u8((uint8_t)((1u << width) - 1));
  line result;
  EACH(i) {
    lanes steps = lanes_subtract(lanes_load(type, values[i]), lanes_splat(minima[i]));
    steps = lanes_multiply(steps, lanes_splat(inverses[i]));
    int16x4_t codes[4];
    EACH(j) codes[j] = vqmovn_s32(vcvtnq_s32_f32(steps.of[j]));
    uint8x8_t low = vqmovun_s16(vcombine_s16(codes[0], codes[1]));
    uint8x8_t high = vqmovun_s16(vcombine_s16(codes[2], codes[3]));
    result.val[i] = vminq_u8(vcombine_u8(low, high), highest);
  }
  return result;
}

TCK_INLINE lanes line_member(line unit, unsigned member) {
  uint16x8_t low = vmovl_u8(vget_low_u8(unit.val[member])), high = vmovl_high_u8(unit.val[member]);
  lanes result;
  result.of[0] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(low)));
  result.of[1] = vcvtq_f32_u32(vmovl_high_u16(low));
  result.of[2] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(high)));
  result.of[3] = vcvtq_f32_u32(vmovl_high_u16(high));
  return result;
}

// MARK: - Weights

TCK_INLINE lanes lanes_splat_halves(const float *two) {
  float32x4_t low = vdupq_n_f32(two[0]), high = vdupq_n_f32(two[1]);
  return (lanes){{low, low, high, high}};
}

TCK_INLINE lanes lanes_splat_fours(const float *four) {
  lanes result;
  EACH(i) result.of[i] = vdupq_n_f32(four[i]);
  return result;
}

TCK_INLINE float32x4_t splat_float16(const void *bytes) {
  uint16_t bits;
  memcpy(&bits, bytes, sizeof bits);
  return vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bits)));
}

TCK_INLINE lanes lanes_splat_float16(const void *first, const void *second) {
  float32x4_t low = splat_float16(first), high = splat_float16(second);
  return (lanes){{low, low, high, high}};
}

TCK_INLINE float32x4_t splat_pair(const void *bytes) {
  uint32_t bits;
  memcpy(&bits, bytes, sizeof bits);
  return vcvt_f32_f16(vreinterpret_f16_u32(vdup_n_u32(bits)));
}

TCK_INLINE lanes lanes_splat_pairs(const void *a, const void *b, const void *c, const void *d) {
  return (lanes){{splat_pair(a), splat_pair(b), splat_pair(c), splat_pair(d)}};
}

TCK_INLINE lanes lanes_evens(lanes value) {
  EACH(i) value.of[i] = vtrn1q_f32(value.of[i], value.of[i]);
  return value;
}

TCK_INLINE lanes lanes_of_bytes(uint64_t low, uint64_t high) {
  uint16x8_t first = vmovl_u8(vcreate_u8(low)), second = vmovl_u8(vcreate_u8(high));
  return (lanes){{vcvtq_f32_u32(vmovl_u16(vget_low_u16(first))), vcvtq_f32_u32(vmovl_high_u16(first)),
                  vcvtq_f32_u32(vmovl_u16(vget_low_u16(second))), vcvtq_f32_u32(vmovl_high_u16(second))}};
}

typedef struct codes {
  uint8x16_t of[4];
} codes;

TCK_INLINE codes codes_zero(void) {
  uint8x16_t zero = vdupq_n_u8(0);
  return (codes){{zero, zero, zero, zero}};
}

TCK_INLINE codes codes_load(const void *first, const void *second) {
  const uint8_t *low = first, *high = second;
  return (codes){{vld1q_u8(low), vld1q_u8(low + 16), vld1q_u8(high), vld1q_u8(high + 16)}};
}

TCK_INLINE codes codes_load_fours(const void *a, const void *b, const void *c, const void *d) {
  return (codes){{vld1q_u8(a), vld1q_u8(b), vld1q_u8(c), vld1q_u8(d)}};
}

TCK_INLINE void codes_store(void *bytes, codes value) { EACH(i) vst1q_u8((uint8_t *)bytes + 16 * i, value.of[i]); }

TCK_INLINE codes codes_or(codes a, codes b) {
  EACH(i) a.of[i] = vorrq_u8(a.of[i], b.of[i]);
  return a;
}

TCK_INLINE codes codes_of_nibbles(const void *first, const void *second) {
  uint8x16_t low = vld1q_u8(first), high = vld1q_u8(second), mask = vdupq_n_u8(15);
  return (codes){{vandq_u8(low, mask), vshrq_n_u8(low, 4), vandq_u8(high, mask), vshrq_n_u8(high, 4)}};
}

TCK_INLINE uint8x16_t bits_16(const uint8_t *bytes, uint8_t value) {
  const uint8x16_t each = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
  uint8x16_t repeated = vcombine_u8(vdup_n_u8(bytes[0]), vdup_n_u8(bytes[1]));
  return vandq_u8(vtstq_u8(repeated, each), vdupq_n_u8(value));
}

TCK_INLINE codes codes_of_bits(const void *first, const void *second, uint8_t value) {
  const uint8_t *low = first, *high = second;
  return (codes){{bits_16(low, value), bits_16(low + 2, value), bits_16(high, value), bits_16(high + 2, value)}};
}

TCK_INLINE codes codes_field(codes value, int first, int second, uint8_t mask) {
  EACH(i) {
    int8x16_t count = vdupq_n_s8((int8_t)-(i < 2 ? first : second));
    value.of[i] = vandq_u8(vshlq_u8(value.of[i], count), vdupq_n_u8(mask));
  }
  return value;
}

TCK_INLINE codes codes_flip_signs(codes value) {
  EACH(i) value.of[i] = veorq_u8(value.of[i], vdupq_n_u8(0x80));
  return value;
}

TCK_INLINE codes codes_lookup(codes value, const uint8_t table[16]) {
  uint8x16_t all = vld1q_u8(table);
  EACH(i) value.of[i] = vqtbl1q_u8(all, value.of[i]);
  return value;
}

TCK_INLINE lanes codes_member(codes value, unsigned member) {
  lanes result;
  EACH(i) {
    uint32x4_t four = vreinterpretq_u32_u8(value.of[i]);
    four = member == 3 ? vshrq_n_u32(four, 24) : vandq_u32(four, vdupq_n_u32(0xFFu << 8 * member));
    result.of[i] = vcvtq_f32_u32(four);
  }
  return result;
}

TCK_INLINE lanes codes_nibble(codes value, unsigned index) {
  lanes result;
  EACH(i) {
    uint32x4_t four = vreinterpretq_u32_u8(value.of[i]);
    four = index == 7 ? vshrq_n_u32(four, 28) : vandq_u32(four, vdupq_n_u32(0xFu << 4 * index));
    result.of[i] = vcvtq_f32_u32(four);
  }
  return result;
}

// MARK: - Columns

typedef uint8x16_t column;
typedef uint8x16_t kept;

TCK_INLINE column column_load(const void *bytes) { return vld1q_u8(bytes); }

TCK_INLINE void column_store(void *bytes, column value) { vst1q_u8(bytes, value); }

TCK_INLINE column column_load_rows(const void *row, size_t spacing) {
  (void)spacing;
  return column_load(row);
}

TCK_INLINE kept kept_elements(size_t size, unsigned mask) {
  static const uint16_t bits_16[8] = {1, 2, 4, 8, 16, 32, 64, 128};
  static const uint32_t bits_32[4] = {1, 2, 4, 8};
  if (size == 2) return vreinterpretq_u8_u16(vtstq_u16(vdupq_n_u16((uint16_t)mask), vld1q_u16(bits_16)));
  return vreinterpretq_u8_u32(vtstq_u32(vdupq_n_u32(mask), vld1q_u32(bits_32)));
}

TCK_INLINE void column_store_rows(size_t size, void *row, size_t spacing, column value, kept elements) {
  (void)size;
  (void)spacing;
  vst1q_u8(row, vbslq_u8(elements, value, vld1q_u8(row)));
}

TCK_INLINE column column_load_quads(const void *row, size_t spacing) {
  (void)spacing;
  return column_load(row);
}

#define ZIP(name, zip, type)                                                                                  \
  TCK_INLINE column name(column a, column b) {                                                                \
    return vreinterpretq_u8_##type(zip##_##type(vreinterpretq_##type##_u8(a), vreinterpretq_##type##_u8(b))); \
  }
ZIP(column_zip_low_16, vzip1q, u16)
ZIP(column_zip_high_16, vzip2q, u16)
ZIP(column_zip_low_32, vzip1q, u32)
ZIP(column_zip_high_32, vzip2q, u32)
ZIP(column_zip_low_64, vzip1q, u64)
ZIP(column_zip_high_64, vzip2q, u64)

#define BY_SIZE(name, operation, type_16, type_32)                                                            \
  ZIP(name##_16, operation, type_16)                                                                          \
  ZIP(name##_32, operation, type_32)                                                                          \
  TCK_INLINE column name(size_t size, column a, column b) { return size == 2 ? name##_16(a, b) : name##_32(a, b); }
BY_SIZE(column_least, vminq, s16, s32)
BY_SIZE(column_greatest, vmaxq, s16, s32)
BY_SIZE(column_least_unsigned, vminq, u16, u32)
BY_SIZE(column_greatest_unsigned, vmaxq, u16, u32)

TCK_INLINE column column_not(column value) { return vmvnq_u8(value); }

TCK_INLINE column column_keys(size_t size, column bits) {
  uint8x16_t inverted;
  if (size == 2) {
    int16x8_t signs = vshrq_n_s16(vreinterpretq_s16_u8(bits), 15);
    inverted = vreinterpretq_u8_u16(vshrq_n_u16(vreinterpretq_u16_s16(signs), 1));
  } else {
    int32x4_t signs = vshrq_n_s32(vreinterpretq_s32_u8(bits), 31);
    inverted = vreinterpretq_u8_u32(vshrq_n_u32(vreinterpretq_u32_s32(signs), 1));
  }
  return veorq_u8(bits, inverted);
}

TCK_INLINE column column_splat_16(int16_t value) { return vreinterpretq_u8_s16(vdupq_n_s16(value)); }
ZIP(column_add_16, vaddq, s16)
ZIP(column_subtract_16, vsubq, s16)

TCK_INLINE column column_magnitude_16(column value) {
  return vreinterpretq_u8_s16(vabsq_s16(vreinterpretq_s16_u8(value)));
}

TCK_INLINE column column_add_squares(column sums, column value) {
  int16x8_t numbers = vreinterpretq_s16_u8(value);
  int32x4_t low = vmull_s16(vget_low_s16(numbers), vget_low_s16(numbers)), high = vmull_high_s16(numbers, numbers);
  return vreinterpretq_u8_s32(vaddq_s32(vreinterpretq_s32_u8(sums), vpaddq_s32(low, high)));
}

TCK_INLINE column column_fold(size_t size, column value) {
  (void)size;
  return value;
}

#include "vector_kernels.h"

// MARK: - Checksum

#undef TCK_TARGET
#define TCK_TARGET __attribute__((target("+crc")))

TCK_INLINE uint32_t crc32c_byte(uint32_t crc, uint8_t byte) { return __crc32cb(crc, byte); }

TCK_INLINE uint64_t crc32c_word(uint64_t crc, uint64_t word) { return __crc32cd((uint32_t)crc, word); }

TCK_INLINE uint64_t crc32c_product(uint64_t crc, uint64_t factor) {
  // Not every processor has the carry-less product, and it is wanted but twice per 6 KiB.
  uint64_t product = 0;
  for (unsigned i = 0; i < 32; i++) product ^= (factor << i) & (0 - (crc >> i & 1));
  return crc32c_word(0, product);
}

#include "vector_crc32c.h"

static TCK_TARGET uint32_t crc32c_with_instructions(uint32_t crc, const void *bytes, size_t count) {
  return crc32c_streams(crc, bytes, count);
}

static uint32_t crc32c(uint32_t crc, const void *bytes, size_t count) {
#if defined(__ARM_FEATURE_CRC32)
  bool has_instructions = true;
#elif defined(__linux__)
  bool has_instructions = (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#else
  bool has_instructions = false;
#endif
  return (has_instructions ? crc32c_with_instructions : tck_scalar_kernels.crc32c)(crc, bytes, count);
}

// The rows from which on matrix products are faster are guesses: no such machine was at hand to measure them.
const tck_kernels tck_neon_kernels = VECTOR_TABLE("neon", crc32c, tck_neon_, tck_neon_, 32, 32, 32);

// Nothing but attention needs dot products.
const tck_kernels tck_neondotprod_kernels =
    VECTOR_TABLE("neondotprod", crc32c, tck_neondotprod_, tck_neon_, PTRDIFF_MAX, 128, 32);

#endif

// NEON's operations on 16 float32 values, which are four registers: for all kernels of vector_kernels.h and
// vector_attention.h.

#ifndef THINK_KERNELS_NEON_LANES_H
#define THINK_KERNELS_NEON_LANES_H

#include <arm_neon.h>
#include <string.h>

#include "quantizer.h"
#include "vector_support.h"

#define EACH(i) for (size_t i = 0; i < 4; i++)

typedef struct lanes {
  float32x4_t of[4];
} lanes;

typedef struct lanes_pair {
  lanes first, second;
} lanes_pair;

TCK_INLINE float32x4_t load_4(tck_element_type type, const void *bytes) {
  if (type == TCK_FLOAT32) return vreinterpretq_f32_u8(vld1q_u8(bytes));
  uint16x4_t bits = vreinterpret_u16_u8(vld1_u8(bytes));
  if (type == TCK_FLOAT16) return vcvt_f32_f16(vreinterpret_f16_u16(bits));
  return vreinterpretq_f32_u32(vshll_n_u16(bits, 16));
}

TCK_INLINE void store_4(tck_element_type type, void *bytes, float32x4_t value) {
  if (type == TCK_FLOAT32) {
    vst1q_u8(bytes, vreinterpretq_u8_f32(value));
  } else if (type == TCK_FLOAT16) {
    vst1_u8(bytes, vreinterpret_u8_f16(vcvt_f16_f32(value)));
  } else {
    // As tck_float_to_bfloat.
    uint32x4_t bits = vreinterpretq_u32_f32(value);
    uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7FFF)), odd);
    uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    vst1_u8(bytes, vreinterpret_u8_u16(vshrn_n_u32(vbslq_u32(vceqq_f32(value, value), rounded, quiet), 16)));
  }
}

TCK_INLINE lanes lanes_load(tck_element_type type, const void *bytes) {
  lanes result;
  EACH(i) result.of[i] = load_4(type, offset(bytes, i * 4 * tck_element_bytes(type)));
  return result;
}

TCK_INLINE void lanes_store(tck_element_type type, void *bytes, lanes value) {
  EACH(i) store_4(type, offset_mutable(bytes, i * 4 * tck_element_bytes(type)), value.of[i]);
}

TCK_INLINE lanes lanes_splat(float value) {
  lanes result;
  EACH(i) result.of[i] = vdupq_n_f32(value);
  return result;
}

TCK_INLINE lanes lanes_add(lanes a, lanes b) {
  EACH(i) a.of[i] = vaddq_f32(a.of[i], b.of[i]);
  return a;
}

TCK_INLINE lanes lanes_subtract(lanes a, lanes b) {
  EACH(i) a.of[i] = vsubq_f32(a.of[i], b.of[i]);
  return a;
}

TCK_INLINE lanes lanes_multiply(lanes a, lanes b) {
  EACH(i) a.of[i] = vmulq_f32(a.of[i], b.of[i]);
  return a;
}

TCK_INLINE lanes lanes_divide(lanes a, lanes b) {
  EACH(i) a.of[i] = vdivq_f32(a.of[i], b.of[i]);
  return a;
}

TCK_INLINE lanes lanes_cap(lanes value, float limit) {
  // A comparison and a choice: the processor's minimum would be NaN for NaN.
  float32x4_t limits = vdupq_n_f32(limit);
  EACH(i) value.of[i] = vbslq_f32(vcltq_f32(value.of[i], limits), value.of[i], limits);
  return value;
}

TCK_INLINE float32x4_t larger_4(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }

TCK_INLINE lanes lanes_larger(lanes a, lanes b) {
  EACH(i) a.of[i] = larger_4(a.of[i], b.of[i]);
  return a;
}

TCK_INLINE lanes lanes_magnitude(lanes value) {
  EACH(i) value.of[i] = vabsq_f32(value.of[i]);
  return value;
}

TCK_INLINE lanes lanes_where_positive(lanes condition, lanes value) {
  EACH(i) {
    uint32x4_t bits = vandq_u32(vcgtzq_f32(condition.of[i]), vreinterpretq_u32_f32(value.of[i]));
    value.of[i] = vreinterpretq_f32_u32(bits);
  }
  return value;
}

TCK_INLINE bool lanes_are_within(lanes value, float limit) {
  uint32x4_t all = vdupq_n_u32(0xFFFFFFFF);
  EACH(i) all = vandq_u32(all, vcaleq_f32(value.of[i], vdupq_n_f32(limit)));
  return vminvq_u32(all) != 0;
}

TCK_INLINE void lanes_add_to(double *totals, lanes value) {
  EACH(i) {
    double *at = totals + 4 * i;
    vst1q_f64(at, vaddq_f64(vld1q_f64(at), vcvt_f64_f32(vget_low_f32(value.of[i]))));
    vst1q_f64(at + 2, vaddq_f64(vld1q_f64(at + 2), vcvt_high_f64_f32(value.of[i])));
  }
}

TCK_INLINE lanes lanes_multiply_add(lanes a, lanes b, lanes c) {
  EACH(i) c.of[i] = vfmaq_f32(c.of[i], a.of[i], b.of[i]);
  return c;
}

TCK_INLINE lanes_pair lanes_load_pair(tck_element_type type, const void *bytes) {
  lanes_pair result;
  if (type != TCK_BFLOAT16) {
    result.first = lanes_load(type, bytes);
    result.second = lanes_load(type, offset(bytes, LANES * tck_element_bytes(type)));
    return result;
  }
  EACH(i) {
    uint32x4_t bits = vreinterpretq_u32_u8(vld1q_u8((const uint8_t *)bytes + 16 * i));
    result.first.of[i] = vreinterpretq_f32_u32(vshlq_n_u32(bits, 16));
    result.second.of[i] = vreinterpretq_f32_u32(vandq_u32(bits, vdupq_n_u32(0xFFFF0000)));
  }
  return result;
}

TCK_INLINE lanes lanes_load_some(tck_element_type type, const void *bytes, size_t count) {
  uint32_t some[LANES] = {0};  // Room for any type.
  memcpy(some, bytes, count * tck_element_bytes(type));
  return lanes_load(type, some);
}

TCK_INLINE lanes lanes_transpose_add(const lanes value[4]) {
  lanes result;
  EACH(i) {
    result.of[i] = vpaddq_f32(vpaddq_f32(value[0].of[i], value[1].of[i]), vpaddq_f32(value[2].of[i], value[3].of[i]));
  }
  return result;
}

TCK_INLINE float32x4_t add_fours(lanes value) {
  return vaddq_f32(vaddq_f32(value.of[0], value.of[1]), vaddq_f32(value.of[2], value.of[3]));
}

TCK_INLINE void lanes_store_fours(float *four, lanes value) { vst1q_f32(four, add_fours(value)); }

/// Each lane, its sign changed where bits are set, added to the one that it faces.
TCK_INLINE float32x4_t add_neighbours_4(float32x4_t value, size_t distance) {
  static const uint32_t upper_of_one[4] = {0, 0x80000000, 0, 0x80000000};
  static const uint32_t upper_of_two[4] = {0, 0, 0x80000000, 0x80000000};
  float32x4_t facing = distance == 1 ? vrev64q_f32(value) : vextq_f32(value, value, 2);
  uint32x4_t signs = vld1q_u32(distance == 1 ? upper_of_one : upper_of_two);
  return vaddq_f32(facing, vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(value), signs)));
}

TCK_INLINE lanes lanes_add_neighbours(lanes value, size_t distance) {
  const size_t apart = distance / 4;
  lanes result;
  EACH(i) {
    if (apart == 0) {
      result.of[i] = add_neighbours_4(value.of[i], distance);
    } else if ((i & apart) == 0) {
      result.of[i] = vaddq_f32(value.of[i], value.of[i + apart]);
    } else {
      result.of[i] = vsubq_f32(value.of[i - apart], value.of[i]);
    }
  }
  return result;
}

TCK_INLINE void lanes_store_integers(int16_t *integers, lanes value) {
  EACH(i) vst1_s16(integers + 4 * i, vqmovn_s32(vcvtnq_s32_f32(value.of[i])));
}

// MARK: - 16 bytes

typedef uint8x16_t octets;

TCK_INLINE octets octets_zero(void) { return vdupq_n_u8(0); }

TCK_INLINE octets octets_load(const void *bytes, size_t count) {
  if (count >= LANES) return vld1q_u8(bytes);
  if (count == 8) return vcombine_u8(vld1_u8(bytes), vdup_n_u8(0));
  uint8_t some[LANES] = {0};
  memcpy(some, bytes, count);
  return vld1q_u8(some);
}

TCK_INLINE octets octets_larger(octets a, octets b) { return vmaxq_u8(a, b); }

TCK_INLINE float32x4_t compact_scales_4(uint8x16x2_t powers, uint32x4_t eighths) {
  // Each index of a float in the table, times four, as the indices of its bytes.
  uint32x4_t places = vmulq_n_u32(vandq_u32(eighths, vdupq_n_u32(7)), 0x04040404);
  uint8x16_t indices = vreinterpretq_u8_u32(vaddq_u32(places, vdupq_n_u32(0x03020100)));
  uint32x4_t power = vreinterpretq_u32_u8(vqtbl2q_u8(powers, indices));
  power = vaddq_u32(power, vshlq_n_u32(vshrq_n_u32(eighths, 3), 23));
  return vreinterpretq_f32_u32(vandq_u32(power, vtstq_u32(eighths, eighths)));
}

TCK_INLINE lanes octets_compact_scales(octets value) {
  const uint8_t *table = (const uint8_t *)tck_compact_powers;
  const uint8x16x2_t powers = {{vld1q_u8(table), vld1q_u8(table + 16)}};
  uint16x8_t low = vmovl_u8(vget_low_u8(value)), high = vmovl_high_u8(value);
  return (lanes){{compact_scales_4(powers, vmovl_u16(vget_low_u16(low))),
                  compact_scales_4(powers, vmovl_high_u16(low)),
                  compact_scales_4(powers, vmovl_u16(vget_low_u16(high))),
                  compact_scales_4(powers, vmovl_high_u16(high))}};
}

TCK_INLINE lanes octets_signed(octets value) {
  int8x16_t numbers = vreinterpretq_s8_u8(value);
  int16x8_t low = vmovl_s8(vget_low_s8(numbers)), high = vmovl_high_s8(numbers);
  return (lanes){{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
                  vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))}};
}

#endif

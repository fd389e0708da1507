// NEON's operations on 16 float32 values, which are four registers: for all kernels of vector_kernels.h and
// vector_attention.h.

#ifndef THINK_KERNELS_NEON_LANES_H
#define THINK_KERNELS_NEON_LANES_H

#include <arm_neon.h>
#include <string.h>

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

#endif

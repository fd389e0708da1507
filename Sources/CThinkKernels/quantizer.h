// Scalar pieces that every instruction set shares: conversions and the arithmetic of one group.

#ifndef THINK_KERNELS_QUANTIZER_H
#define THINK_KERNELS_QUANTIZER_H

#include <math.h>
#include <string.h>

#include "think_kernels.h"

static inline float tck_bits_to_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline uint32_t tck_float_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float tck_half_to_float(uint16_t half) {
  uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
  uint32_t magnitude = half & 0x7FFFu;
  if (magnitude >= 0x7C00u) {  // Infinity, or NaN made quiet as the processors' own conversions do.
    uint32_t quiet = magnitude > 0x7C00u ? 0x00400000u : 0;
    return tck_bits_to_float(sign | 0x7F800000u | quiet | (magnitude & 0x3FFu) << 13);
  }
  // Placing the half's bits 13 higher divides by 2^112, exactly, subnormals included.
  return tck_bits_to_float(sign | tck_float_to_bits(tck_bits_to_float(magnitude << 13) * 0x1p112f));
}

static inline uint16_t tck_float_to_half(float value) {
  uint32_t bits = tck_float_to_bits(value);
  uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
  uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | (magnitude >> 13 & 0x1FFu));
  if (magnitude >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u);  // 65520 and above round to infinity.
  if (magnitude < 0x38800000u) {
    // Below 2^-14 the half is subnormal: adding 0.5 leaves its bits, rounded to nearest even, at the bottom.
    uint32_t shifted = tck_float_to_bits(tck_bits_to_float(magnitude) + 0.5f);
    return (uint16_t)(sign | (shifted - 0x3F000000u));
  }
  magnitude += 0xC8000FFFu + (magnitude >> 13 & 1u);  // Rebias the exponent and round to nearest even.
  return (uint16_t)(sign | magnitude >> 13);
}

static inline float tck_bfloat_to_float(uint16_t value) { return tck_bits_to_float((uint32_t)value << 16); }

static inline uint16_t tck_float_to_bfloat(float value) {
  uint32_t bits = tck_float_to_bits(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(bits >> 16 | 0x40u);
  return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

static inline float tck_load(tck_element_type type, const void *bytes, size_t index) {
  uint16_t half;
  float value;
  switch (type) {
    case TCK_FLOAT16:
      memcpy(&half, (const char *)bytes + index * sizeof half, sizeof half);
      return tck_half_to_float(half);
    case TCK_BFLOAT16:
      memcpy(&half, (const char *)bytes + index * sizeof half, sizeof half);
      return tck_bfloat_to_float(half);
    default:
      memcpy(&value, (const char *)bytes + index * sizeof value, sizeof value);
      return value;
  }
}

static inline void tck_store(tck_element_type type, void *bytes, size_t index, float value) {
  uint16_t half;
  switch (type) {
    case TCK_FLOAT16:
      half = tck_float_to_half(value);
      memcpy((char *)bytes + index * sizeof half, &half, sizeof half);
      break;
    case TCK_BFLOAT16:
      half = tck_float_to_bfloat(value);
      memcpy((char *)bytes + index * sizeof half, &half, sizeof half);
      break;
    default:
      memcpy((char *)bytes + index * sizeof value, &value, sizeof value);
  }
}

/// The number `index` among stored scales or minima.
static inline float tck_stored_number(tck_coding coding, const void *numbers, size_t index) {
  switch (coding.scales) {
    case TCK_FLOAT16_SCALES:
      return tck_load(TCK_FLOAT16, numbers, index);
    default:
      return 0;
  }
}

static inline float tck_dequantize(uint8_t code, float scale, float minimum) {
  float value = (float)code * scale + minimum;
  return value < TCK_MAX_QUANTIZED_MAGNITUDE ? value : TCK_MAX_QUANTIZED_MAGNITUDE;
}

#endif

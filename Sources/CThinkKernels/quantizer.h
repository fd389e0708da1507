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

static inline bool tck_is_quantizable(float value) { return fabsf(value) <= TCK_MAX_QUANTIZED_MAGNITUDE; }

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

/// A number of a magnitude below 2^22 rounded to a whole one, ties to even; others change by less than a millionth.
/// Compilers make vectors of it: there is no call in it.
static inline float tck_rounded(float value) { return (value + 0x1.8p23f) - 0x1.8p23f; }

// MARK: - Rotation

/// Numbers of a block that is rotated: the largest power of two that divides a row's.
static inline size_t tck_rotated_length(size_t dimension) { return dimension & (0 - dimension); }

/// What they are multiplied by.
static inline float tck_rotation_factor(size_t length) { return (float)(1 / sqrt((double)length)); }

// MARK: - Compact scales

/// 2^(i / 8 - 16): the fractions of powers, times the least power.
static const float tck_compact_powers[8] = {
    0x1p-16f,        0x1.172b84p-16f, 0x1.306fep-16f,  0x1.4bfdaep-16f,
    0x1.6a09e6p-16f, 0x1.8ace54p-16f, 0x1.ae89fap-16f, 0x1.d5818ep-16f,
};

/// 2^((i + 0.5) / 8): where a number is nearer to the next power, by its logarithm.
static const float tck_compact_bounds[8] = {
    0x1.0b5586p0f, 0x1.2387a6p0f, 0x1.3dea64p0f, 0x1.5ab07ep0f,
    0x1.7a1148p0f, 0x1.9c4918p0f, 0x1.c199bep0f, 0x1.ea4afap0f,
};

/// Middles are stored in sixteenths of a scale, up to so many.
#define TCK_COMPACT_MOST_SIXTEENTHS 127

/// The middle of the codes of a width.
static inline float tck_code_centre(unsigned width) { return (float)((1u << width) - 1) * 0.5f; }

/// The stored scale that is nearest to a number which is not negative.
static inline uint8_t tck_compact_scale_byte(float scale) {
  uint32_t bits = tck_float_to_bits(scale);
  float mantissa = tck_bits_to_float((bits & 0x007FFFFFu) | 0x3F800000u);
  int eighths = ((int)(bits >> 23) - 127 + 16) * 8;
  for (size_t i = 0; i < 8; i++) eighths += mantissa >= tck_compact_bounds[i];
  return (uint8_t)(eighths < 0 ? 0 : eighths > 255 ? 255 : eighths);
}

static inline float tck_compact_scale(uint8_t byte) {
  uint32_t power = tck_float_to_bits(tck_compact_powers[byte % 8]) + ((uint32_t)(byte / 8) << 23);
  return byte == 0 ? 0 : tck_bits_to_float(power);
}

static inline float tck_compact_minimum(unsigned width, float scale, int8_t sixteenths) {
  return ((float)sixteenths / 16 - tck_code_centre(width)) * scale;
}

// MARK: - Groups

/// What a group's codes are restored with.
typedef struct tck_quantizer {
  float scale, minimum;
} tck_quantizer;

/// That of group `index`.
static inline tck_quantizer tck_stored_quantizer(tck_coding coding, const void *scales, const void *minima,
                                                 size_t index) {
  float scale;
  switch (coding.scales) {
    case TCK_FLOAT16_SCALES:
      return (tck_quantizer){tck_load(TCK_FLOAT16, scales, index), tck_load(TCK_FLOAT16, minima, index)};
    case TCK_COMPACT_SCALES:
      scale = tck_compact_scale(((const uint8_t *)scales)[index]);
      return (tck_quantizer){scale, tck_compact_minimum(coding.width, scale, ((const int8_t *)minima)[index])};
    default:
      return (tck_quantizer){0, 0};
  }
}

static inline float tck_dequantize(uint8_t code, tck_quantizer group) {
  float value = (float)code * group.scale + group.minimum;
  return value < TCK_MAX_QUANTIZED_MAGNITUDE ? value : TCK_MAX_QUANTIZED_MAGNITUDE;
}

#endif

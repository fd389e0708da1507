// Ranges of least squared error. Written once for all instruction sets, as loops over fixed numbers of lanes, of which
// compilers make vectors; nothing is fused or reordered, so that every set gives the same bits.

#ifndef THINK_KERNELS_RANGE_FITTING_H
#define THINK_KERNELS_RANGE_FITTING_H

#include "instruction_sets.h"
#include "quantizer.h"

#ifndef TCK_TARGET
#define TCK_TARGET
#endif

#define TCK_FIT TCK_TARGET static inline __attribute__((always_inline))

/// Sums that squared errors are added to in turn.
#define FIT_LANES 16
/// Ranges that are tried at the most.
#define MOST_RANGES 8

/// What half of the range from the least to the greatest number is multiplied by, after that range itself:
/// Formats/kivi.md, "Fitted ranges".
static const float range_factors_2[] = {0.9f, 0.8f, 0.7f, 0.6f}, range_factors_4[] = {0.96f, 0.92f, 0.88f, 0.84f};

/// Some ranges of a group, as they will be stored.
typedef struct fitted_ranges {
  size_t count;
  float minima[MOST_RANGES], maxima[MOST_RANGES];
  float stored_minima[MOST_RANGES], scales[MOST_RANGES], inverses[MOST_RANGES];
} fitted_ranges;

/// A float32 of a magnitude of at most 65504 as float16 has it, without a branch.
TCK_FIT float rounded_to_half(float value) {
  uint32_t bits = tck_float_to_bits(value), sign = bits & 0x80000000u, magnitude = bits & 0x7FFFFFFFu;
  uint32_t normal = (magnitude + 0xFFFu + (magnitude >> 13 & 1u)) & 0xFFFFE000u;
  // Below 2^-14 the last bit stands for 2^-24, as that of 0.5 does.
  uint32_t subnormal = tck_float_to_bits((tck_bits_to_float(magnitude) + 0.5f) - 0.5f);
  return tck_bits_to_float(sign | (magnitude < 0x38800000u ? subnormal : normal));
}

TCK_FIT void make_ranges(fitted_ranges *ranges, unsigned width, float minimum, float maximum) {
  const float *factors = width == 2 ? range_factors_2 : range_factors_4;
  const float middle = (minimum + maximum) / 2, half = (maximum - minimum) / 2, steps = (float)((1u << width) - 1);
  ranges->count = 1 + sizeof range_factors_2 / sizeof *range_factors_2;
  for (size_t i = 0; i < MOST_RANGES; i++) {
    float reach = (i > 0 && i < ranges->count ? factors[i - 1] : 0) * half;
    ranges->minima[i] = middle - reach;
    ranges->maxima[i] = middle + reach;
  }
  ranges->minima[0] = minimum;
  ranges->maxima[0] = maximum;
  for (size_t i = 0; i < MOST_RANGES; i++) {
    ranges->stored_minima[i] = rounded_to_half(ranges->minima[i]);
    float scale = rounded_to_half((ranges->maxima[i] - ranges->minima[i]) / steps);
    ranges->scales[i] = scale;
    float inverse = 1.0f / scale;
    ranges->inverses[i] = scale > 0 ? inverse : 0;
  }
}

TCK_FIT float squared_error(float value, float minimum, float scale, float inverse, float highest) {
  const float rounding = 0x1.8p23f;  // Added and taken away, it rounds small numbers to whole ones, ties to even.
  float code = (value - minimum) * inverse;
  code = code > 0 ? code : 0;
  code = code < highest ? code : highest;
  code = (code + rounding) - rounding;
  float restored = code * scale;
  restored = restored + minimum;
  float error = value - restored;
  return error * error;
}

/// The squared errors of a group's numbers with one of the ranges.
TCK_FIT float range_error(const fitted_ranges *ranges, size_t range, const float *numbers, size_t count,
                          float highest) {
  const float minimum = ranges->stored_minima[range], scale = ranges->scales[range];
  const float inverse = ranges->inverses[range];
  float sums[FIT_LANES] = {0};
  size_t start = 0;
  for (; start + FIT_LANES <= count; start += FIT_LANES) {
    for (size_t i = 0; i < FIT_LANES; i++) {
      sums[i] += squared_error(numbers[start + i], minimum, scale, inverse, highest);
    }
  }
  for (size_t i = 0; start + i < count; i++) {
    sums[i] += squared_error(numbers[start + i], minimum, scale, inverse, highest);
  }
  for (size_t i = 0; i < 8; i++) sums[i] += sums[i + 8];
  for (size_t i = 0; i < 4; i++) sums[i] += sums[i + 4];
  for (size_t i = 0; i < 2; i++) sums[i] += sums[i + 2];
  return sums[0] + sums[1];
}

TCK_TARGET static void fit_ranges(tck_coding coding, const float *numbers, size_t count, size_t groups, float *minima,
                                  float *maxima) {
  if (coding.width > 4) return;  // Its ranges are not narrowed.
  const float highest = (float)((1u << coding.width) - 1);
  for (size_t group = 0; group < groups; group++, numbers += count) {
    fitted_ranges ranges;
    make_ranges(&ranges, coding.width, minima[group], maxima[group]);
    float errors[MOST_RANGES];
    for (size_t i = 0; i < ranges.count; i++) errors[i] = range_error(&ranges, i, numbers, count, highest);
    size_t best = 0;
    for (size_t i = 1; i < ranges.count; i++) best = errors[i] < errors[best] ? i : best;
    minima[group] = ranges.minima[best];
    maxima[group] = ranges.maxima[best];
  }
}

#endif

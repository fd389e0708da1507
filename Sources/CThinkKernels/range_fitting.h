// Ranges of least squared error. Written once for all instruction sets: sixteen sums side by side, of which compilers
// make vectors; nothing is fused or reordered, so that every set gives the same bits.

#ifndef THINK_KERNELS_RANGE_FITTING_H
#define THINK_KERNELS_RANGE_FITTING_H

#include "instruction_sets.h"
#include "quantizer.h"

#ifndef TCK_TARGET
#define TCK_TARGET
#endif

/// Sums that squared errors are added to in turn.
#define FIT_LANES 16

/// What half of the range from the least to the greatest number is multiplied by, besides 1: Formats/kivi.md, "Fitted
/// ranges".
static size_t range_factors(unsigned width, float factors[4]) {
  const float of_2[] = {0.9f, 0.8f, 0.7f, 0.6f}, of_4[] = {0.96f, 0.92f, 0.88f, 0.84f};
  if (width > 4) return 0;
  memcpy(factors, width == 2 ? of_2 : of_4, sizeof of_2);
  return 4;
}

TCK_TARGET static inline float squared_error(float value, float minimum, float scale, float inverse, float highest) {
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

/// The squared errors of a group's numbers with a range, as it will be stored.
TCK_TARGET static inline float range_error(tck_coding coding, const float *numbers, size_t count, float minimum,
                                           float maximum) {
  const float highest = (float)((1u << coding.width) - 1);
  float scale = (maximum - minimum) / highest, inverse;
  // As encode_scales stores them.
  scale = tck_half_to_float(tck_float_to_half(scale));
  minimum = tck_half_to_float(tck_float_to_half(minimum));
  inverse = scale > 0 ? 1.0f / scale : 0;
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
  for (size_t half = FIT_LANES / 2; half > 0; half /= 2) {
    for (size_t i = 0; i < half; i++) sums[i] += sums[i + half];
  }
  return sums[0];
}

TCK_TARGET static void fit_ranges(tck_coding coding, const float *numbers, size_t count, size_t groups, float *minima,
                                  float *maxima) {
  float factors[4];
  size_t factor_count = range_factors(coding.width, factors);
  if (factor_count == 0) return;
  for (size_t group = 0; group < groups; group++, numbers += count) {
    float middle = (minima[group] + maxima[group]) / 2, half = (maxima[group] - minima[group]) / 2;
    float least = range_error(coding, numbers, count, minima[group], maxima[group]);
    for (size_t i = 0; i < factor_count; i++) {
      float reach = factors[i] * half, minimum = middle - reach, maximum = middle + reach;
      float error = range_error(coding, numbers, count, minimum, maximum);
      if (error >= least) continue;
      least = error;
      minima[group] = minimum;
      maxima[group] = maximum;
    }
  }
}

#endif

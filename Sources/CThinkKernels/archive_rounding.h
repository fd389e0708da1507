// Rounding to the codes of archives, for the kernels and for what remains of their vectors.

#ifndef THINK_KERNELS_ARCHIVE_ROUNDING_H
#define THINK_KERNELS_ARCHIVE_ROUNDING_H

#include <math.h>

#include "think_kernels.h"

/// Magnitudes below this round to 32767 at the most; the limit itself is a tie, which goes to 32768.
#define TCK_CODE_LIMIT 32767.5f

/// False for NaN.
static inline bool tck_rounds_to_code(float value) { return fabsf(value) < TCK_CODE_LIMIT; }

static inline int16_t tck_round_to_code(float value) {
  // Adding 1.5 * 2^23 leaves no bits for a fraction: the sum is rounded to nearest, ties to even.
  const float shift = 0x1.8p23f;
  return (int16_t)((value + shift) - shift);
}

#endif

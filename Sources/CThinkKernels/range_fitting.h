// Ranges of least squared error: what all instruction sets share. Terms are those of Formats/kivi.md, "Fitted ranges".

#ifndef THINK_KERNELS_RANGE_FITTING_H
#define THINK_KERNELS_RANGE_FITTING_H

#include "quantizer.h"

/// Numbers of a group at the most.
#define MOST_FITTED_NUMBERS TCK_MAX_BLOCK_TOKENS
/// Ranges that are tried at the most.
#define MOST_CANDIDATES 5
/// The widest codes whose ranges are fitted.
#define WIDEST_FITTED 5
/// Half a group's range in units: numbers, and what codes stand for, are compared as integers of 16 bits.
#define UNITS_OF_HALF 2047.0f

/// What half of the range is multiplied by; there are none for codes whose ranges are left alone.
typedef struct candidates {
  size_t count;
  float factors[MOST_CANDIDATES];
} candidates;

static inline candidates candidates_of(unsigned width) {
  static const candidates of_widths[WIDEST_FITTED + 1] = {
      [1] = {4, {0.56f, 0.48f, 0.4f, 0.33f}},
      [2] = {5, {1, 0.9f, 0.8f, 0.7f, 0.6f}},
      [3] = {5, {1, 0.94f, 0.88f, 0.82f, 0.76f}},
      [4] = {5, {1, 0.96f, 0.92f, 0.88f, 0.84f}},
      [5] = {3, {1, 0.97f, 0.94f}},
  };
  return of_widths[width <= WIDEST_FITTED ? width : 0];
}

/// What the codes of a candidate stand for, in units from the middle of the group's range.
typedef struct fitted_codes {
  /// Integers, unless the candidate is passed over.
  float centre, half_step;
  bool is_passed_over;
} fitted_codes;

/// From the two in units that are not yet rounded.
static inline fitted_codes round_codes(float centre, float half_step, unsigned width) {
  centre = tck_rounded(centre);
  half_step = tck_rounded(half_step);
  // Less than this, and 16 bits are enough for all that follows; NaN is not.
  bool fits = fabsf(centre) <= 1023 && half_step * (float)(1u << width) <= 4095;
  return (fitted_codes){fits ? centre : 0, fits ? half_step : 0, !fits};
}

#endif

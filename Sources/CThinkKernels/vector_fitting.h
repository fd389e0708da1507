// Ranges of least squared error, of 16 groups at once. Part of vector_kernels.h.

#ifndef THINK_KERNELS_VECTOR_FITTING_H
#define THINK_KERNELS_VECTOR_FITTING_H

#include "instruction_sets.h"
#include "range_fitting.h"
#include "vector_columns.h"
#include "vector_groups.h"

/// Two numbers of each of the 16 groups, side by side.
#define PAIRS (2 * LANES)
/// Groups whose pairs are a column.
#define COLUMN_GROUPS (4 * TCK_COLUMN_ROWS)

/// Ranges of 16 groups.
typedef struct range_lanes {
  lanes minimum, maximum;
} range_lanes;

/// A group's numbers in units from the middle of its range, by pairs of numbers.
TCK_INLINE void pairs_in_units(tck_element_type type, const void *const groups[LANES], size_t count, lanes middle,
                               lanes unit, int16_t pairs[][PAIRS]) {
  int16_t numbers[LANES][MOST_FITTED_NUMBERS];
  float middles[LANES], units[LANES];
  lanes_store(TCK_FLOAT32, middles, middle);
  lanes_store(TCK_FLOAT32, units, unit);
  for (size_t group = 0; group < LANES; group++) {
    for (size_t i = 0; i < count; i += LANES) {
      lanes number = lanes_load(type, offset(groups[group], i * tck_element_bytes(type)));
      number = lanes_multiply(lanes_subtract(number, lanes_splat(middles[group])), lanes_splat(units[group]));
      lanes_store_integers(numbers[group] + i, number);
    }
  }
  const column most = column_splat_16((int16_t)UNITS_OF_HALF), least = column_splat_16(-(int16_t)UNITS_OF_HALF);
  for (size_t group = 0; group < LANES; group += COLUMN_GROUPS) {
    for (size_t i = 0; i < count; i += 8) {
      column columns[4];
      for (size_t j = 0; j < 4; j++) {
        columns[j] = column_load_rows(numbers[group + j] + i, 4 * sizeof *numbers);
        columns[j] = column_greatest(2, column_least(2, columns[j], most), least);
      }
      transpose_32(columns);
      for (size_t j = 0; j < 4; j++) column_store(pairs[i / 2 + j] + 2 * group, columns[j]);
    }
  }
}

#define DEFINE_PAIRS_IN_UNITS(name, type)                                                                              \
  TCK_LEAF void pairs_in_units_##name(const void *const groups[LANES], size_t count, lanes middle, lanes unit,         \
                                      int16_t pairs[][PAIRS]) {                                                        \
    pairs_in_units(type, groups, count, middle, unit, pairs);                                                          \
  }
DEFINE_PAIRS_IN_UNITS(float16, TCK_FLOAT16)
DEFINE_PAIRS_IN_UNITS(bfloat16, TCK_BFLOAT16)
DEFINE_PAIRS_IN_UNITS(float32, TCK_FLOAT32)

/// What the codes of 16 groups stand for, each number twice, as the groups' pairs lie.
typedef struct code_pairs {
  int16_t centres[PAIRS], half_steps[PAIRS];
} code_pairs;

/// Sums of the squares of what numbers are away from the nearest codes.
TCK_INLINE void sum_errors(const int16_t pairs[][PAIRS], size_t count, unsigned width, const code_pairs *codes,
                           int32_t errors[LANES]) {
  for (size_t group = 0; group < LANES; group += COLUMN_GROUPS) {
    column centre = column_load(codes->centres + 2 * group), sums = column_splat_16(0), distances[WIDEST_FITTED];
    distances[0] = column_load(codes->half_steps + 2 * group);
    for (size_t i = 1; i < width; i++) distances[i] = column_add_16(distances[i - 1], distances[i - 1]);
    for (size_t i = 0; i < count / 2; i++) {
      // Away from the centre, then from the middle of the codes on that side of it, and so on.
      column error = column_subtract_16(column_load(pairs[i] + 2 * group), centre);
      for (size_t bit = width; bit > 0; bit--) {
        error = column_subtract_16(column_magnitude_16(error), distances[bit - 1]);
      }
      sums = column_add_squares(sums, error);
    }
    column_store(errors + group, sums);
  }
}

#define DEFINE_SUM_ERRORS(width)                                                                                       \
  TCK_LEAF void sum_errors_##width(const int16_t pairs[][PAIRS], size_t count, const code_pairs *candidates,           \
                                   size_t candidate_count, int32_t errors[][LANES]) {                                  \
    for (size_t i = 0; i < candidate_count; i++) sum_errors(pairs, count, width, candidates + i, errors[i]);           \
  }
DEFINE_SUM_ERRORS(1)
DEFINE_SUM_ERRORS(2)
DEFINE_SUM_ERRORS(3)
DEFINE_SUM_ERRORS(4)
DEFINE_SUM_ERRORS(5)

/// The range that a factor other than 1 stands for.
TCK_INLINE range_lanes narrowed_by(lanes factor, lanes middle, lanes half) {
  lanes reach = lanes_multiply(factor, half);
  return (range_lanes){lanes_subtract(middle, reach), lanes_add(middle, reach)};
}

/// What the codes of a candidate stand for in 16 groups; `penalties` are more than any error where it is passed over.
TCK_INLINE void candidate_codes(tck_coding coding, range_lanes candidate, lanes middle, lanes unit, code_pairs *codes,
                                int32_t penalties[LANES]) {
  uint16_t scales[LANES], minima[LANES];  // Room for any kind.
  group_lanes stored = encode_groups(coding, candidate.minimum, candidate.maximum, scales, minima, 0);
  lanes centre = lanes_multiply(stored.scale, lanes_splat(tck_code_centre(coding.width)));
  centre = lanes_subtract(lanes_add(stored.minimum, centre), middle);
  float centres[LANES], half_steps[LANES];
  lanes_store(TCK_FLOAT32, centres, lanes_multiply(centre, unit));
  lanes_store(TCK_FLOAT32, half_steps, lanes_multiply(lanes_multiply(stored.scale, unit), lanes_splat(0.5f)));
  for (size_t i = 0; i < LANES; i++) {
    fitted_codes rounded = round_codes(centres[i], half_steps[i], coding.width);
    codes->centres[2 * i] = codes->centres[2 * i + 1] = (int16_t)rounded.centre;
    codes->half_steps[2 * i] = codes->half_steps[2 * i + 1] = (int16_t)rounded.half_step;
    penalties[i] = rounded.is_passed_over ? INT32_MAX : 0;
  }
}

/// Replaces the ranges of 16 groups by the best of their candidates.
///
/// Step by step for all candidates, so that the processor need not wait for one to go on with the next.
TCK_INLINE void fit_sixteen(tck_coding coding, tck_element_type type, const void *const groups[LANES], size_t count,
                            float minima[LANES], float maxima[LANES]) {
  const candidates tried = candidates_of(coding.width);
  const range_lanes range = {lanes_load(TCK_FLOAT32, minima), lanes_load(TCK_FLOAT32, maxima)};
  lanes middle = lanes_multiply(lanes_add(range.minimum, range.maximum), lanes_splat(0.5f));
  lanes half = lanes_multiply(lanes_subtract(range.maximum, range.minimum), lanes_splat(0.5f));
  lanes unit = lanes_divide(lanes_splat(UNITS_OF_HALF), half);
  int16_t pairs[MOST_FITTED_NUMBERS / 2][PAIRS];
  if (type == TCK_FLOAT16) pairs_in_units_float16(groups, count, middle, unit, pairs);
  if (type == TCK_BFLOAT16) pairs_in_units_bfloat16(groups, count, middle, unit, pairs);
  if (type == TCK_FLOAT32) pairs_in_units_float32(groups, count, middle, unit, pairs);
  code_pairs codes[MOST_CANDIDATES];
  int32_t penalties[MOST_CANDIDATES][LANES], errors[MOST_CANDIDATES][LANES], least[LANES];
  for (size_t i = 0; i < tried.count; i++) {
    const float factor = tried.factors[i];
    range_lanes candidate = factor == 1 ? range : narrowed_by(lanes_splat(factor), middle, half);
    candidate_codes(coding, candidate, middle, unit, &codes[i], penalties[i]);
  }
  if (coding.width == 1) sum_errors_1(pairs, count, codes, tried.count, errors);
  if (coding.width == 2) sum_errors_2(pairs, count, codes, tried.count, errors);
  if (coding.width == 3) sum_errors_3(pairs, count, codes, tried.count, errors);
  if (coding.width == 4) sum_errors_4(pairs, count, codes, tried.count, errors);
  if (coding.width == 5) sum_errors_5(pairs, count, codes, tried.count, errors);
  float best[LANES];
  for (size_t i = 0; i < LANES; i++) {
    best[i] = tried.factors[0];
    least[i] = INT32_MAX;
  }
  for (size_t candidate = 0; candidate < tried.count; candidate++) {
    const float factor = tried.factors[candidate];
    for (size_t i = 0; i < LANES; i++) {
      int32_t error = errors[candidate][i] | penalties[candidate][i];
      best[i] = error < least[i] ? factor : best[i];
      least[i] = error < least[i] ? error : least[i];
    }
  }
  range_lanes narrowed = narrowed_by(lanes_load(TCK_FLOAT32, best), middle, half);
  float narrowed_minima[LANES], narrowed_maxima[LANES];
  lanes_store(TCK_FLOAT32, narrowed_minima, narrowed.minimum);
  lanes_store(TCK_FLOAT32, narrowed_maxima, narrowed.maximum);
  for (size_t i = 0; i < LANES; i++) {
    minima[i] = best[i] == 1 ? minima[i] : narrowed_minima[i];
    maxima[i] = best[i] == 1 ? maxima[i] : narrowed_maxima[i];
  }
}

TCK_TARGET static void fit_ranges(tck_coding coding, tck_rows groups, size_t count, size_t group_count, float *minima,
                                  float *maxima) {
  if (count % LANES != 0) {
    tck_scalar_kernels.fit_ranges(coding, groups, count, group_count, minima, maxima);
    return;
  }
  if (candidates_of(coding.width).count == 0) return;
  for (size_t first = 0; first < group_count; first += LANES) {
    const size_t some = smaller(group_count - first, LANES);
    const void *numbers[LANES];
    float minimum[LANES], maximum[LANES];
    for (size_t i = 0; i < LANES; i++) {  // The last one stands for those that are missing.
      size_t group = first + smaller(i, some - 1);
      numbers[i] = offset(groups.bytes, group * groups.token_stride);
      minimum[i] = minima[group];
      maximum[i] = maxima[group];
    }
    fit_sixteen(coding, groups.type, numbers, count, minimum, maximum);
    memcpy(minima + first, minimum, some * sizeof *minima);
    memcpy(maxima + first, maximum, some * sizeof *maxima);
  }
}

#endif

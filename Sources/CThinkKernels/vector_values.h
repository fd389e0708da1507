// Vector kernels over blocks of quantized values. Part of vector_kernels.h.

#ifndef THINK_KERNELS_VECTOR_VALUES_H
#define THINK_KERNELS_VECTOR_VALUES_H

#include "instruction_sets.h"
#include "vector_groups.h"
#include "vector_rows.h"

// MARK: - Quantized values

// Values are quantized in steps of 16 tokens, so that any number of groups fills whole lanes.
#define VALUE_STEP 16
#define MAX_STEP_GROUPS (VALUE_STEP * TCK_MAX_HEAD_DIMENSION / 16)

static bool can_chunk(size_t head_dimension, size_t group) {
  return head_dimension % LANES == 0 && group % LANES == 0 && head_dimension <= TCK_MAX_HEAD_DIMENSION;
}

TCK_INLINE bool pack_values_of(tck_element_type type, tck_rows source, size_t tokens, size_t head_dimension,
                               size_t group, unsigned width, tck_mutable_packed destination) {
  const size_t size = element_size(type), stride = source.token_stride;
  const size_t groups = tck_value_groups(head_dimension, group);
  char low[MAX_STEP_GROUPS * sizeof(float)], high[MAX_STEP_GROUPS * sizeof(float)];
  float minimum[MAX_STEP_GROUPS], inverse[MAX_STEP_GROUPS];
  line_writer writer = {destination.codes, line_zero(), 0};
  prefetcher ahead = prefetch_after(source.bytes, PREFETCH_TOKENS, head_dimension * size, stride);
  for (size_t step = 0; step < tokens; step += VALUE_STEP) {
    const void *rows = offset(source.bytes, step * stride);
    for (size_t token = 0; token < VALUE_STEP; token += QUAD * TCK_GROUP_QUADS) {
      for (size_t g = 0; g < groups; g++) {
        const void *start = offset(rows, token * stride + g * group * size);
        size_t bytes = smaller(group, head_dimension - g * group) * size;
        size_t at = (token * groups + g * QUAD) * size, spacing = QUAD * groups * size;
        if (bytes == 64) {  // What the usual group of 32 float16 has, without loops.
          group_ranges(size, start, stride, 64, low + at, high + at, spacing);
        } else {
          group_ranges(size, start, stride, bytes, low + at, high + at, spacing);
        }
      }
    }
    if (!make_quantizers(type, VALUE_STEP * groups, width, low, high, minimum, inverse,
                         destination.scales + step * groups, destination.minima + step * groups)) {
      return false;
    }
    for (size_t token = 0; token < VALUE_STEP; token += QUAD) {
      for (size_t g = 0; g < groups; g++) {
        size_t end = smaller((g + 1) * group, head_dimension);
        size_t at = token * groups + g * QUAD;
        for (size_t channel = g * group; channel < end; channel += LANES) {
          const void *values[QUAD];
          for (size_t i = 0; i < QUAD; i++) values[i] = offset(rows, (token + i) * stride + channel * size);
          prefetch_lines(&ahead, size, false);
          append_unit(&writer, line_quantize(type, values, minimum + at, inverse + at, width), width);
        }
      }
    }
  }
  finish_line(&writer);
  return true;
}

TCK_TARGET static bool pack_values(tck_rows source, size_t tokens, size_t head_dimension, size_t group, unsigned width,
                                   tck_mutable_packed destination) {
  if (!can_chunk(head_dimension, group)) {
    return tck_scalar_kernels.pack_values(source, tokens, head_dimension, group, width, destination);
  }
  bool quantized = false;
  FOR_TYPE(source.type, quantized = pack_values_of(TYPE, source, tokens, head_dimension, group, width, destination));
  return quantized;
}

TCK_INLINE void unpack_values_to(tck_element_type type, tck_packed source, size_t tokens, size_t head_dimension,
                                 size_t group, unsigned width, tck_mutable_rows destination) {
  const size_t size = element_size(type), stride = destination.token_stride;
  const size_t groups = tck_value_groups(head_dimension, group);
  float scales[MAX_STEP_GROUPS], minima[MAX_STEP_GROUPS];
  line_reader reader = {source.codes, line_zero(), 0};
  prefetcher ahead = prefetch_after(destination.bytes, PREFETCH_TOKENS, head_dimension * size, stride);
  for (size_t step = 0; step < tokens; step += VALUE_STEP) {
    void *rows = offset_mutable(destination.bytes, step * stride);
    convert(TCK_FLOAT16, TCK_FLOAT32, source.scales + step * groups, VALUE_STEP * groups, scales);
    convert(TCK_FLOAT16, TCK_FLOAT32, source.minima + step * groups, VALUE_STEP * groups, minima);
    for (size_t token = 0; token < VALUE_STEP; token += QUAD) {
      for (size_t g = 0; g < groups; g++) {
        size_t end = smaller((g + 1) * group, head_dimension);
        size_t at = token * groups + g * QUAD;
        for (size_t channel = g * group; channel < end; channel += LANES) {
          void *values[QUAD];
          for (size_t i = 0; i < QUAD; i++) values[i] = offset_mutable(rows, (token + i) * stride + channel * size);
          prefetch_lines(&ahead, size, true);
          dequantize_unit(type, next_unit(&reader, width), scales + at, minima + at, values);
        }
      }
    }
  }
}

TCK_TARGET static void unpack_values(tck_packed source, size_t tokens, size_t head_dimension, size_t group,
                                     unsigned width, tck_mutable_rows destination) {
  if (!can_chunk(head_dimension, group)) {
    tck_scalar_kernels.unpack_values(source, tokens, head_dimension, group, width, destination);
    return;
  }
  FOR_TYPE(destination.type, unpack_values_to(TYPE, source, tokens, head_dimension, group, width, destination));
}

#endif

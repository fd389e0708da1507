// Vector kernels over blocks of quantized values. Part of vector_kernels.h.

#ifndef THINK_KERNELS_VECTOR_VALUES_H
#define THINK_KERNELS_VECTOR_VALUES_H

#include "instruction_sets.h"
#include "vector_groups.h"

// MARK: - Quantized values

// Values are taken in steps of 16 tokens, so that any number of groups fills whole lanes.
#define VALUE_STEP 16
#define MAX_STEP_GROUPS (VALUE_STEP * TCK_MAX_HEAD_DIMENSION / 16)

static bool can_chunk(size_t head_dimension, size_t group) {
  return head_dimension % LANES == 0 && group % LANES == 0 && head_dimension <= TCK_MAX_HEAD_DIMENSION;
}

TCK_INLINE bool value_ranges_of(tck_element_type type, tck_rows source, size_t tokens, size_t head_dimension,
                                size_t group, float *minima, float *maxima) {
  const size_t size = tck_element_bytes(type), stride = source.token_stride;
  const size_t groups = tck_value_groups(head_dimension, group);
  char low[MAX_STEP_GROUPS * sizeof(float)], high[MAX_STEP_GROUPS * sizeof(float)];
  bool all_within = true;
  for (size_t step = 0; step < tokens; step += VALUE_STEP) {
    const void *rows = offset(source.bytes, step * stride);
    for (size_t token = 0; token < VALUE_STEP; token += QUAD * TCK_GROUP_QUADS) {
      // The first half of the next rows; packing the codes fetches the others. Row by row: there is no time to spare.
      for (size_t i = 0; i < QUAD * TCK_GROUP_QUADS / 2; i++) {
        const void *next = offset(source.bytes, (tokens + (step + token) / 2 + i) * stride);
        for (size_t at = 0; at < head_dimension * size; at += LINE_BYTES) {
          __builtin_prefetch(offset(next, at), 0, PREFETCH_LEVEL);
        }
      }
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
    for (size_t i = 0; i < VALUE_STEP * groups; i += LANES) {
      store_ranges(type, low + i * size, high + i * size, minima + step * groups + i, maxima + step * groups + i,
                   &all_within);
    }
  }
  return all_within;
}

TCK_TARGET static bool value_ranges(tck_rows source, size_t tokens, size_t head_dimension, size_t group, float *minima,
                                    float *maxima) {
  if (!can_chunk(head_dimension, group)) {
    return tck_scalar_kernels.value_ranges(source, tokens, head_dimension, group, minima, maxima);
  }
  bool all_within = false;
  FOR_TYPE(source.type, all_within = value_ranges_of(TYPE, source, tokens, head_dimension, group, minima, maxima));
  return all_within;
}

TCK_INLINE void pack_values_of(tck_element_type type, tck_rows source, size_t tokens, size_t head_dimension,
                               size_t group, unsigned width, const float *minima, const float *inverse_scales,
                               uint8_t *codes) {
  const size_t size = tck_element_bytes(type), stride = source.token_stride;
  const size_t groups = tck_value_groups(head_dimension, group);
  const size_t units = tck_value_units(head_dimension);
  prefetcher ahead = prefetch_after(source.bytes, tokens + tokens / 2, head_dimension * size, stride);
  for (size_t start = 0; start < tokens; start += TCK_SUBBLOCK_TOKENS, codes += tck_line_bytes(units, width)) {
    line_writer writer = write_lines(codes, units, width);
    for (size_t token = start; token < start + TCK_SUBBLOCK_TOKENS; token += QUAD) {
      for (size_t g = 0; g < groups; g++) {
        size_t end = smaller((g + 1) * group, head_dimension);
        size_t at = token * groups + g * QUAD;
        for (size_t channel = g * group; channel < end; channel += LANES) {
          const void *values[QUAD];
          for (size_t i = 0; i < QUAD; i++) values[i] = offset(source.bytes, (token + i) * stride + channel * size);
          prefetch_lines(&ahead, size / 2, false);
          append_unit(&writer, line_quantize(type, values, minima + at, inverse_scales + at, width));
        }
      }
    }
  }
}

TCK_TARGET static void pack_values(tck_rows source, size_t tokens, size_t head_dimension, size_t group, unsigned width,
                                   const float *minima, const float *inverse_scales, uint8_t *codes) {
  if (!can_chunk(head_dimension, group)) {
    tck_scalar_kernels.pack_values(source, tokens, head_dimension, group, width, minima, inverse_scales, codes);
    return;
  }
  FOR_TYPE(source.type,
           pack_values_of(TYPE, source, tokens, head_dimension, group, width, minima, inverse_scales, codes));
}

TCK_INLINE void unpack_values_to(tck_element_type type, tck_packed source, size_t tokens, size_t head_dimension,
                                 size_t group, tck_coding coding, tck_mutable_rows destination) {
  const size_t size = tck_element_bytes(type), stride = destination.token_stride;
  const size_t groups = tck_value_groups(head_dimension, group);
  float scales[MAX_STEP_GROUPS], minima[MAX_STEP_GROUPS];
  const size_t units = tck_value_units(head_dimension);
  line_reader reader;
  prefetcher ahead = prefetch_after(destination.bytes, PREFETCH_TOKENS, head_dimension * size, stride);
  for (size_t step = 0; step < tokens; step += VALUE_STEP) {
    if (step % TCK_SUBBLOCK_TOKENS == 0) {
      const uint8_t *codes = source.codes + tck_value_code_bytes(step, head_dimension, coding.width);
      reader = read_lines(codes, units, coding.width);
    }
    void *rows = offset_mutable(destination.bytes, step * stride);
    restore_groups(coding, source, step * groups, VALUE_STEP * groups, scales, minima);
    for (size_t token = 0; token < VALUE_STEP; token += QUAD) {
      for (size_t g = 0; g < groups; g++) {
        size_t end = smaller((g + 1) * group, head_dimension);
        size_t at = token * groups + g * QUAD;
        for (size_t channel = g * group; channel < end; channel += LANES) {
          void *values[QUAD];
          for (size_t i = 0; i < QUAD; i++) values[i] = offset_mutable(rows, (token + i) * stride + channel * size);
          prefetch_lines(&ahead, size, true);
          dequantize_unit(type, next_unit(&reader), scales + at, minima + at, values);
        }
      }
    }
  }
}

TCK_TARGET static void unpack_values(tck_packed source, size_t tokens, size_t head_dimension, size_t group,
                                     tck_coding coding, tck_mutable_rows destination) {
  if (!can_chunk(head_dimension, group)) {
    tck_scalar_kernels.unpack_values(source, tokens, head_dimension, group, coding, destination);
    return;
  }
  FOR_TYPE(destination.type, unpack_values_to(TYPE, source, tokens, head_dimension, group, coding, destination));
}

#endif

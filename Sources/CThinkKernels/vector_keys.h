// Vector kernels over blocks of keys, quantized and in full precision. Part of vector_kernels.h.

#ifndef THINK_KERNELS_VECTOR_KEYS_H
#define THINK_KERNELS_VECTOR_KEYS_H

#include "instruction_sets.h"
#include "vector_columns.h"
#include "vector_groups.h"
#include "vector_rows.h"

// MARK: - Quantized keys

TCK_INLINE bool key_ranges_of(tck_element_type type, tck_rows source, size_t tokens, tck_channels channels,
                              size_t head_dimension, float *minima, float *maxima) {
  const size_t size = tck_element_bytes(type);
  char low[MAX_STAGED_CHANNELS * sizeof(float)], high[MAX_STAGED_CHANNELS * sizeof(float)];
  // Of the next block: the ranges will want all of it first.
  prefetcher ahead = prefetch_after(source.bytes, tokens, head_dimension * size, source.token_stride);
  channel_ranges(size, source.bytes, source.token_stride, tokens, head_dimension, low, high, &ahead);
  // In the run's order, with zeros for channels that fill the last quad.
  char lowest[MAX_STAGED_CHANNELS * sizeof(float)], highest[MAX_STAGED_CHANNELS * sizeof(float)];
  size_t padded = tck_padded_channels(channels.count);
  for (size_t i = 0; i < channels.count; i++) {
    memcpy(lowest + i * size, low + channels.indices[i] * size, size);
    memcpy(highest + i * size, high + channels.indices[i] * size, size);
  }
  for (size_t i = channels.count; i < padded || i < LANES; i++) {
    memset(lowest + i * size, 0, size);
    memset(highest + i * size, 0, size);
  }
  bool all_within = true;
  if (padded < LANES) {
    float minimum[LANES], maximum[LANES];
    store_ranges(type, lowest, highest, minimum, maximum, &all_within);
    memcpy(minima, minimum, padded * sizeof *minima);
    memcpy(maxima, maximum, padded * sizeof *maxima);
    return all_within;
  }
  for (size_t next = 0; next < padded; next += LANES) {  // The last ones may overlap those before.
    size_t i = smaller(next, padded - LANES);
    store_ranges(type, lowest + i * size, highest + i * size, minima + i, maxima + i, &all_within);
  }
  return all_within;
}

TCK_TARGET static bool key_ranges(tck_rows source, size_t tokens, tck_channels channels, size_t head_dimension,
                                  float *minima, float *maxima) {
  if (!can_stage(head_dimension) || channels.count > head_dimension) {
    return tck_scalar_kernels.key_ranges(source, tokens, channels, head_dimension, minima, maxima);
  }
  bool all_within = false;
  FOR_TYPE(source.type, all_within = key_ranges_of(TYPE, source, tokens, channels, head_dimension, minima, maxima));
  return all_within;
}

TCK_INLINE void pack_keys_of(tck_element_type type, tck_rows source, size_t tokens, tck_channels channels,
                             size_t head_dimension, unsigned width, const float *minima, const float *inverse_scales,
                             uint8_t *codes) {
  const size_t size = tck_element_bytes(type);
  const size_t staged_bytes = TCK_SUBBLOCK_TOKENS * size;
  // In the run's order; channels that fill the last quad quantize zeros.
  _Alignas(64) char stage[(MAX_STAGED_CHANNELS + 1) * TCK_SUBBLOCK_TOKENS * sizeof(float)];
  const char *staged[MAX_STAGED_CHANNELS];
  size_t padded = tck_padded_channels(channels.count);
  for (size_t i = 0; i < channels.count; i++) staged[i] = stage + channels.indices[i] * staged_bytes;
  for (size_t i = channels.count; i < padded; i++) staged[i] = stage + head_dimension * staged_bytes;
  memset(stage + head_dimension * staged_bytes, 0, staged_bytes);

  // Goes on where the ranges ended, after a quarter of the next block.
  prefetcher ahead = prefetch_after(source.bytes, tokens + tokens / 4, head_dimension * size, source.token_stride);
  const size_t units = tck_key_units(channels.count);
  for (size_t token = 0; token < tokens; token += TCK_SUBBLOCK_TOKENS, codes += tck_line_bytes(units, width)) {
    line_writer writer = write_lines(codes, units, width);
    stage_rows(size, offset(source.bytes, token * source.token_stride), source.token_stride, head_dimension, stage,
               &ahead, LINES_PER_COLUMN / 4);
    for (size_t first = 0; first < padded; first += QUAD) {
      for (size_t half = 0; half < 2; half++) {
        const void *values[QUAD];
        for (size_t i = 0; i < QUAD; i++) values[i] = staged[first + i] + half * LANES * size;
        prefetch_lines(&ahead, lines_per_unit(head_dimension * size, units), false);
        append_unit(&writer, line_quantize(type, values, minima + first, inverse_scales + first, width));
      }
    }
  }
}

TCK_TARGET static void pack_keys(tck_rows source, size_t tokens, tck_channels channels, size_t head_dimension,
                                 unsigned width, const float *minima, const float *inverse_scales, uint8_t *codes) {
  if (!can_stage(head_dimension) || channels.count > head_dimension) {
    tck_scalar_kernels.pack_keys(source, tokens, channels, head_dimension, width, minima, inverse_scales, codes);
    return;
  }
  FOR_TYPE(source.type,
           pack_keys_of(TYPE, source, tokens, channels, head_dimension, width, minima, inverse_scales, codes));
}

TCK_INLINE void unpack_keys_to(tck_element_type type, tck_packed source, size_t tokens, tck_channels channels,
                               size_t head_dimension, tck_coding coding, tck_mutable_rows destination) {
  const size_t size = tck_element_bytes(type);
  const size_t staged_bytes = TCK_SUBBLOCK_TOKENS * size;
  _Alignas(64) char stage[(MAX_STAGED_CHANNELS + 1) * TCK_SUBBLOCK_TOKENS * sizeof(float)];
  uint8_t keep[MAX_STAGED_CHANNELS] = {0};
  float scales[MAX_STAGED_CHANNELS], minima[MAX_STAGED_CHANNELS];
  char *staged[MAX_STAGED_CHANNELS];
  size_t padded = tck_padded_channels(channels.count);
  restore_groups(coding, source, 0, padded, scales, minima);
  for (size_t i = 0; i < channels.count; i++) {
    keep[channels.indices[i]] = 1;
    staged[i] = stage + channels.indices[i] * staged_bytes;
  }
  for (size_t i = channels.count; i < padded; i++) staged[i] = stage + head_dimension * staged_bytes;

  const size_t units = tck_key_units(channels.count);
  const uint8_t *codes = source.codes;
  for (size_t token = 0; token < tokens; token += TCK_SUBBLOCK_TOKENS, codes += tck_line_bytes(units, coding.width)) {
    line_reader reader = read_lines(codes, units, coding.width);
    void *rows = offset_mutable(destination.bytes, token * destination.token_stride);
    prefetcher ahead = prefetch_after(rows, PREFETCH_TOKENS, head_dimension * size, destination.token_stride);
    for (size_t first = 0; first < padded; first += QUAD) {
      for (size_t half = 0; half < 2; half++) {
        void *values[QUAD];
        for (size_t i = 0; i < QUAD; i++) values[i] = staged[first + i] + half * LANES * size;
        prefetch_lines(&ahead, lines_per_unit(head_dimension * size, units), true);
        dequantize_unit(type, next_unit(&reader), scales + first, minima + first, values);
      }
    }
    unstage_rows(size, stage, head_dimension, keep, rows, destination.token_stride, &ahead);
  }
}

TCK_TARGET static void unpack_keys(tck_packed source, size_t tokens, tck_channels channels, size_t head_dimension,
                                   tck_coding coding, tck_mutable_rows destination) {
  if (!can_stage(head_dimension) || channels.count > head_dimension) {
    tck_scalar_kernels.unpack_keys(source, tokens, channels, head_dimension, coding, destination);
    return;
  }
  FOR_TYPE(destination.type, unpack_keys_to(TYPE, source, tokens, channels, head_dimension, coding, destination));
}

// MARK: - Full precision

/// The channels that rows must have for this run: nothing beyond may be touched.
static size_t least_head_dimension(tck_channels channels) {
  size_t last = 0;
  for (size_t i = 0; i < channels.count; i++) last = channels.indices[i] > last ? channels.indices[i] : last;
  return last + 1;
}

TCK_INLINE void pack_whole_subblocks(size_t size, tck_rows source, size_t tokens, size_t whole, tck_channels channels,
                                     size_t head_dimension, void *destination) {
  const size_t staged_bytes = TCK_SUBBLOCK_TOKENS * size;
  _Alignas(64) char stage[MAX_STAGED_CHANNELS * TCK_SUBBLOCK_TOKENS * sizeof(float)];
  prefetcher ahead = prefetch_after(source.bytes, PREFETCH_TOKENS, head_dimension * size, source.token_stride);
  for (size_t token = 0; token < whole; token += TCK_SUBBLOCK_TOKENS) {
    stage_rows(size, offset(source.bytes, token * source.token_stride), source.token_stride, head_dimension, stage,
               &ahead, LINES_PER_COLUMN);
    for (size_t i = 0; i < channels.count; i++) {
      memcpy(offset_mutable(destination, (i * tokens + token) * size), stage + channels.indices[i] * staged_bytes,
             staged_bytes);
    }
  }
}

TCK_TARGET static void pack_full_keys(tck_rows source, size_t tokens, tck_channels channels, void *destination) {
  size_t size = tck_element_bytes(source.type), head_dimension = least_head_dimension(channels);
  size_t whole = can_stage(head_dimension) ? tokens / TCK_SUBBLOCK_TOKENS * TCK_SUBBLOCK_TOKENS : 0;
  if (size == 2) pack_whole_subblocks(2, source, tokens, whole, channels, head_dimension, destination);
  if (size == 4) pack_whole_subblocks(4, source, tokens, whole, channels, head_dimension, destination);
  source.bytes = offset(source.bytes, whole * source.token_stride);
  for (size_t i = 0; i < channels.count && whole < tokens; i++) {
    tck_scalar_kernels.pack_full_keys(source, tokens - whole, (tck_channels){channels.indices + i, 1},
                                      offset_mutable(destination, (i * tokens + whole) * size));
  }
}

TCK_INLINE void unpack_whole_subblocks(tck_element_type type, tck_element_type to, const void *source, size_t tokens,
                                       size_t whole, tck_channels channels, size_t head_dimension,
                                       tck_mutable_rows destination) {
  const size_t size = tck_element_bytes(to);
  _Alignas(64) char stage[MAX_STAGED_CHANNELS * TCK_SUBBLOCK_TOKENS * sizeof(float)];
  uint8_t keep[MAX_STAGED_CHANNELS] = {0};
  for (size_t i = 0; whole > 0 && i < channels.count; i++) keep[channels.indices[i]] = 1;
  for (size_t token = 0; token < whole; token += TCK_SUBBLOCK_TOKENS) {
    void *rows = offset_mutable(destination.bytes, token * destination.token_stride);
    prefetcher ahead = prefetch_after(rows, PREFETCH_TOKENS, head_dimension * size, destination.token_stride);
    for (size_t i = 0; i < channels.count; i++) {
      prefetch_lines(&ahead, 1, true);
      const void *from = offset(source, (i * tokens + token) * tck_element_bytes(type));
      char *staged = stage + channels.indices[i] * TCK_SUBBLOCK_TOKENS * size;
      if (type == to) {  // Bit for bit, NaN payloads too.
        memcpy(staged, from, TCK_SUBBLOCK_TOKENS * size);
      } else {
        FOR_TYPE(type, convert(TYPE, to, from, TCK_SUBBLOCK_TOKENS, staged));
      }
    }
    unstage_rows(size, stage, head_dimension, keep, rows, destination.token_stride, &ahead);
  }
}

TCK_TARGET static void unpack_full_keys(tck_element_type type, const void *source, size_t tokens,
                                        tck_channels channels, tck_mutable_rows destination) {
  size_t head_dimension = least_head_dimension(channels);
  size_t whole = can_stage(head_dimension) ? tokens / TCK_SUBBLOCK_TOKENS * TCK_SUBBLOCK_TOKENS : 0;
  FOR_TYPE(destination.type,
           unpack_whole_subblocks(type, TYPE, source, tokens, whole, channels, head_dimension, destination));
  destination.bytes = offset_mutable(destination.bytes, whole * destination.token_stride);
  for (size_t i = 0; i < channels.count && whole < tokens; i++) {
    tck_scalar_kernels.unpack_full_keys(type, offset(source, (i * tokens + whole) * tck_element_bytes(type)),
                                        tokens - whole, (tck_channels){channels.indices + i, 1}, destination);
  }
}

#endif

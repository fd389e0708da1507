// Vector kernels over blocks of keys, quantized and in full precision. Part of vector_kernels.h.

#ifndef THINK_KERNELS_VECTOR_KEYS_H
#define THINK_KERNELS_VECTOR_KEYS_H

#include "instruction_sets.h"
#include "vector_columns.h"
#include "vector_groups.h"
#include "vector_rows.h"

// MARK: - Quantized keys

TCK_INLINE bool pack_keys_of(tck_element_type type, tck_rows source, size_t tokens, tck_channels channels,
                             size_t head_dimension, unsigned width, tck_mutable_packed destination) {
  const size_t size = element_size(type);
  const size_t staged_bytes = TCK_SUBBLOCK_TOKENS * size;
  char low[MAX_STAGED_CHANNELS * sizeof(float)], high[MAX_STAGED_CHANNELS * sizeof(float)];
  // Of the next block: the ranges will want all of it first.
  prefetcher ahead = prefetch_after(source.bytes, tokens, head_dimension * size, source.token_stride);
  channel_ranges(size, source.bytes, source.token_stride, tokens, head_dimension, low, high, &ahead);

  // In the run's order; channels that fill the last quad quantize zeros, which gives scale, minimum and codes 0.
  _Alignas(64) char stage[(MAX_STAGED_CHANNELS + 1) * TCK_SUBBLOCK_TOKENS * sizeof(float)];
  char lowest[MAX_STAGED_CHANNELS * sizeof(float)], highest[MAX_STAGED_CHANNELS * sizeof(float)];
  float minimum[MAX_STAGED_CHANNELS], inverse[MAX_STAGED_CHANNELS];
  uint16_t scales[MAX_STAGED_CHANNELS], minima[MAX_STAGED_CHANNELS];
  const char *staged[MAX_STAGED_CHANNELS];
  size_t padded = tck_padded_channels(channels.count), whole = (channels.count + LANES - 1) / LANES * LANES;
  for (size_t i = 0; i < channels.count; i++) {
    memcpy(lowest + i * size, low + channels.indices[i] * size, size);
    memcpy(highest + i * size, high + channels.indices[i] * size, size);
    staged[i] = stage + channels.indices[i] * staged_bytes;
  }
  for (size_t i = channels.count; i < padded; i++) staged[i] = stage + head_dimension * staged_bytes;
  memset(stage + head_dimension * staged_bytes, 0, staged_bytes);
  memset(lowest + channels.count * size, 0, (whole - channels.count) * size);
  memset(highest + channels.count * size, 0, (whole - channels.count) * size);
  if (!make_quantizers(type, whole, width, lowest, highest, minimum, inverse, scales, minima)) return false;
  memcpy(destination.scales, scales, padded * sizeof *scales);
  memcpy(destination.minima, minima, padded * sizeof *minima);

  line_writer writer = {destination.codes, line_zero(), 0};
  for (size_t token = 0; token < tokens; token += TCK_SUBBLOCK_TOKENS) {
    stage_rows(size, offset(source.bytes, token * source.token_stride), source.token_stride, head_dimension, stage,
               &ahead, LINES_PER_COLUMN / 4);
    for (size_t first = 0; first < padded; first += QUAD) {
      for (size_t half = 0; half < 2; half++) {
        const void *values[QUAD];
        for (size_t i = 0; i < QUAD; i++) values[i] = staged[first + i] + half * LANES * size;
        prefetch_lines(&ahead, lines_per_unit(head_dimension * size, padded / 2), false);
        append_unit(&writer, line_quantize(type, values, minimum + first, inverse + first, width), width);
      }
    }
    finish_line(&writer);
  }
  return true;
}

TCK_TARGET static bool pack_keys(tck_rows source, size_t tokens, tck_channels channels, size_t head_dimension,
                                 unsigned width, tck_mutable_packed destination) {
  if (!can_stage(head_dimension) || channels.count > head_dimension) {
    return tck_scalar_kernels.pack_keys(source, tokens, channels, head_dimension, width, destination);
  }
  bool quantized = false;
  FOR_TYPE(source.type, quantized = pack_keys_of(TYPE, source, tokens, channels, head_dimension, width, destination));
  return quantized;
}

TCK_INLINE void unpack_keys_to(tck_element_type type, tck_packed source, size_t tokens, tck_channels channels,
                               size_t head_dimension, unsigned width, tck_mutable_rows destination) {
  const size_t size = element_size(type);
  const size_t staged_bytes = TCK_SUBBLOCK_TOKENS * size;
  _Alignas(64) char stage[(MAX_STAGED_CHANNELS + 1) * TCK_SUBBLOCK_TOKENS * sizeof(float)];
  uint8_t keep[MAX_STAGED_CHANNELS] = {0};
  float scales[MAX_STAGED_CHANNELS], minima[MAX_STAGED_CHANNELS];
  char *staged[MAX_STAGED_CHANNELS];
  size_t padded = tck_padded_channels(channels.count);
  widen(TCK_FLOAT16, source.scales, padded, scales);
  widen(TCK_FLOAT16, source.minima, padded, minima);
  for (size_t i = 0; i < channels.count; i++) {
    keep[channels.indices[i]] = 1;
    staged[i] = stage + channels.indices[i] * staged_bytes;
  }
  for (size_t i = channels.count; i < padded; i++) staged[i] = stage + head_dimension * staged_bytes;

  line_reader reader = {source.codes, line_zero(), 0};
  for (size_t token = 0; token < tokens; token += TCK_SUBBLOCK_TOKENS) {
    void *rows = offset_mutable(destination.bytes, token * destination.token_stride);
    prefetcher ahead = prefetch_after(rows, PREFETCH_TOKENS, head_dimension * size, destination.token_stride);
    reader.shift = 0;
    for (size_t first = 0; first < padded; first += QUAD) {
      for (size_t half = 0; half < 2; half++) {
        void *values[QUAD];
        for (size_t i = 0; i < QUAD; i++) values[i] = staged[first + i] + half * LANES * size;
        prefetch_lines(&ahead, lines_per_unit(head_dimension * size, padded / 2), true);
        dequantize_unit(type, next_unit(&reader, width), scales + first, minima + first, values);
      }
    }
    unstage_rows(size, stage, head_dimension, keep, rows, destination.token_stride, &ahead);
  }
}

TCK_TARGET static void unpack_keys(tck_packed source, size_t tokens, tck_channels channels, size_t head_dimension,
                                   unsigned width, tck_mutable_rows destination) {
  if (!can_stage(head_dimension) || channels.count > head_dimension) {
    tck_scalar_kernels.unpack_keys(source, tokens, channels, head_dimension, width, destination);
    return;
  }
  FOR_TYPE(destination.type, unpack_keys_to(TYPE, source, tokens, channels, head_dimension, width, destination));
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
  size_t size = element_size(source.type), head_dimension = least_head_dimension(channels);
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
  const size_t size = element_size(to);
  _Alignas(64) char stage[MAX_STAGED_CHANNELS * TCK_SUBBLOCK_TOKENS * sizeof(float)];
  uint8_t keep[MAX_STAGED_CHANNELS] = {0};
  for (size_t i = 0; whole > 0 && i < channels.count; i++) keep[channels.indices[i]] = 1;
  for (size_t token = 0; token < whole; token += TCK_SUBBLOCK_TOKENS) {
    void *rows = offset_mutable(destination.bytes, token * destination.token_stride);
    prefetcher ahead = prefetch_after(rows, PREFETCH_TOKENS, head_dimension * size, destination.token_stride);
    for (size_t i = 0; i < channels.count; i++) {
      prefetch_lines(&ahead, 1, true);
      const void *from = offset(source, (i * tokens + token) * element_size(type));
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
    tck_scalar_kernels.unpack_full_keys(type, offset(source, (i * tokens + whole) * element_size(type)), tokens - whole,
                                        (tck_channels){channels.indices + i, 1}, destination);
  }
}

#endif

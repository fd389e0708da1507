// Packs blocks: puts the kernels' steps together.

#include <string.h>

#include "think_kernels.h"

/// Groups that are quantized at once: a run's key channels, or those of 32 tokens' values, whose groups have 32 channels
/// or more.
#define MOST_GROUPS TCK_MAX_HEAD_DIMENSION

/// Channels of keys whose numbers are brought together at once.
#define FIT_CHANNELS 16

static const void *row(tck_rows rows, size_t token) { return (const char *)rows.bytes + token * rows.token_stride; }

static void fit_key_ranges(const tck_kernels *kernels, tck_rows source, size_t tokens, tck_channels channels,
                           tck_coding coding, float *minima, float *maxima) {
  float numbers[FIT_CHANNELS * TCK_MAX_BLOCK_TOKENS], some[TCK_MAX_HEAD_DIMENSION];
  for (size_t start = 0; start < channels.count; start += FIT_CHANNELS) {
    size_t count = channels.count - start < FIT_CHANNELS ? channels.count - start : FIT_CHANNELS;
    const uint16_t *indices = channels.indices + start;
    size_t first = indices[0], last = indices[0];
    for (size_t i = 1; i < count; i++) {
      first = indices[i] < first ? indices[i] : first;
      last = indices[i] > last ? indices[i] : last;
    }
    const size_t offset = first * tck_element_bytes(source.type);
    for (size_t token = 0; token < tokens; token++) {
      kernels->widen(source.type, (const char *)row(source, token) + offset, last - first + 1, some);
      for (size_t i = 0; i < count; i++) numbers[i * tokens + token] = some[indices[i] - first];
    }
    kernels->fit_ranges(coding, numbers, tokens, count, minima + start, maxima + start);
  }
}

static void fit_value_ranges(const tck_kernels *kernels, tck_rows source, size_t tokens, size_t head_dimension,
                             size_t group, tck_coding coding, float *minima, float *maxima) {
  float numbers[TCK_MAX_HEAD_DIMENSION];
  size_t groups = tck_value_groups(head_dimension, group);
  for (size_t token = 0; token < tokens; token++) {
    kernels->widen(source.type, row(source, token), head_dimension, numbers);
    for (size_t g = 0, start = 0; g < groups; g++, start += group) {
      size_t count = head_dimension - start < group ? head_dimension - start : group;
      size_t at = tck_value_group_index(token, g, groups);
      kernels->fit_ranges(coding, numbers + start, count, 1, minima + at, maxima + at);
    }
  }
}

bool tck_pack_keys(const tck_kernels *kernels, tck_rows source, size_t tokens, tck_channels channels,
                   size_t head_dimension, tck_coding coding, tck_mutable_packed destination) {
  float minima[MOST_GROUPS], maxima[MOST_GROUPS];
  if (!kernels->key_ranges(source, tokens, channels, head_dimension, minima, maxima)) return false;
  if (coding.ranges == TCK_FITTED_RANGES) {
    fit_key_ranges(kernels, source, tokens, channels, coding, minima, maxima);
  }
  tck_quantizers quantizers = {destination.scales, destination.minima, minima, maxima};
  kernels->encode_scales(coding, tck_padded_channels(channels.count), minima, maxima, quantizers);
  kernels->pack_keys(source, tokens, channels, head_dimension, coding.width, quantizers.minimum_values,
                     quantizers.inverse_scales, destination.codes);
  return true;
}

bool tck_pack_values(const tck_kernels *kernels, tck_rows source, size_t tokens, size_t head_dimension, size_t group,
                     tck_coding coding, tck_mutable_packed destination) {
  float minima[MOST_GROUPS], maxima[MOST_GROUPS];
  // Rows are read twice, for their ranges and for their codes: so few of them stay in the first cache meanwhile.
  for (size_t token = 0, step; token < tokens; token += step) {
    step = tokens - token < TCK_SUBBLOCK_TOKENS ? tokens - token : TCK_SUBBLOCK_TOKENS;
    size_t groups = step * tck_value_groups(head_dimension, group);
    if (!kernels->value_ranges(source, step, head_dimension, group, minima, maxima)) return false;
    if (coding.ranges == TCK_FITTED_RANGES) {
      fit_value_ranges(kernels, source, step, head_dimension, group, coding, minima, maxima);
    }
    tck_quantizers quantizers = {destination.scales, destination.minima, minima, maxima};
    kernels->encode_scales(coding, groups, minima, maxima, quantizers);
    kernels->pack_values(source, step, head_dimension, group, coding.width, quantizers.minimum_values,
                         quantizers.inverse_scales, destination.codes);
    source.bytes = (const char *)source.bytes + step * source.token_stride;
    destination.codes += tck_value_code_bytes(step, head_dimension, coding.width);
    destination.scales = (char *)destination.scales + groups * tck_scale_bytes(coding);
    destination.minima = (char *)destination.minima + groups * tck_scale_bytes(coding);
  }
  return true;
}

bool tck_pack_block(const tck_kernels *kernels, const tck_block_format *format, const uint16_t *channels,
                    tck_rows keys, tck_rows values, void *block) {
  uint8_t *bytes = block;
  for (size_t i = 0; i < format->key_run_count; i++) {
    const tck_key_run *run = &format->key_runs[i];
    tck_channels run_channels = {channels, run->count};
    if (run->coding.width == 0) {
      kernels->pack_full_keys(keys, format->tokens, run_channels, bytes + run->codes);
    } else {
      tck_mutable_packed to = {bytes + run->codes, bytes + run->scales, bytes + run->minima};
      if (!tck_pack_keys(kernels, keys, format->tokens, run_channels, format->key_dimension, run->coding, to)) {
        return false;
      }
    }
    channels += run->count;
  }
  if (format->value_coding.width == 0) {
    size_t row_bytes = format->value_dimension * tck_element_bytes(format->full_type);
    for (size_t token = 0; token < format->tokens; token++) {
      memcpy(bytes + format->value_codes + token * row_bytes,
             (const char *)values.bytes + token * values.token_stride, row_bytes);
    }
    return true;
  }
  tck_mutable_packed to = {bytes + format->value_codes, bytes + format->value_scales, bytes + format->value_minima};
  return tck_pack_values(kernels, values, format->tokens, format->value_dimension, format->value_group,
                         format->value_coding, to);
}

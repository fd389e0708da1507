// Packs blocks: puts the kernels' steps together.

#include <string.h>

#include "think_kernels.h"

/// Groups that are quantized at once: a run's key channels, or those of 32 tokens' values, whose groups have 32 channels
/// or more.
#define MOST_GROUPS TCK_MAX_HEAD_DIMENSION

bool tck_pack_keys(const tck_kernels *kernels, tck_rows source, size_t tokens, tck_channels channels,
                   size_t head_dimension, tck_coding coding, tck_mutable_packed destination) {
  float minima[MOST_GROUPS], maxima[MOST_GROUPS];
  if (!kernels->key_ranges(source, tokens, channels, head_dimension, minima, maxima)) return false;
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

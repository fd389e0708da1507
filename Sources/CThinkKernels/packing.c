// Packs blocks: puts the kernels' steps together.

#include <string.h>

#include "quantizer.h"

/// Groups that are quantized at once: a run's key channels, or those of 32 tokens' values, whose groups have 32 channels
/// or more.
#define MOST_GROUPS TCK_MAX_HEAD_DIMENSION

/// Bytes of keys that are brought into channel-major order at once, to be fitted.
#define FIT_BYTES 65536

static void fit_key_ranges(const tck_kernels *kernels, tck_rows source, size_t tokens, tck_channels channels,
                           tck_coding coding, float *minima, float *maxima) {
  _Alignas(TCK_LINE_BYTES) char numbers[FIT_BYTES];
  const tck_rows groups = {numbers, tokens * tck_element_bytes(source.type), source.type};
  const size_t most = FIT_BYTES / groups.token_stride;
  for (size_t start = 0; start < channels.count; start += most) {
    size_t count = channels.count - start < most ? channels.count - start : most;
    kernels->pack_full_keys(source, tokens, (tck_channels){channels.indices + start, count}, numbers);
    kernels->fit_ranges(coding, groups, tokens, count, minima + start, maxima + start);
  }
}

/// `tokens` is at most TCK_SUBBLOCK_TOKENS.
static void fit_value_ranges(const tck_kernels *kernels, tck_rows source, size_t tokens, size_t head_dimension,
                             size_t group, tck_coding coding, float *minima, float *maxima) {
  size_t groups = tck_value_groups(head_dimension, group);
  for (size_t g = 0; g < groups; g++) {
    // The tokens' groups of the same channels, as of keys: of a last one that is shorter, too, all are of one length.
    const size_t start = g * group, count = head_dimension - start < group ? head_dimension - start : group;
    const size_t offset = start * tck_element_bytes(source.type);
    const tck_rows numbers = {(const char *)source.bytes + offset, source.token_stride, source.type};
    float some_minima[TCK_SUBBLOCK_TOKENS], some_maxima[TCK_SUBBLOCK_TOKENS];
    for (size_t token = 0; token < tokens; token++) {
      some_minima[token] = minima[tck_value_group_index(token, g, groups)];
      some_maxima[token] = maxima[tck_value_group_index(token, g, groups)];
    }
    kernels->fit_ranges(coding, numbers, count, tokens, some_minima, some_maxima);
    for (size_t token = 0; token < tokens; token++) {
      minima[tck_value_group_index(token, g, groups)] = some_minima[token];
      maxima[tck_value_group_index(token, g, groups)] = some_maxima[token];
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

static void copy_element(char *to, const char *from, size_t size) {
  if (size == sizeof(uint32_t)) {
    memcpy(to, from, sizeof(uint32_t));
  } else {
    memcpy(to, from, sizeof(uint16_t));
  }
}

void tck_gather_channels(tck_rows source, size_t tokens, tck_channels channels, void *destination) {
  const size_t size = tck_element_bytes(source.type);
  char *to = destination;
  for (size_t token = 0; token < tokens; token++) {
    const char *row = (const char *)source.bytes + token * source.token_stride;
    for (size_t i = 0; i < channels.count; i++, to += size) copy_element(to, row + channels.indices[i] * size, size);
  }
}

void tck_scatter_channels(const void *source, size_t tokens, tck_channels channels, tck_mutable_rows destination) {
  const size_t size = tck_element_bytes(destination.type);
  const char *from = source;
  for (size_t token = 0; token < tokens; token++) {
    char *row = (char *)destination.bytes + token * destination.token_stride;
    for (size_t i = 0; i < channels.count; i++, from += size) copy_element(row + channels.indices[i] * size, from, size);
  }
}

static bool is_centered(tck_coding coding) { return coding.scales == TCK_COMPACT_SCALES; }

static bool centers_keys(const tck_block_format *format) {
  for (size_t i = 0; i < format->key_run_count; i++) {
    if (is_centered(format->key_runs[i].coding)) return true;
  }
  return false;
}

size_t tck_packing_floats(const tck_block_format *format) {
  size_t keys = centers_keys(format) ? format->key_dimension : 0;
  size_t values = is_centered(format->value_coding) ? format->value_dimension : 0;
  return format->tokens * (keys > values ? keys : values);
}

static bool are_quantizable(tck_rows source, size_t tokens, tck_channels channels) {
  for (size_t token = 0; token < tokens; token++) {
    const void *row = (const char *)source.bytes + token * source.token_stride;
    for (size_t i = 0; i < channels.count; i++) {
      if (!tck_is_quantizable(tck_load(source.type, row, channels.indices[i]))) return false;
    }
  }
  return true;
}

/// Numbers that were within limits may have left them when means were subtracted or rows rotated.
static void clip(float *numbers, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (numbers[i] > TCK_MAX_QUANTIZED_MAGNITUDE) numbers[i] = TCK_MAX_QUANTIZED_MAGNITUDE;
    if (numbers[i] < -TCK_MAX_QUANTIZED_MAGNITUDE) numbers[i] = -TCK_MAX_QUANTIZED_MAGNITUDE;
  }
}

static bool pack_run(const tck_kernels *kernels, tck_rows keys, const tck_block_format *format, const tck_key_run *run,
                     tck_channels channels, uint8_t *block) {
  tck_mutable_packed to = {block + run->codes, block + run->scales, block + run->minima};
  return tck_pack_keys(kernels, keys, format->tokens, channels, format->key_dimension, run->coding, to);
}

static bool pack_centered_run(const tck_kernels *kernels, tck_rows keys, bool all_within, const tck_block_format *format,
                              const tck_key_run *run, tck_channels channels, float *centered, uint8_t *block) {
  // Numbers that can't be quantized may be those of other runs, or of pruned channels.
  if (!all_within && !are_quantizable(keys, format->tokens, channels)) return false;
  tck_rows rows = {centered, format->key_dimension * sizeof *centered, TCK_FLOAT32};
  if (pack_run(kernels, rows, format, run, channels, block)) return true;
  clip(centered, format->tokens * format->key_dimension);
  return pack_run(kernels, rows, format, run, channels, block);
}

static bool pack_block_values(const tck_kernels *kernels, tck_rows values, const tck_block_format *format,
                              uint8_t *block) {
  tck_mutable_packed to = {block + format->value_codes, block + format->value_scales, block + format->value_minima};
  return tck_pack_values(kernels, values, format->tokens, format->value_dimension, format->value_group,
                         format->value_coding, to);
}

static bool pack_centered_values(const tck_kernels *kernels, tck_rows values, const tck_block_format *format,
                                 tck_centering centering, uint8_t *block) {
  size_t tokens = format->tokens, dimension = format->value_dimension;
  float *centered = centering.workspace;
  if (!kernels->subtract_means(values, tokens, dimension, centering.value_means, centered)) return false;
  if (format->value_coding.rotation == TCK_HADAMARD) kernels->rotate_rows(centered, tokens, dimension);
  tck_rows rows = {centered, dimension * sizeof *centered, TCK_FLOAT32};
  if (pack_block_values(kernels, rows, format, block)) return true;
  clip(centered, tokens * dimension);
  return pack_block_values(kernels, rows, format, block);
}

bool tck_pack_block(const tck_kernels *kernels, const tck_block_format *format, const uint16_t *channels,
                    tck_rows keys, tck_rows values, tck_centering centering, void *block) {
  uint8_t *bytes = block;
  bool all_within = false;
  if (centers_keys(format)) {
    all_within = kernels->subtract_means(keys, format->tokens, format->key_dimension, centering.key_means,
                                         centering.workspace);
  }
  for (size_t i = 0; i < format->key_run_count; i++) {
    const tck_key_run *run = &format->key_runs[i];
    tck_channels run_channels = {channels, run->count};
    bool is_packed = true;
    if (run->coding.width == 0) {
      kernels->pack_full_keys(keys, format->tokens, run_channels, bytes + run->codes);
    } else if (is_centered(run->coding)) {
      is_packed = pack_centered_run(kernels, keys, all_within, format, run, run_channels, centering.workspace, bytes);
    } else {
      is_packed = pack_run(kernels, keys, format, run, run_channels, bytes);
    }
    if (!is_packed) return false;
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
  if (is_centered(format->value_coding)) return pack_centered_values(kernels, values, format, centering, bytes);
  return pack_block_values(kernels, values, format, bytes);
}

// MARK: - Components

/// Exchanges rows and columns of every 16 bytes, taken as 4 x 4: codes of components lie so that those of four tokens
/// are together. The inverse of itself.
static void transpose_fours(const uint8_t *from, size_t count, uint8_t *to) {
  for (size_t i = 0; i < count; i += 16) {
    for (size_t row = 0; row < 4; row++) {
      for (size_t column = 0; column < 4; column++) to[i + column * 4 + row] = from[i + row * 4 + column];
    }
  }
}

/// The components of a run, which are numbered as they come.
static tck_channels run_components(size_t first, size_t count, uint16_t indices[TCK_MAX_HEAD_DIMENSION]) {
  for (size_t i = 0; i < count; i++) indices[i] = (uint16_t)(first + i);
  return (tck_channels){indices, count};
}

static size_t component_count(const tck_key_run *runs, size_t run_count) {
  size_t count = 0;
  for (size_t i = 0; i < run_count; i++) count += runs[i].count;
  return count;
}

bool tck_pack_components(const tck_kernels *kernels, const tck_block_format *format, tck_rows keys, tck_rows values,
                         void *block) {
  uint8_t *bytes = block;
  uint16_t indices[TCK_MAX_HEAD_DIMENSION];
  for (size_t part = 0; part < 2; part++) {
    const tck_key_run *runs = part == 0 ? format->key_runs : format->value_runs;
    const size_t run_count = part == 0 ? format->key_run_count : format->value_run_count;
    const size_t dimension = component_count(runs, run_count);
    size_t first = 0;
    for (size_t i = 0; i < run_count; i++) {
      const tck_key_run *run = &runs[i];
      tck_mutable_packed to = {bytes + run->codes, bytes + run->scales, bytes + run->minima};
      if (!tck_pack_keys(kernels, part == 0 ? keys : values, format->tokens,
                         run_components(first, run->count, indices), dimension, run->coding, to)) {
        return false;
      }
      first += run->count;
      if (part == 0) continue;
      for (size_t at = 0; at < tck_key_code_bytes(format->tokens, run->count, run->coding.width); at += 16) {
        uint8_t lanes[16];
        memcpy(lanes, to.codes + at, sizeof lanes);
        transpose_fours(lanes, sizeof lanes, to.codes + at);
      }
    }
  }
  return true;
}

size_t tck_unpacking_bytes(const tck_block_format *format) {
  size_t most = 0;
  for (size_t i = 0; i < format->value_run_count; i++) {
    const tck_key_run *run = &format->value_runs[i];
    size_t bytes = tck_key_code_bytes(format->tokens, run->count, run->coding.width);
    most = bytes > most ? bytes : most;
  }
  return most;
}

void tck_unpack_components(const tck_kernels *kernels, const tck_block_format *format, bool of_values, const void *block,
                           void *workspace, float *destination, size_t row_stride) {
  const uint8_t *bytes = block;
  uint16_t indices[TCK_MAX_HEAD_DIMENSION];
  const tck_key_run *runs = of_values ? format->value_runs : format->key_runs;
  const size_t run_count = of_values ? format->value_run_count : format->key_run_count;
  const size_t dimension = component_count(runs, run_count);
  const tck_mutable_rows rows = {destination, row_stride * sizeof *destination, TCK_FLOAT32};
  size_t first = 0;
  for (size_t i = 0; i < run_count; i++) {
    const tck_key_run *run = &runs[i];
    const uint8_t *codes = bytes + run->codes;
    if (of_values) {
      transpose_fours(codes, tck_key_code_bytes(format->tokens, run->count, run->coding.width), workspace);
      codes = workspace;
    }
    const tck_packed source = {codes, bytes + run->scales, bytes + run->minima};
    kernels->unpack_keys(source, format->tokens, run_components(first, run->count, indices), dimension, run->coding,
                         rows);
    first += run->count;
  }
}

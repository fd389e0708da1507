// The definition of every kernel: plain loops, one value at a time.

#pragma STDC FP_CONTRACT OFF

#include <stdlib.h>

#include "archive_kernels.h"
#include "instruction_sets.h"
#include "quantizer.h"
#include "range_fitting.h"
#include "weight_blocks.h"

static const void *row(tck_rows rows, size_t token) { return (const char *)rows.bytes + token * rows.token_stride; }

static void *mutable_row(tck_mutable_rows rows, size_t token) {
  return (char *)rows.bytes + token * rows.token_stride;
}

// MARK: - Conversion

static void widen(tck_element_type type, const void *source, size_t count, float *destination) {
  for (size_t i = 0; i < count; i++) destination[i] = tck_load(type, source, i);
}

static void narrow(tck_element_type type, const float *source, size_t count, void *destination) {
  for (size_t i = 0; i < count; i++) tck_store(type, destination, i, source[i]);
}

// MARK: - Statistics

static void add_channel_sums(tck_rows source, size_t tokens, size_t head_dimension, double *sums, double *squares) {
  for (size_t channel = 0; channel < head_dimension; channel++) {
    for (size_t start = 0; start < tokens; start += TCK_SUBBLOCK_TOKENS) {
      size_t end = start + TCK_SUBBLOCK_TOKENS < tokens ? start + TCK_SUBBLOCK_TOKENS : tokens;
      float sum = 0, square = 0;
      for (size_t token = start; token < end; token++) {
        float value = tck_load(source.type, row(source, token), channel);
        float product = value * value;
        sum += value;
        square += product;
      }
      sums[channel] += (double)sum;
      squares[channel] += (double)square;
    }
  }
}

static bool subtract_means(tck_rows source, size_t count, size_t dimension, const float *means, float *destination) {
  bool are_within = true;
  for (size_t i = 0; i < count; i++, destination += dimension) {
    for (size_t channel = 0; channel < dimension; channel++) {
      float value = tck_load(source.type, row(source, i), channel);
      are_within &= tck_is_quantizable(value);
      destination[channel] = value - means[channel];
    }
  }
  return are_within;
}

static void add_means(const float *source, size_t count, size_t dimension, const float *means,
                      tck_mutable_rows destination) {
  for (size_t i = 0; i < count; i++, source += dimension) {
    for (size_t channel = 0; channel < dimension; channel++) {
      float sum = source[channel] + means[channel];
      sum = sum < TCK_MAX_QUANTIZED_MAGNITUDE ? sum : TCK_MAX_QUANTIZED_MAGNITUDE;
      sum = sum > -TCK_MAX_QUANTIZED_MAGNITUDE ? sum : -TCK_MAX_QUANTIZED_MAGNITUDE;
      tck_store(destination.type, mutable_row(destination, i), channel, sum);
    }
  }
}

/// Formats/kivi.md, "Rotated values".
static void rotate_rows(float *rows, size_t count, size_t dimension) {
  const size_t length = tck_rotated_length(dimension);
  const float factor = tck_rotation_factor(length);
  for (float *block = rows; block < rows + count * dimension; block += length) {
    for (size_t distance = 1; distance < length; distance *= 2) {
      for (size_t i = 0; i < length; i++) {
        if ((i & distance) != 0) continue;
        float first = block[i], second = block[i + distance];
        block[i] = first + second;
        block[i + distance] = first - second;
      }
    }
    for (size_t i = 0; i < length; i++) block[i] *= factor;
  }
}

// MARK: - Code lines

/// Where a code is: in byte `byte` of unit `unit`, of `units` units of a sub-block, whose lines begin at `lines`.
typedef struct code_place {
  unsigned width;
  size_t lines, units, unit, byte;
} code_place;

/// The place of a key code: Formats/kivi.md, "Key codes".
static code_place key_place(size_t token, size_t index, size_t count, unsigned width) {
  size_t units = tck_key_units(count), lines = token / TCK_SUBBLOCK_TOKENS * tck_line_bytes(units, width);
  size_t lane = token % 16, half = token % TCK_SUBBLOCK_TOKENS / 16;
  return (code_place){width, lines, units, index / 4 * 2 + half, lane * 4 + index % 4};
}

/// The place of a code of a run of value components: Formats/calibrated.md, "Blocks".
static code_place component_place(size_t token, size_t index, size_t count, unsigned width) {
  code_place at = key_place(token, index, count, width);
  at.byte = token % 16 / 4 * 16 + index % 4 * 4 + token % 4;
  return at;
}

/// The place of a value code: Formats/kivi.md, "Value codes".
static code_place value_place(size_t token, size_t channel, size_t head_dimension, unsigned width) {
  size_t units = tck_value_units(head_dimension), lines = token / TCK_SUBBLOCK_TOKENS * tck_line_bytes(units, width);
  size_t four = token % TCK_SUBBLOCK_TOKENS / 4, sixteens = (head_dimension + 15) / 16;
  return (code_place){width, lines, units, four * sixteens + channel / 16, channel % 16 * 4 + token % 4};
}

/// The byte of a plane of some width that has bits of a code, and where in it they begin.
static size_t plane_byte(code_place at, unsigned width, unsigned *shift) {
  size_t bits = at.unit * width;
  *shift = (unsigned)(bits % 8);
  return at.lines + bits / 8 * TCK_LINE_BYTES + at.byte;
}

static unsigned plane_bits(const uint8_t *plane, code_place at, unsigned width) {
  unsigned shift;
  size_t byte = plane_byte(at, width, &shift);
  return plane[byte] >> shift & ((1u << width) - 1);
}

static void set_plane_bits(uint8_t *plane, code_place at, unsigned width, unsigned bits) {
  unsigned shift;
  size_t byte = plane_byte(at, width, &shift);
  plane[byte] |= (uint8_t)((bits & ((1u << width) - 1)) << shift);
}

static uint8_t code_at(const uint8_t *codes, code_place at) {
  unsigned first = tck_first_plane_width(at.width), second = at.width - first;
  unsigned code = plane_bits(codes, at, first);
  if (second > 0) code |= plane_bits(codes + tck_plane_bytes(at.units, first), at, second) << first;
  return (uint8_t)code;
}

/// Sets a code that is zero so far.
static void set_code(uint8_t *codes, code_place at, unsigned code) {
  unsigned first = tck_first_plane_width(at.width), second = at.width - first;
  set_plane_bits(codes, at, first, code);
  if (second > 0) set_plane_bits(codes + tck_plane_bytes(at.units, first), at, second, code >> first);
}

// MARK: - Quantization

/// The least and greatest number so far.
typedef struct number_range {
  float minimum, maximum;
} number_range;

static bool widen_range(number_range *range, float value) {
  if (value < range->minimum) range->minimum = value;
  if (value > range->maximum) range->maximum = value;
  return tck_is_quantizable(value);
}

static void store_range(number_range range, size_t index, float *minima, float *maxima) {
  // Which zero a minimum or maximum is would depend on the order of comparison.
  minima[index] = range.minimum + 0.0f;
  maxima[index] = range.maximum + 0.0f;
}

static bool key_ranges(tck_rows source, size_t tokens, tck_channels channels, size_t head_dimension, float *minima,
                       float *maxima) {
  (void)head_dimension;
  for (size_t i = 0; i < channels.count; i++) {
    number_range range = {INFINITY, -INFINITY};
    for (size_t token = 0; token < tokens; token++) {
      if (!widen_range(&range, tck_load(source.type, row(source, token), channels.indices[i]))) return false;
    }
    store_range(range, i, minima, maxima);
  }
  for (size_t i = channels.count; i < tck_padded_channels(channels.count); i++) minima[i] = maxima[i] = 0;
  return true;
}

static bool value_ranges(tck_rows source, size_t tokens, size_t head_dimension, size_t group, float *minima,
                         float *maxima) {
  size_t groups = tck_value_groups(head_dimension, group);
  for (size_t token = 0; token < tokens; token++) {
    for (size_t g = 0; g < groups; g++) {
      number_range range = {INFINITY, -INFINITY};
      size_t end = (g + 1) * group < head_dimension ? (g + 1) * group : head_dimension;
      for (size_t channel = g * group; channel < end; channel++) {
        if (!widen_range(&range, tck_load(source.type, row(source, token), channel))) return false;
      }
      store_range(range, tck_value_group_index(token, g, groups), minima, maxima);
    }
  }
  return true;
}

static float inverse(float scale) { return scale > 0 ? 1.0f / scale : 0; }

/// Formats/kivi.md, "Compact scales".
static void encode_compact_scale(float scale, float middle, uint8_t *scale_byte, int8_t *sixteenths) {
  const float most = TCK_COMPACT_MOST_SIXTEENTHS;
  float reach = fabsf(middle) * (16 / most);
  uint8_t byte = tck_compact_scale_byte(scale > reach ? scale : reach);
  if (fabsf(middle) * 16 > most * tck_compact_scale(byte) && byte > 0 && byte < 255) byte++;
  float rounded = rintf(middle * inverse(tck_compact_scale(byte)) * 16);
  *scale_byte = byte;
  *sixteenths = (int8_t)(rounded < -most ? -most : rounded > most ? most : rounded);
}

/// Formats/kivi.md, "Quantizing a group".
static tck_quantizer encode_group(tck_coding coding, float minimum, float maximum, void *scales, void *minima,
                                  size_t index) {
  float scale = (maximum - minimum) / (float)((1u << coding.width) - 1);
  switch (coding.scales) {
    case TCK_FLOAT16_SCALES:
      tck_store(TCK_FLOAT16, scales, index, scale);
      tck_store(TCK_FLOAT16, minima, index, minimum);
      break;
    case TCK_COMPACT_SCALES:
      encode_compact_scale(scale, (minimum + maximum) / 2, (uint8_t *)scales + index, (int8_t *)minima + index);
      break;
  }
  return tck_stored_quantizer(coding, scales, minima, index);
}

/// Formats/kivi.md, "Fitted ranges".
static number_range fit_range(tck_coding coding, tck_element_type type, const void *numbers, size_t count,
                              number_range range) {
  const candidates tried = candidates_of(coding.width);
  const float middle = (range.minimum + range.maximum) / 2, half = (range.maximum - range.minimum) / 2;
  const float unit = UNITS_OF_HALF / half;
  int32_t units[MOST_FITTED_NUMBERS], least = INT32_MAX;
  for (size_t i = 0; i < count; i++) {
    float rounded = isfinite(unit) ? rintf((tck_load(type, numbers, i) - middle) * unit) : 0;
    units[i] = (int32_t)fmaxf(-UNITS_OF_HALF, fminf(rounded, UNITS_OF_HALF));
  }
  number_range best = range;
  for (size_t candidate = 0; candidate < tried.count; candidate++) {
    number_range narrowed = range;
    if (tried.factors[candidate] != 1) {
      float reach = tried.factors[candidate] * half;
      narrowed = (number_range){middle - reach, middle + reach};
    }
    uint16_t scale, minimum;  // Room for any kind.
    tck_quantizer stored = encode_group(coding, narrowed.minimum, narrowed.maximum, &scale, &minimum, 0);
    float centre = stored.minimum + stored.scale * tck_code_centre(coding.width);
    fitted_codes codes = round_codes((centre - middle) * unit, stored.scale * unit / 2, coding.width);
    int32_t error = codes.is_passed_over ? INT32_MAX : 0;
    for (size_t i = 0; i < count && !codes.is_passed_over; i++) {
      int32_t away = abs(units[i] - (int32_t)codes.centre);
      for (unsigned bit = coding.width; bit > 0; bit--) away = abs(away - (int32_t)codes.half_step * (1 << (bit - 1)));
      error += away * away;
    }
    if (candidate > 0 && error >= least) continue;
    least = error;
    best = narrowed;
  }
  return best;
}

static void fit_ranges(tck_coding coding, tck_rows groups, size_t count, size_t group_count, float *minima,
                       float *maxima) {
  for (size_t i = 0; i < group_count; i++) {
    number_range range = {minima[i], maxima[i]};
    range = fit_range(coding, groups.type, row(groups, i), count, range);
    minima[i] = range.minimum;
    maxima[i] = range.maximum;
  }
}

static void encode_scales(tck_coding coding, size_t groups, const float *minima, const float *maxima,
                          tck_quantizers quantizers) {
  for (size_t i = 0; i < groups; i++) {
    tck_quantizer group = encode_group(coding, minima[i], maxima[i], quantizers.scales, quantizers.minima, i);
    quantizers.minimum_values[i] = group.minimum;
    quantizers.inverse_scales[i] = inverse(group.scale);
  }
}

static uint8_t quantize(float value, float minimum, float inverse_scale, unsigned width) {
  float code = rintf((value - minimum) * inverse_scale);
  float highest = (float)((1u << width) - 1);
  return (uint8_t)(code < 0 ? 0 : code > highest ? highest : code);
}

static void pack_keys(tck_rows source, size_t tokens, tck_channels channels, size_t head_dimension, unsigned width,
                      const float *minima, const float *inverse_scales, uint8_t *codes) {
  (void)head_dimension;
  memset(codes, 0, tck_key_code_bytes(tokens, channels.count, width));
  for (size_t i = 0; i < channels.count; i++) {
    for (size_t token = 0; token < tokens; token++) {
      float value = tck_load(source.type, row(source, token), channels.indices[i]);
      set_code(codes, key_place(token, i, channels.count, width),
               quantize(value, minima[i], inverse_scales[i], width));
    }
  }
}

static void pack_values(tck_rows source, size_t tokens, size_t head_dimension, size_t group, unsigned width,
                        const float *minima, const float *inverse_scales, uint8_t *codes) {
  size_t groups = tck_value_groups(head_dimension, group);
  memset(codes, 0, tck_value_code_bytes(tokens, head_dimension, width));
  for (size_t token = 0; token < tokens; token++) {
    for (size_t channel = 0; channel < head_dimension; channel++) {
      float value = tck_load(source.type, row(source, token), channel);
      size_t at = tck_value_group_index(token, channel / group, groups);
      set_code(codes, value_place(token, channel, head_dimension, width),
               quantize(value, minima[at], inverse_scales[at], width));
    }
  }
}

static void unpack_keys(tck_packed source, size_t tokens, tck_channels channels, size_t head_dimension,
                        tck_coding coding, tck_mutable_rows destination) {
  (void)head_dimension;
  for (size_t i = 0; i < channels.count; i++) {
    tck_quantizer group = tck_stored_quantizer(coding, source.scales, source.minima, i);
    for (size_t token = 0; token < tokens; token++) {
      uint8_t code = code_at(source.codes, key_place(token, i, channels.count, coding.width));
      tck_store(destination.type, mutable_row(destination, token), channels.indices[i],
                tck_dequantize(code, group));
    }
  }
}

static void unpack_values(tck_packed source, size_t tokens, size_t head_dimension, size_t group, tck_coding coding,
                          tck_mutable_rows destination) {
  size_t groups = tck_value_groups(head_dimension, group);
  for (size_t token = 0; token < tokens; token++) {
    for (size_t channel = 0; channel < head_dimension; channel++) {
      size_t at = tck_value_group_index(token, channel / group, groups);
      uint8_t code = code_at(source.codes, value_place(token, channel, head_dimension, coding.width));
      tck_store(destination.type, mutable_row(destination, token), channel,
                tck_dequantize(code, tck_stored_quantizer(coding, source.scales, source.minima, at)));
    }
  }
}

// MARK: - Full precision

static void pack_full_keys(tck_rows source, size_t tokens, tck_channels channels, void *destination) {
  size_t size = tck_element_bytes(source.type);
  for (size_t i = 0; i < channels.count; i++) {
    for (size_t token = 0; token < tokens; token++) {
      memcpy((char *)destination + (i * tokens + token) * size,
             (const char *)row(source, token) + channels.indices[i] * size, size);
    }
  }
}

static void unpack_full_keys(tck_element_type type, const void *source, size_t tokens, tck_channels channels,
                             tck_mutable_rows destination) {
  size_t size = tck_element_bytes(type);
  for (size_t i = 0; i < channels.count; i++) {
    for (size_t token = 0; token < tokens; token++) {
      void *to = mutable_row(destination, token);
      size_t from = i * tokens + token;
      if (type == destination.type) {  // Bit for bit, NaN payloads too.
        memcpy((char *)to + channels.indices[i] * size, (const char *)source + from * size, size);
      } else {
        tck_store(destination.type, to, channels.indices[i], tck_load(type, source, from));
      }
    }
  }
}

// MARK: - Attention

/// Adds a run's part to the scores of a block's tokens.
static void add_run_scores(const tck_block_format *format, const tck_key_run *run, const uint8_t *block,
                           const float *query, float *scores) {
  for (size_t i = 0; i < run->count; i++) {
    for (size_t token = 0; token < format->tokens; token++) {
      float key;
      if (run->coding.width == 0) {
        key = tck_load(format->full_type, block + run->codes, i * format->tokens + token);
      } else {
        code_place at = key_place(token, i, run->count, run->coding.width);
        key = tck_dequantize(code_at(block + run->codes, at),
                             tck_stored_quantizer(run->coding, block + run->scales, block + run->minima, i));
      }
      scores[token] += query[i] * key;
    }
  }
}

/// One of a block's values.
static float block_value(const tck_block_format *format, const uint8_t *block, size_t token, size_t channel) {
  tck_coding coding = format->value_coding;
  if (coding.width == 0) {
    return tck_load(format->full_type, block + format->value_codes, token * format->value_dimension + channel);
  }
  size_t groups = tck_value_groups(format->value_dimension, format->value_group);
  size_t at = tck_value_group_index(token, channel / format->value_group, groups);
  code_place place = value_place(token, channel, format->value_dimension, coding.width);
  return tck_dequantize(code_at(block + format->value_codes, place),
                        tck_stored_quantizer(coding, block + format->value_scales, block + format->value_minima, at));
}

/// One of a block's components of values, of all runs.
static float block_component(const tck_block_format *format, const uint8_t *block, size_t token, size_t index) {
  const tck_key_run *run = format->value_runs;
  for (; index >= run->count; run++) index -= run->count;
  code_place place = component_place(token, index, run->count, run->coding.width);
  return tck_dequantize(code_at(block + run->codes, place),
                        tck_stored_quantizer(run->coding, block + run->scales, block + run->minima, index));
}

/// Turns a query's scores into powers relative to the tile's maximum, joins the sums, and scales the earlier output.
///
/// Returns by how much the tile's part is to be scaled; nothing is to be added where that is 0.
static float exponentiate(tck_queries *queries, size_t row, size_t tokens, size_t value_dimension, float *scores) {
  size_t first = queries->visible[row].first;
  size_t end = queries->visible[row].end < tokens ? queries->visible[row].end : tokens;
  float maximum = -INFINITY, sum = 0;
  for (size_t token = 0; token < tokens; token++) {
    if (queries->soft_cap > 0) {
      // The cap is in units of log2 too, so that the quotient is as it would be without.
      scores[token] = queries->soft_cap * tanhf(scores[token] / queries->soft_cap);
    }
    if (token < first || token >= end) scores[token] = -INFINITY;
    if (scores[token] > maximum) maximum = scores[token];
  }
  if (first >= end) {
    memset(scores, 0, tokens * sizeof *scores);
    return 0;
  }
  for (size_t token = 0; token < tokens; token++) {
    scores[token] = exp2f(scores[token] - maximum);
    sum += scores[token];
  }
  float common = queries->maxima[row] > maximum ? queries->maxima[row] : maximum;
  float old_factor = exp2f(queries->maxima[row] - common), tile_factor = exp2f(maximum - common);
  queries->maxima[row] = common;
  queries->sums[row] = queries->sums[row] * old_factor + sum * tile_factor;
  float *output = queries->outputs + row * tck_padded_dimension(value_dimension);
  for (size_t channel = 0; channel < value_dimension; channel++) output[channel] *= old_factor;
  return tile_factor;
}

static void attend_blocks(const tck_block_format *format, const void *blocks, size_t block_count, tck_queries *queries,
                          const void *next, size_t next_byte_count) {
  (void)next, (void)next_byte_count;
  size_t dimension = tck_padded_dimension(format->value_dimension), kept = tck_kept_dimension(format);
  size_t tokens = block_count * format->tokens;
  for (size_t row = 0; row < queries->count; row++) {
    float scores[TCK_PAGE_TOKENS];
    for (size_t token = 0; token < tokens; token++) scores[token] = queries->offsets[row];
    for (size_t block = 0; block < block_count; block++) {
      const float *query = queries->kept_rows + row * kept;
      for (size_t run = 0; run < format->key_run_count; run++) {
        add_run_scores(format, &format->key_runs[run], (const uint8_t *)blocks + block * format->byte_count, query,
                       scores + block * format->tokens);
        query += tck_padded_dimension(format->key_runs[run].count);
      }
    }
    float factor = exponentiate(queries, row, tokens, format->value_dimension, scores);
    if (factor == 0) continue;
    for (size_t channel = 0; channel < format->value_dimension; channel++) {
      float sum = 0;
      for (size_t token = 0; token < tokens; token++) {
        const uint8_t *block = (const uint8_t *)blocks + token / format->tokens * format->byte_count;
        sum += scores[token] * (format->value_run_count > 0
                                    ? block_component(format, block, token % format->tokens, channel)
                                    : block_value(format, block, token % format->tokens, channel));
      }
      queries->outputs[row * dimension + channel] += sum * factor;
    }
  }
}

static void join_scores(float *scores, size_t tokens, size_t value_dimension, tck_queries *queries) {
  for (size_t row = 0; row < queries->count; row++) {
    float factor = exponentiate(queries, row, tokens, value_dimension, scores + row * TCK_PAGE_TOKENS);
    for (size_t token = 0; token < tokens; token++) scores[row * TCK_PAGE_TOKENS + token] *= factor;
  }
}

static void attend_rows(tck_rows keys, tck_rows values, size_t tokens, size_t key_dimension, size_t value_dimension,
                        tck_queries *queries) {
  for (size_t query = 0; query < queries->count; query++) {
    const float *numbers = queries->rows + query * tck_padded_dimension(key_dimension);
    float *output = queries->outputs + query * tck_padded_dimension(value_dimension);
    float scores[TCK_PAGE_TOKENS];
    for (size_t token = 0; token < tokens; token++) {
      scores[token] = 0;
      for (size_t channel = 0; channel < key_dimension; channel++) {
        scores[token] += numbers[channel] * tck_load(keys.type, row(keys, token), channel);
      }
    }
    float factor = exponentiate(queries, query, tokens, value_dimension, scores);
    if (factor == 0) continue;
    for (size_t channel = 0; channel < value_dimension; channel++) {
      float sum = 0;
      for (size_t token = 0; token < tokens; token++) {
        sum += scores[token] * tck_load(values.type, row(values, token), channel);
      }
      output[channel] += sum * factor;
    }
  }
}

// MARK: - Bases

static void project_rows(const int8_t *matrix, size_t components, size_t channels, const float *rows,
                         size_t row_stride, size_t count, float *outputs, size_t output_stride) {
  for (size_t r = 0; r < count; r++) {
    for (size_t k = 0; k < components; k++) {
      float sum = 0;
      for (size_t c = 0; c < channels; c++) sum += (float)matrix[k * channels + c] * rows[r * row_stride + c];
      outputs[r * output_stride + k] = sum;
    }
  }
}

static void expand_rows(const int8_t *matrix, size_t components, size_t channels, const float *rows, size_t row_stride,
                        size_t count, float *outputs, size_t output_stride) {
  for (size_t r = 0; r < count; r++) {
    for (size_t c = 0; c < channels; c++) {
      float sum = 0;
      for (size_t k = 0; k < components; k++) sum += rows[r * row_stride + k] * (float)matrix[k * channels + c];
      outputs[r * output_stride + c] = sum;
    }
  }
}

// MARK: - Weights

static void widen_weights(tck_weight_type type, const void *source, size_t count, float *destination) {
  tck_weight_block block = tck_weight_block_of(type);
  for (size_t i = 0; i < count / block.length; i++) {
    tck_widen_block(type, (const char *)source + i * block.bytes, destination + i * block.length);
  }
}

static void multiply_rows(tck_weights matrix, size_t rows, size_t columns, const float *vector, float *outputs) {
  tck_weight_block block = tck_weight_block_of(matrix.type);
  for (size_t r = 0; r < rows; r++) {
    const char *next = (const char *)matrix.bytes + r * matrix.row_stride;
    float sum = 0;
    for (size_t column = 0; column < columns; column += block.length, next += block.bytes) {
      float numbers[MOST_BLOCK_WEIGHTS];
      tck_widen_block(matrix.type, next, numbers);
      for (size_t i = 0; i < block.length; i++) sum += numbers[i] * vector[column + i];
    }
    outputs[r] = sum;
  }
}

// MARK: - Checksum

static uint32_t crc32c(uint32_t crc, const void *bytes, size_t count) {
  // Four bits at a time: the remainders of 0...15 by the reflected polynomial 0x82F63B78.
  static const uint32_t remainders[16] = {
      0x00000000, 0x105EC76F, 0x20BD8EDE, 0x30E349B1, 0x417B1DBC, 0x5125DAD3, 0x61C69362, 0x7198540D,
      0x82F63B78, 0x92A8FC17, 0xA24BB5A6, 0xB21572C9, 0xC38D26C4, 0xD3D3E1AB, 0xE330A81A, 0xF36E6F75,
  };
  const uint8_t *next = bytes;
  crc = ~crc;
  for (size_t i = 0; i < count; i++) {
    crc ^= next[i];
    crc = crc >> 4 ^ remainders[crc & 15];
    crc = crc >> 4 ^ remainders[crc & 15];
  }
  return ~crc;
}

// MARK: - Gates

static void multiply_gates(tck_activation activation, float *gates, const float *ups, size_t count) {
  for (size_t i = 0; i < count; i++) {
    float gate = gates[i], bent = gate;
    if (activation == TCK_GELU) bent = 1.59576912f * (gate + 0.044715f * gate * gate * gate);
    gates[i] = gate / (1 + expf(-bent)) * ups[i];
  }
}

const tck_kernels tck_scalar_kernels = {
    .name = "scalar",
    .product_rows = {8, 8, 8},
    .widen = widen,
    .narrow = narrow,
    .add_channel_sums = add_channel_sums,
    .subtract_means = subtract_means,
    .add_means = add_means,
    .rotate_rows = rotate_rows,
    .key_ranges = key_ranges,
    .value_ranges = value_ranges,
    .fit_ranges = fit_ranges,
    .encode_scales = encode_scales,
    .pack_keys = pack_keys,
    .pack_values = pack_values,
    .unpack_keys = unpack_keys,
    .unpack_values = unpack_values,
    .pack_full_keys = pack_full_keys,
    .unpack_full_keys = unpack_full_keys,
    .attend_blocks = attend_blocks,
    .attend_rows = attend_rows,
    .project_rows = project_rows,
    .expand_rows = expand_rows,
    .join_scores = join_scores,
    .multiply_gates = multiply_gates,
    .widen_weights = widen_weights,
    .multiply_rows = multiply_rows,
    .crc32c = crc32c,
    TCK_ARCHIVE_TABLE(tck_scalar_),
};

// Compares attention with the scalar kernels' on random normal keys and values, within the bounds of precise and fast
// mode.

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { MOST_DIMENSION = 256, MOST_KEPT = MOST_DIMENSION + 16 * TCK_MAX_KEY_RUNS };

/// Relative L2 errors of a query's output that are allowed: in full precision, precise and fast mode.
typedef enum mode { FULL, PRECISE, FAST, MODES } mode;
static const double limits[MODES] = {1e-5, 5e-4, 3.5e-2};
static double largest[MODES];

static float random_normal(void) {
  double radius = sqrt(-2 * log((random_bits() + 1.0) / 4294967297.0));
  return (float)(radius * cos(6.283185307179586 * random_bits() / 4294967296.0));
}

/// Up to two runs of key channels; width 0 is full precision.
typedef struct key_widths {
  unsigned first, second;
} key_widths;

static const key_widths all_key_widths[] = {{1, 1}, {2, 2}, {3, 3}, {4, 4}, {5, 5},
                                            {8, 8}, {0, 0}, {2, 4}, {2, 0}, {5, 3}};

static size_t aligned(size_t count) { return (count + TCK_LINE_BYTES - 1) / TCK_LINE_BYTES * TCK_LINE_BYTES; }

/// Of a width, with scales of either kind.
static tck_coding random_coding(unsigned width) {
  tck_coding coding = {(uint8_t)width, TCK_NO_SCALES, TCK_LEAST_TO_GREATEST, TCK_NO_ROTATION};
  if (width > 0) coding.scales = random_bits() & 1 ? TCK_COMPACT_SCALES : TCK_FLOAT16_SCALES;
  return coding;
}

/// The dimensions of heads.
typedef struct dimensions {
  size_t keys, values;
} dimensions;

/// The format of blocks with a run of `first` channels and one of `second`, which may be 0.
static tck_block_format make_format(size_t tokens, dimensions dimension, tck_element_type type, key_widths widths,
                                    size_t first, size_t second, unsigned value_width) {
  tck_block_plan plan = {
      .tokens = tokens,
      .key_dimension = dimension.keys,
      .value_dimension = dimension.values,
      .full_type = type,
      .key_run_count = second > 0 ? 2 : 1,
      .key_runs = {{first, random_coding(widths.first)}, {second, random_coding(widths.second)}},
      .values = random_coding(value_width),
  };
  return tck_layout(&plan);
}

static void pack_block(const tck_block_format *format, const uint16_t *indices, const float *keys,
                       const float *values, uint8_t *block) {
  tck_element_type type = format->full_type;
  size_t key_count = format->tokens * format->key_dimension, value_count = format->tokens * format->value_dimension;
  uint8_t *key_rows = malloc(key_count * sizeof(float)), *value_rows = malloc(value_count * sizeof(float));
  scalar->narrow(type, keys, key_count, key_rows);
  scalar->narrow(type, values, value_count, value_rows);
  // Means have no part in what attention reads.
  static const float means[TCK_MAX_HEAD_DIMENSION];
  tck_centering centering = {means, means, malloc(tck_packing_floats(format) * sizeof(float))};
  tck_pack_block(scalar, format, indices, (tck_rows){key_rows, format->key_dimension * tck_element_bytes(type), type},
                 (tck_rows){value_rows, format->value_dimension * tck_element_bytes(type), type}, centering, block);
  free(centering.workspace);
  free(key_rows);
  free(value_rows);
}

/// Queries with memory of their own.
typedef struct query_state {
  tck_queries queries;
  float rows[TCK_QUERY_ROWS * MOST_DIMENSION], kept_rows[TCK_QUERY_ROWS * MOST_KEPT];
  float offsets[TCK_QUERY_ROWS];
  tck_token_range visible[TCK_QUERY_ROWS];
  float maxima[TCK_QUERY_ROWS], sums[TCK_QUERY_ROWS], outputs[TCK_QUERY_ROWS * MOST_DIMENSION];
} query_state;

/// Random queries whose scores have a standard deviation of 1.5.
static void make_queries(query_state *state, const tck_block_format *format, const uint16_t *indices, size_t tokens) {
  size_t dimension = tck_padded_dimension(format->key_dimension), kept = tck_kept_dimension(format);
  memset(state, 0, sizeof *state);
  state->queries.count = 1 + random_bits() % TCK_QUERY_ROWS;
  if (random_bits() % 3 == 0) state->queries.soft_cap = 3;
  for (size_t row = 0; row < TCK_QUERY_ROWS; row++) {
    state->maxima[row] = -INFINITY;
    if (row >= state->queries.count) continue;
    float *full = state->rows + row * dimension;
    for (size_t i = 0; i < format->key_dimension; i++) {
      full[i] = random_normal() * 1.5f / sqrtf((float)format->key_dimension);
    }
    const uint16_t *channel = indices;
    float *to = state->kept_rows + row * kept;
    for (size_t run = 0; run < format->key_run_count; run++) {
      size_t count = format->key_runs[run].count;
      for (size_t i = 0; i < count; i++) to[i] = full[*channel++];
      to += tck_padded_dimension(count);
    }
    state->offsets[row] = random_normal();
    tck_token_range *visible = &state->visible[row];
    *visible = (tck_token_range){0, tokens};
    uint32_t kind = random_bits() % 8;
    if (kind == 0) visible->first = random_bits() % tokens;
    if (kind == 1) visible->end = random_bits() % tokens;
    if (kind == 2) visible->end = visible->first = random_bits() % tokens;
    if (kind == 3) *visible = (tck_token_range){tokens / 3, tokens / 3 + 1};
  }
}

/// Points a copy's members into itself.
static tck_queries *ready(query_state *state, void *workspace, bool is_precise) {
  tck_queries *queries = &state->queries;
  queries->rows = state->rows;
  queries->kept_rows = state->kept_rows;
  queries->offsets = state->offsets;
  queries->visible = state->visible;
  queries->is_precise = is_precise;
  queries->maxima = state->maxima;
  queries->sums = state->sums;
  queries->outputs = state->outputs;
  queries->workspace = workspace;
  return queries;
}

/// Checks each query's output, divided by its sum, against scalar's.
static void check_outputs(const char *kernel, const query_state *expected, const query_state *actual, mode kind,
                          const tck_block_format *format, const char *what) {
  size_t dimension = tck_padded_dimension(format->value_dimension);
  for (size_t row = 0; row < expected->queries.count; row++) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < format->value_dimension; i++) {
      double reference = expected->outputs[row * dimension + i] / expected->sums[row];
      double difference = actual->outputs[row * dimension + i] / actual->sums[row] - reference;
      error += difference * difference;
      norm += reference * reference;
    }
    if (expected->visible[row].first >= expected->visible[row].end) {
      const float *output = actual->outputs + row * dimension;
      bool untouched = actual->sums[row] == 0 && actual->maxima[row] == -INFINITY;
      for (size_t i = 0; i < format->value_dimension; i++) untouched = untouched && output[i] == 0;
      expect(untouched, kernel, "touched where nothing is seen", format->value_dimension, format->tokens, row, kind);
      continue;
    }
    double relative = norm > 0 ? sqrt(error / norm) : sqrt(error);
    if (!(relative <= largest[kind])) largest[kind] = relative;
    expect(relative <= limits[kind], kernel, what, format->value_dimension, format->tokens,
           expected->visible[row].end - expected->visible[row].first, (size_t)(relative * 1e6));
  }
}

static void compare_tile(dimensions dimension, size_t tokens, tck_element_type type, key_widths widths,
                         unsigned value_width) {
  static float keys[TCK_PAGE_TOKENS * MOST_DIMENSION], values[TCK_PAGE_TOKENS * MOST_DIMENSION];
  static query_state start, states[2];
  uint16_t indices[TCK_MAX_HEAD_DIMENSION];
  size_t block_count = 1 + random_bits() % (TCK_PAGE_TOKENS / tokens);
  size_t count = block_count * tokens;
  size_t first = 1 + random_bits() % dimension.keys;
  if (random_bits() % 2) first = dimension.keys;
  size_t second = first < dimension.keys ? 1 + random_bits() % (dimension.keys - first) : 0;
  if (widths.first != widths.second && dimension.keys > 1 && second == 0) {
    first = dimension.keys / 2;
    second = dimension.keys - first;
  }
  choose(indices, dimension.keys, dimension.keys);
  for (size_t i = 0; i < count * dimension.keys; i++) keys[i] = random_normal();
  // With few channels an output may by chance be near zero, and any error large beside it.
  for (size_t i = 0; i < count * dimension.values; i++) {
    values[i] = random_normal() + (dimension.values <= 16 ? 2 : 0);
  }
  tck_block_format format = make_format(tokens, dimension, type, widths, first, second, value_width);
  uint8_t *blocks = malloc(block_count * format.byte_count);
  memset(blocks, 0, block_count * format.byte_count);
  for (size_t i = 0; i < block_count; i++) {
    pack_block(&format, indices, keys + i * tokens * dimension.keys, values + i * tokens * dimension.values,
               blocks + i * format.byte_count);
  }
  void *workspace = aligned_alloc(64, aligned(tck_attention_workspace_bytes(dimension.keys, dimension.values)));

  make_queries(&start, &format, indices, count);
  bool is_full = widths.first == 0 && (second == 0 || widths.second == 0) && value_width == 0;
  states[0] = start;
  scalar->attend_blocks(&format, blocks, block_count, ready(&states[0], workspace, true), NULL, 0);
  for (mode kind = PRECISE; kind <= FAST; kind++) {
    states[1] = start;
    other->attend_blocks(&format, blocks, block_count, ready(&states[1], workspace, kind == PRECISE), blocks,
                         block_count * format.byte_count);
    check_outputs("attend_blocks", &states[0], &states[1], is_full ? FULL : kind, &format,
                  kind == PRECISE ? "precise" : "fast");
  }

  size_t key_stride = dimension.keys * tck_element_bytes(type), row_count = random_bits() % (count + 1);
  size_t value_stride = dimension.values * tck_element_bytes(type);
  uint8_t *key_rows = malloc(key_stride * count), *value_rows = malloc(value_stride * count);
  scalar->narrow(type, keys, count * dimension.keys, key_rows);
  scalar->narrow(type, values, count * dimension.values, value_rows);
  for (size_t row = 0; row < TCK_QUERY_ROWS; row++) {
    if (start.visible[row].end > row_count) start.visible[row] = (tck_token_range){0, row_count};
  }
  for (size_t set = 0; set < 2; set++) {
    states[set] = start;
    (set ? other : scalar)
        ->attend_rows((tck_rows){key_rows, key_stride, type}, (tck_rows){value_rows, value_stride, type}, row_count,
                      dimension.keys, dimension.values, ready(&states[set], workspace, true));
  }
  check_outputs("attend_rows", &states[0], &states[1], FULL, &format, "rows");
  free(key_rows);
  free(value_rows);
  free(blocks);
  free(workspace);
}

/// Up to four runs of different widths, of at most `dimension` components in all; returns how many.
static size_t random_runs(tck_coded_channels runs[TCK_MAX_KEY_RUNS], size_t dimension, size_t *total) {
  static const unsigned widths[] = {1, 2, 3, 4, 5, 8};
  size_t first = random_bits() % 6, count = 0;
  *total = 0;
  while (count < TCK_MAX_KEY_RUNS && *total < dimension) {
    size_t components = 1 + random_bits() % (dimension - *total);
    if (random_bits() % 2 == 0 && components > 3) components = components / 4 * 4;
    runs[count] = (tck_coded_channels){components, random_coding(widths[(first + count) % 6])};
    *total += components;
    count++;
  }
  return count;
}

/// Attention over blocks whose keys and values are components, those of values from large to small.
static void compare_component_tile(size_t dimension, size_t tokens) {
  static float keys[TCK_PAGE_TOKENS * MOST_DIMENSION], values[TCK_PAGE_TOKENS * MOST_DIMENSION];
  static query_state start, states[2];
  uint16_t indices[TCK_MAX_HEAD_DIMENSION];
  for (size_t i = 0; i < dimension; i++) indices[i] = (uint16_t)i;
  size_t block_count = 1 + random_bits() % (TCK_PAGE_TOKENS / tokens), count = block_count * tokens;
  tck_block_plan plan = {.tokens = tokens, .full_type = TCK_FLOAT16};
  plan.key_run_count = random_runs(plan.key_runs, dimension, &plan.key_dimension);
  plan.value_run_count = random_runs(plan.value_runs, dimension, &plan.value_dimension);
  tck_block_format format = tck_layout(&plan);
  for (size_t i = 0; i < count * plan.key_dimension; i++) keys[i] = random_normal();
  for (size_t i = 0; i < count * plan.value_dimension; i++) {
    values[i] = (random_normal() + (plan.value_dimension <= 16 ? 2 : 0)) / (1 + (float)(i % plan.value_dimension) / 8);
  }
  uint8_t *blocks = calloc(block_count, format.byte_count);
  float *restored = malloc(tokens * plan.value_dimension * sizeof(float));
  float *expected = malloc(tokens * plan.value_dimension * sizeof(float));
  void *bytes = malloc(tck_unpacking_bytes(&format) + 1);
  for (size_t i = 0; i < block_count; i++) {
    tck_rows block_keys = {keys + i * tokens * plan.key_dimension, plan.key_dimension * sizeof(float), TCK_FLOAT32};
    tck_rows block_values = {values + i * tokens * plan.value_dimension, plan.value_dimension * sizeof(float),
                             TCK_FLOAT32};
    uint8_t *block = blocks + i * format.byte_count, *again = calloc(1, format.byte_count);
    bool is_packed = tck_pack_components(scalar, &format, block_keys, block_values, block);
    tck_pack_components(other, &format, block_keys, block_values, again);
    expect(is_packed && memcmp(block, again, format.byte_count) == 0, "pack_components", "bytes", tokens,
           plan.key_dimension, plan.value_dimension, i);
    free(again);
    tck_unpack_components(scalar, &format, true, block, bytes, expected, plan.value_dimension);
    tck_unpack_components(other, &format, true, block, bytes, restored, plan.value_dimension);
    expect(memcmp(expected, restored, tokens * plan.value_dimension * sizeof(float)) == 0, "unpack_components", "rows",
           tokens, plan.key_dimension, plan.value_dimension, i);
  }
  void *workspace = aligned_alloc(64, aligned(tck_attention_workspace_bytes(dimension, dimension)));
  make_queries(&start, &format, indices, count);
  states[0] = start;
  scalar->attend_blocks(&format, blocks, block_count, ready(&states[0], workspace, true), NULL, 0);
  for (mode kind = PRECISE; kind <= FAST; kind++) {
    states[1] = start;
    other->attend_blocks(&format, blocks, block_count, ready(&states[1], workspace, kind == PRECISE), blocks,
                         block_count * format.byte_count);
    check_outputs("attend_blocks", &states[0], &states[1], kind, &format,
                  kind == PRECISE ? "precise components" : "fast components");
  }
  free(workspace);
  free(bytes);
  free(expected);
  free(restored);
  free(blocks);
}

/// Products of queries and bases, within what fusing and other orders change.
static void compare_bases(size_t inputs, size_t outputs, size_t count) {
  static float rows[8 * TCK_MAX_HEAD_DIMENSION], results[2][8 * TCK_MAX_HEAD_DIMENSION];
  const size_t channels = tck_padded_dimension(inputs);
  int8_t *basis = malloc(outputs * channels);
  for (size_t i = 0; i < outputs * channels; i++) basis[i] = i % channels < inputs ? (int8_t)random_bits() : 0;
  for (size_t i = 0; i < 8 * TCK_MAX_HEAD_DIMENSION; i++) rows[i] = random_normal();
  for (size_t kernel = 0; kernel < 2; kernel++) {
    const size_t terms = kernel == 0 ? channels : outputs, width = kernel == 0 ? outputs : channels;
    for (size_t set = 0; set < 2; set++) {
      const tck_kernels *kernels = set ? other : scalar;
      (kernel == 0 ? kernels->project_rows : kernels->expand_rows)(basis, outputs, channels, rows, TCK_MAX_HEAD_DIMENSION,
                                                                    count, results[set], TCK_MAX_HEAD_DIMENSION);
    }
    for (size_t r = 0; r < count; r++) {
      for (size_t i = 0; i < width; i++) {
        size_t at = r * TCK_MAX_HEAD_DIMENSION + i;
        double most = 128 * 5 * (double)terms * (double)terms * 0x1p-24;
        expect(fabs((double)results[0][at] - results[1][at]) <= most, kernel == 0 ? "project_rows" : "expand_rows",
               "numbers", inputs, outputs, r, i);
      }
    }
  }
  free(basis);
}

void compare_attention(void) {
  static const dimensions sizes[] = {{1, 1},   {7, 7},   {16, 16},   {40, 40},   {64, 64},   {80, 80},
                                     {96, 96}, {128, 128}, {256, 256}, {192, 128}, {64, 80}, {40, 24}};
  static const unsigned value_widths[] = {1, 2, 3, 4, 5, 8, 0};
  memset(largest, 0, sizeof largest);
  for (size_t d = 0; d < sizeof sizes / sizeof *sizes; d++) {
    for (size_t tokens = 32; tokens <= TCK_MAX_BLOCK_TOKENS; tokens *= 2) {
      for (size_t k = 0; k < sizeof all_key_widths / sizeof *all_key_widths; k++) {
        for (size_t v = 0; v < sizeof value_widths / sizeof *value_widths; v++) {
          tck_element_type type = (tck_element_type)(TCK_FLOAT16 + random_bits() % 3);
          compare_tile(sizes[d], tokens, type, all_key_widths[k], value_widths[v]);
        }
      }
    }
  }
  static const size_t component_sizes[] = {1, 5, 16, 40, 64, 128, 256};
  for (size_t d = 0; d < sizeof component_sizes / sizeof *component_sizes; d++) {
    for (size_t tokens = 32; tokens <= TCK_MAX_BLOCK_TOKENS; tokens *= 2) {
      for (size_t i = 0; i < 40; i++) compare_component_tile(component_sizes[d], tokens);
    }
    for (size_t i = 0; i < 10; i++) {
      compare_bases(component_sizes[d], 1 + random_bits() % component_sizes[d], 1 + random_bits() % 8);
    }
  }
  printf("%s: attention's largest relative errors: %.1e in full precision, %.1e precise, %.1e fast\n", other->name,
         largest[FULL], largest[PRECISE], largest[FAST]);
}

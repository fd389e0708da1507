// Attention over compressed blocks and over full-precision rows, written once for all instruction sets.
//
// How it works, per tile of up to 256 tokens and for up to four queries that share a KV head:
// 1. Scales are folded into the queries once per block: q' = q * scale / step, rounded to 8 bits (precise: 15), so
//    that a score is step * sum(q' * (code - centre)) + sum(q * (minimum + centre * scale)); codes never become floats.
// 2. Softmax relative to the tile's maximum.
// 3. Scales of values are folded into the probabilities alike: p' = p * scale / step, unsigned.
// 4. The tile's output joins the others', each scaled by 2^(its maximum - the common maximum).
//
// All folding is done before the dot products of a tile: a product that needs what was just stored waits for it.
// One tile ahead is fetched from memory meanwhile, spread over all phases: the processors do not foresee blocks.
//
// A file that implements an instruction set defines, besides the `lanes` and `line` of vector_kernels.h:
//
// lanes_exp2              2 to the power of at most 60; below -126, and for NaN, anything from 0 to 2^-126 or NaN
// lanes_splat_four        four floats, four times
// lanes_splat_two_fours   four floats twice, and then the next four twice
// lanes_highest_of_fours  in every lane the largest of its four
// lanes_store_highest     stores the largest of all lanes of each of four
// halves                  16 magnitudes in float16: halves_zero, halves_larger (the larger of these and of the first
//                         `count` that lie in memory), halves_lanes
// line_pack_signed        from four lanes to bytes, rounded and saturated: lane l of vector m to byte
//                         l / 4 * 16 + m * 4 + l % 4
// line_pack_unsigned      alike, unsigned
// line_split_signed       alike, as high * 128 + low
// line_split_unsigned     alike, as high * 256 + low
// line_add_fours          adds the sums of four unsigned bytes each to 16 int32; line_add_signed_fours of signed ones
// line_lanes              16 int32 as lanes
// TCK_PIECES              registers of a line
// piece                   one of them: piece_load, piece_unit (as line_unit), piece_or_shifted (as line_or_shifted),
//                         piece_splat (four bytes, repeated), piece_flip_signs
// tally                   int32 sums of four products each, a piece wide: tally_zero, tally_add (adds the products of
//                         unsigned and signed bytes; the unsigned or the signed are at most 31), tally_add_wide (any),
//                         tally_sum, tally_store (as floats), tally_add_scaled (adds it, times a factor, to floats),
//                         tally_store_split (the first times a factor plus the second, as floats)
// TCK_PART_LIMIT          0; or, where adding up in 16 bits is faster, the largest magnitude that these can hold. Then
//                         tally_add adds to parts of tallies, 16-bit sums of two products each, and tally_add_part adds
//                         such a part to a tally
// tally_add_scaled_by     adds it, times as many factors, to floats
// TCK_DOT_SETS            2 where registers hold two sets of sums over keys, else 1
// TCK_VALUE_SLICES, TCK_PRECISE_VALUE_SLICES
//                         slices of 16 channels of values whose sums registers hold

#ifndef THINK_KERNELS_VECTOR_ATTENTION_H
#define THINK_KERNELS_VECTOR_ATTENTION_H

#include <math.h>
#include <string.h>

#include "attention_workspace.h"
#include "instruction_sets.h"
#include "quantizer.h"
#include "vector_dots.h"
#include "vector_gates.h"
#include "vector_support.h"

// MARK: - Keys

TCK_INLINE lanes load_halves(const void *halves, size_t count) {
  return count >= LANES ? lanes_load(TCK_FLOAT16, halves) : lanes_load_some(TCK_FLOAT16, halves, count);
}

/// Scales of up to 16 groups, and what stands for a code in the middle.
typedef struct folded_groups {
  lanes scale, middle;
} folded_groups;

/// Scales and numbers at the code `centre` of up to 16 groups, whose count is a multiple of 4.
TCK_INLINE folded_groups load_groups(tck_coding coding, float centre, const char *scales, const char *minima,
                                     size_t count) {
  folded_groups groups;
  if (coding.scales == TCK_COMPACT_SCALES) {
    // Middles lie at a code which is not quite the centre where codes are taken as signed.
    lanes beyond = lanes_splat(centre - tck_code_centre(coding.width));
    lanes sixteenths = octets_signed(octets_load(minima, count));
    groups.scale = octets_compact_scales(octets_load(scales, count));
    groups.middle = lanes_multiply(lanes_multiply_add(sixteenths, lanes_splat(1.0f / 16), beyond), groups.scale);
  } else {
    groups.scale = load_halves(scales, count);
    groups.middle = lanes_multiply_add(groups.scale, lanes_splat(centre), load_halves(minima, count));
  }
  return groups;
}

/// The largest scales of up to 16 groups in all blocks, in `places` places of each: the first `start` bytes from the
/// block's begin, the others `spacing` bytes apart.
TCK_INLINE lanes largest_scales(const tile *it, tck_coding coding, size_t start, size_t places, size_t spacing,
                                size_t count) {
  const bool are_compact = coding.scales == TCK_COMPACT_SCALES;
  halves largest_halves = halves_zero();
  octets largest_octets = octets_zero();
  for (size_t block = 0; block < it->block_count; block++) {
    const char *scales = block_part(it, block, start);
    for (size_t place = 0; place < places; place++, scales += spacing) {
      if (are_compact) {  // Larger bytes are larger scales.
        largest_octets = octets_larger(largest_octets, octets_load(scales, count));
      } else {
        largest_halves = halves_larger(largest_halves, scales, count);
      }
    }
  }
  return are_compact ? octets_compact_scales(largest_octets) : halves_lanes(largest_halves);
}

/// Magnitudes that are not larger all become zero: their inverses might be infinite.
#define SMALLEST_STEPS 1e-30f

/// The largest magnitudes of queries in 8 bits, and in 15: 127 * 128.
#define FAST_LIMIT 127
#define PRECISE_LIMIT 16256

/// Raises `highest` to the largest product of each query with a scale that a run has in any block.
TCK_INLINE void raise_products(const tile *it, const tck_key_run *run, const float *queries, size_t query_stride,
                               size_t rows, lanes highest[TCK_QUERY_ROWS]) {
  size_t padded = tck_padded_channels(run->count);
  for (size_t i = 0; i < padded; i += LANES) {
    size_t start = run->scales + i * tck_scale_bytes(run->coding);
    lanes scale = largest_scales(it, run->coding, start, 1, 0, padded - i);
    for (size_t row = 0; row < rows; row++) {
      lanes query = lanes_load(TCK_FLOAT32, queries + row * query_stride + i);
      highest[row] = lanes_larger(lanes_multiply(lanes_magnitude(query), scale), highest[row]);
    }
  }
}

/// The steps of queries, so that the largest products keep within the integers' range.
typedef struct query_steps {
  float steps[TCK_QUERY_ROWS], inverses[TCK_QUERY_ROWS];
  float mean_square;
} query_steps;

TCK_INLINE query_steps choose_steps(const lanes highest[TCK_QUERY_ROWS], size_t rows, size_t count, float limit) {
  query_steps result = {.mean_square = 0};
  const float share = 1 / limit;
  float products[TCK_QUERY_ROWS], squares = 0;
  lanes_store_highest(products, highest);
  for (size_t row = 0; row < rows; row++) {
    float largest = products[row];
    bool is_something = largest > SMALLEST_STEPS;
    // Where all scales are zero the minima still count, in steps of any size.
    result.steps[row] = is_something ? largest * share : 1;
    result.inverses[row] = is_something ? limit / largest : 1;
    squares += is_something ? result.steps[row] * result.steps[row] : 0;
  }
  result.mean_square = squares / (float)count;
  return result;
}

/// Divides a run's queries by their steps.
TCK_INLINE void scale_queries(const tck_key_run *run, const float *queries, size_t query_stride, size_t rows,
                              const query_steps *steps, float *scaled) {
  for (size_t row = 0; row < rows; row++) {
    lanes inverse = lanes_splat(steps->inverses[row]);
    for (size_t i = 0; i < run->count; i += LANES) {
      lanes query = lanes_load(TCK_FLOAT32, queries + row * query_stride + i);
      lanes_store(TCK_FLOAT32, scaled + row * query_stride + i, lanes_multiply(query, inverse));
    }
  }
}

/// How much of the error that scores may have in fast mode those of a run get from queries in 8 bits.
///
/// Rounding errors of queries are even over a step, and codes about even over their range: the score's error has a
/// variance of step^2 * count / 12 * (4^width - 1) / 12, in units of log2. Its root is about the relative error that the
/// output gets from it; its limit, of all runs together, is somewhat more than half of what fast mode promises in all,
/// 0.035. Keys of one bit are restored about twice as large as they were, which makes scores so far apart that few tokens
/// count, whose errors hardly average out: their limit is a third of it.
static inline float score_error_share(float squared_step, size_t count, unsigned width) {
  const float ln2 = 0.69314718f, limit = width == 1 ? 0.0115f : 0.0195f;
  float variance = squared_step * (float)count / 12 * (float)((1u << 2 * width) - 1) / 12;
  return variance * ln2 * ln2 / (limit * limit);
}

/// The part of a block's scores that does not depend on the token, of all runs: for each query the sums over channels of
/// query times middle, and what the codes' centres take away, lane l for query l % 4.
typedef struct block_constants {
  lanes middles[TCK_QUERY_ROWS], centres;
} block_constants;

/// Folds a block's scales into the scaled queries: lines of 4 quads x 4 queries x 4 channels. Adds to the block's
/// constants.
///
/// - queries, scaled: those of the run, as they are and divided by their steps.
/// - steps: lane l that of query l % 4.
TCK_INLINE void fold_keys(tck_key_run run, const char *block, const float *queries, const float *scaled, size_t stride,
                          size_t rows, bool is_precise, lanes steps, uint8_t *folded, size_t low_offset,
                          block_constants *constants) {
  const size_t padded = tck_padded_channels(run.count), scale_bytes = tck_scale_bytes(run.coding);
  const float centre = tck_code_centre(run.coding.width);
  line total = line_zero(), low_total = line_zero();
  for (size_t i = 0; i < padded; i += LANES) {
    folded_groups groups = load_groups(run.coding, centre, block + run.scales + i * scale_bytes,
                                       block + run.minima + i * scale_bytes, padded - i);
    lanes products[TCK_QUERY_ROWS];
    for (size_t row = 0; row < TCK_QUERY_ROWS; row++) {
      if (row >= rows) {
        products[row] = lanes_splat(0);
        continue;
      }
      lanes query = lanes_load(TCK_FLOAT32, queries + row * stride + i);
      products[row] = lanes_multiply(lanes_load(TCK_FLOAT32, scaled + row * stride + i), groups.scale);
      constants->middles[row] = lanes_multiply_add(query, groups.middle, constants->middles[row]);
    }
    if (is_precise) {
      line high, low;
      line_split_signed(products, &high, &low);
      line_store(folded + i * TCK_QUERY_ROWS, high);
      line_store(folded + low_offset + i * TCK_QUERY_ROWS, low);
      total = line_add_signed_fours(total, high);
      low_total = line_add_signed_fours(low_total, low);
    } else {
      line packed = line_pack_signed(products);
      line_store(folded + i * TCK_QUERY_ROWS, packed);
      total = line_add_signed_fours(total, packed);
    }
  }
  lanes whole = line_lanes(total);
  if (is_precise) whole = lanes_multiply_add(whole, lanes_splat(128), line_lanes(low_total));
  constants->centres = lanes_multiply_add(lanes_multiply(whole, lanes_splat(-centre)), steps, constants->centres);
}

/// Widths of codes: 1...5 and 8.
enum { WIDTHS = 6 };

static size_t width_index(unsigned width) { return width == 8 ? 5 : width - 1; }

/// A quantized run of keys, and how its queries are quantized.
typedef struct quantized_run {
  const tck_key_run *run;
  /// Where its channels begin in a row of queries.
  size_t start;
  query_steps steps;
  bool is_precise;
} quantized_run;

/// key_dots of a width and a number of queries.
typedef void key_dots_function(const uint8_t *codes, size_t quads, const uint8_t *folded, size_t low_offset,
                               const float *steps, float *scores);

/// Chooses the steps of a run's queries.
TCK_INLINE void quantize_queries(const tile *it, quantized_run *of, size_t kept, size_t rows, float limit) {
  const float *queries = it->queries->kept_rows + of->start;
  lanes highest[TCK_QUERY_ROWS];
  for (size_t row = 0; row < TCK_QUERY_ROWS; row++) highest[row] = lanes_splat(0);
  raise_products(it, of->run, queries, kept, rows, highest);
  of->steps = choose_steps(highest, rows, it->queries->count, limit);
}

/// Finds the quantized runs, and gives queries of those 15 bits whose scores would be too far off together with 8.
///
/// Returns how many there are.
TCK_INLINE size_t quantized_runs(const tile *it, size_t kept, size_t rows, quantized_run runs[TCK_MAX_KEY_RUNS]) {
  const tck_block_format *format = it->format;
  const bool are_precise = it->queries->is_precise;
  float shares[TCK_MAX_KEY_RUNS], share = 0;
  size_t count = 0, start = 0;
  for (size_t i = 0; i < format->key_run_count; i++) {
    const tck_key_run *run = &format->key_runs[i];
    if (run->coding.width > 0) {
      quantized_run *of = &runs[count];
      *of = (quantized_run){.run = run, .start = start, .is_precise = are_precise};
      quantize_queries(it, of, kept, rows, are_precise ? PRECISE_LIMIT : FAST_LIMIT);
      shares[count] = are_precise ? 0 : score_error_share(of->steps.mean_square, run->count, run->coding.width);
      share += shares[count++];
    }
    start += tck_padded_dimension(run->count);
  }
  while (share > 1) {
    size_t worst = 0;
    for (size_t i = 1; i < count; i++) worst = shares[i] > shares[worst] ? i : worst;
    runs[worst].is_precise = true;
    quantize_queries(it, &runs[worst], kept, rows, PRECISE_LIMIT);
    shares[worst] = share = 0;
    for (size_t i = 0; i < count; i++) share += shares[i];
  }
  return count;
}

/// Adds the quantized runs' part to the scores of all blocks.
TCK_INLINE void score_quantized(tile *it, size_t rows, key_dots_function *const dots[2][WIDTHS]) {
  const tck_block_format *format = it->format;
  const workspace *work = &it->work;
  fetcher ahead = it->ahead;
  const size_t kept = tck_kept_dimension(format), folded_bytes = kept * TCK_QUERY_ROWS;
  const size_t low_offset = it->block_count * folded_bytes;
  quantized_run runs[TCK_MAX_KEY_RUNS];
  const size_t run_count = quantized_runs(it, kept, rows, runs);
  for (size_t i = 0; i < run_count; i++) {
    scale_queries(runs[i].run, it->queries->kept_rows + runs[i].start, kept, rows, &runs[i].steps,
                  work->scaled_queries + runs[i].start);
  }
  for (size_t block = 0; block < it->block_count; block++) {
    const char *bytes = block_part(it, block, 0);
    block_constants constants = {.centres = lanes_splat(0)};
    for (size_t row = 0; row < TCK_QUERY_ROWS; row++) constants.middles[row] = lanes_splat(0);
    for (size_t i = 0; i < run_count; i++) {
      const tck_key_run run = *runs[i].run;  // A copy: what is stored meanwhile can't change it.
      const size_t start = runs[i].start;
      const float *queries = it->queries->kept_rows + start, *scaled = work->scaled_queries + start;
      uint8_t *folded = work->folded + block * folded_bytes + start * TCK_QUERY_ROWS;
      lanes steps = lanes_splat_four(runs[i].steps.steps);
      if (runs[i].is_precise) {
        fold_keys(run, bytes, queries, scaled, kept, rows, true, steps, folded, low_offset, &constants);
      } else {
        fold_keys(run, bytes, queries, scaled, kept, rows, false, steps, folded, 0, &constants);
      }
    }
    float *sums = work->constants + block * TCK_QUERY_ROWS;
    lanes_store_fours(sums, lanes_add(lanes_transpose_add(constants.middles), constants.centres));
    for (size_t row = 0; row < rows; row++) sums[row] += it->queries->offsets[row];
    fetch_lines_of_block(&ahead);
  }
  for (size_t block = 0; block < it->block_count; block++) {
    const float *constants = work->constants + block * TCK_QUERY_ROWS;
    for (size_t token = 0; token < format->tokens; token += TCK_SUBBLOCK_TOKENS) {
      float *scores = work->scores + block * format->tokens + token;
      for (size_t row = 0; row < rows; row++) {
        lanes constant = lanes_splat(constants[row]);
        lanes_store(TCK_FLOAT32, scores + row * TCK_PAGE_TOKENS, constant);
        lanes_store(TCK_FLOAT32, scores + row * TCK_PAGE_TOKENS + LANES, constant);
      }
      for (size_t i = 0; i < run_count; i++) {
        const tck_key_run *run = runs[i].run;
        const unsigned width = run->coding.width;
        const uint8_t *folded = work->folded + block * folded_bytes + runs[i].start * TCK_QUERY_ROWS;
        size_t codes = run->codes + tck_key_code_bytes(token, run->count, width);
        dots[runs[i].is_precise][width_index(width)]((const uint8_t *)block_part(it, block, codes),
                                                     tck_padded_channels(run->count) / QUAD, folded, low_offset,
                                                     runs[i].steps.steps, scores);
      }
      fetch_lines_of_block(&ahead);
    }
  }
  it->ahead = ahead;
}

/// Adds a full-precision run's part to the scores of all blocks: keys lie channel by channel.
TCK_INLINE void score_full_run(tile *it, const tck_key_run *run, const float *queries, tck_element_type type,
                               size_t rows) {
  size_t tokens = it->format->tokens, query_stride = tck_kept_dimension(it->format);
  for (size_t block = 0; block < it->block_count; block++) {
    const char *keys = block_part(it, block, run->codes);
    for (size_t token = 0; token < tokens; token += LANES) {
      float *scores = it->work.scores + block * tokens + token;
      lanes sums[TCK_QUERY_ROWS];
      for (size_t row = 0; row < rows; row++) {
        sums[row] = it->is_first_run ? lanes_splat(it->queries->offsets[row])
                                     : lanes_load(TCK_FLOAT32, scores + row * TCK_PAGE_TOKENS);
      }
      for (size_t i = 0; i < run->count; i++) {
        lanes key = lanes_load(type, keys + (i * tokens + token) * tck_element_bytes(type));
        for (size_t row = 0; row < rows; row++) {
          sums[row] = lanes_multiply_add(lanes_splat(queries[row * query_stride + i]), key, sums[row]);
        }
      }
      for (size_t row = 0; row < rows; row++) lanes_store(TCK_FLOAT32, scores + row * TCK_PAGE_TOKENS, sums[row]);
      fetch_lines_of_block(&it->ahead);
    }
  }
}

/// Scores of rows of keys.
TCK_INLINE void score_rows(tck_rows keys, size_t tokens, size_t key_dimension, const float *queries, float *scores,
                           tck_element_type type, size_t rows) {
  size_t stride = tck_padded_dimension(key_dimension);
  size_t whole = key_dimension / LANES * LANES;
  for (size_t token = 0; token < tokens; token++) {
    const char *key_row = (const char *)keys.bytes + token * keys.token_stride;
    __builtin_prefetch(key_row + 8 * keys.token_stride, 0, 3);
    lanes sums[TCK_QUERY_ROWS];
    for (size_t row = 0; row < TCK_QUERY_ROWS; row++) sums[row] = lanes_splat(0);
    for (size_t i = 0; i < whole; i += LANES) {
      lanes key = lanes_load(type, key_row + i * tck_element_bytes(type));
      for (size_t row = 0; row < rows; row++) {
        sums[row] = lanes_multiply_add(key, lanes_load(TCK_FLOAT32, queries + row * stride + i), sums[row]);
      }
    }
    if (whole < key_dimension) {
      lanes key = lanes_load_some(type, key_row + whole * tck_element_bytes(type), key_dimension - whole);
      for (size_t row = 0; row < rows; row++) {
        sums[row] = lanes_multiply_add(key, lanes_load(TCK_FLOAT32, queries + row * stride + whole), sums[row]);
      }
    }
    float totals[TCK_QUERY_ROWS];
    lanes_store_fours(totals, lanes_transpose_add(sums));
    for (size_t row = 0; row < rows; row++) scores[row * TCK_PAGE_TOKENS + token] = totals[row];
  }
}

// MARK: - Softmax

/// cap * tanh(score / cap), scores in units of log2: tanh(x) = 1 - 2 / (2^(2 x log2(e)) + 1).
TCK_INLINE lanes bend(lanes score, float cap) {
  const float log2e = 1.44269504f;
  lanes twice = lanes_multiply(score, lanes_splat(2 * log2e / cap));
  // Beyond this tanh is 1 to the last bit, and the power still finite.
  twice = lanes_larger(lanes_cap(twice, 60), lanes_splat(-60));
  lanes quotient = lanes_divide(lanes_splat(2 * cap), lanes_add(lanes_exp2(twice), lanes_splat(1)));
  return lanes_subtract(lanes_splat(cap), quotient);
}

/// Hides the scores outside of a range.
TCK_INLINE void hide(float *scores, size_t first, size_t end, size_t padded_tokens) {
  for (size_t token = 0; token < smaller(first, padded_tokens); token++) scores[token] = -INFINITY;
  for (size_t token = end; token < padded_tokens; token++) scores[token] = -INFINITY;
}

/// The mean squared error of rounding probabilities, relative to the tile's largest, to a 255th of it.
#define ROUNDING_ERROR (1.0f / 12 / 255 / 255)

/// Whether a tile's probabilities in 8 bits are as good as fast mode promises.
///
/// - errors: sum of the squared errors of rounding; `squares` of the probabilities' squares.
/// - factor: what the tile counts beside those before; where an earlier maximum is larger, errors do not matter.
///
/// Rounding errors meet codes less their centre, which at any width stand for numbers about as large as the values that
/// are restored: at 2 bits their standard deviation is 1.12 steps, and a step is about as large as values are. The
/// limit is about half of what fast mode promises in all, 0.035.
static inline bool suffices_for_values(float errors, float squares, float factor) {
  const float limit = 0.019f, gain = 1.12f;
  return factor < 0.15f || gain * gain * errors <= limit * limit * squares;
}

/// Whether probabilities in 8 bits never suffice. With compact scales a group's middle may ask for a larger scale than
/// its range: with 8 bits it usually does, and the step, which is the largest scale's, is too coarse for the others.
static inline bool needs_precision(tck_coding values) {
  return values.scales == TCK_COMPACT_SCALES && values.width == 8;
}

/// Bends and masks a query's scores; returns the largest in each lane.
TCK_INLINE lanes mask_scores(const tck_queries *queries, size_t row, size_t tokens, size_t padded, float *scores) {
  if (queries->soft_cap > 0) {
    for (size_t token = 0; token < padded; token += LANES) {
      lanes_store(TCK_FLOAT32, scores + token, bend(lanes_load(TCK_FLOAT32, scores + token), queries->soft_cap));
    }
  }
  size_t first = queries->visible[row].first, end = smaller(queries->visible[row].end, tokens);
  if (first > 0 || end < padded) hide(scores, first, end, padded);
  lanes highest[2] = {lanes_splat(-INFINITY), lanes_splat(-INFINITY)};
  for (size_t token = 0; token < padded; token += 2 * LANES) {
    highest[0] = lanes_larger(lanes_load(TCK_FLOAT32, scores + token), highest[0]);
    highest[1] = lanes_larger(lanes_load(TCK_FLOAT32, scores + token + LANES), highest[1]);
  }
  return lanes_larger(highest[0], highest[1]);
}

/// Turns scores into 2^(score - the tile's maximum), and joins maxima and sums.
TCK_TARGET static void exponentiate(tck_queries *queries, size_t tokens, workspace *work) {
  size_t padded = (tokens + 2 * LANES - 1) / (2 * LANES) * (2 * LANES);
  bool sees[TCK_QUERY_ROWS];
  lanes highest[TCK_QUERY_ROWS], sums[TCK_QUERY_ROWS], squares[TCK_QUERY_ROWS], errors[TCK_QUERY_ROWS];
  for (size_t row = 0; row < TCK_QUERY_ROWS; row++) {
    const tck_token_range *visible = &queries->visible[row];
    sees[row] = row < queries->count && visible->first < smaller(visible->end, tokens);
    highest[row] = sums[row] = squares[row] = errors[row] = lanes_splat(0);
    float *scores = work->scores + row * TCK_PAGE_TOKENS;
    if (sees[row]) highest[row] = mask_scores(queries, row, tokens, padded, scores);
  }
  float tile_maxima[TCK_QUERY_ROWS];
  lanes_store_highest(tile_maxima, highest);
  for (size_t row = 0; row < TCK_QUERY_ROWS; row++) {
    float *scores = work->scores + row * TCK_PAGE_TOKENS;
    if (!sees[row]) {
      for (size_t token = 0; token < padded; token += LANES) {
        lanes_store(TCK_FLOAT32, scores + token, lanes_splat(0));
      }
      continue;
    }
    lanes maximum = lanes_splat(tile_maxima[row]);
    lanes sum = lanes_splat(0), square_sum = lanes_splat(0), error_sum = lanes_splat(0);
    for (size_t token = 0; token < padded; token += 2 * LANES) {
      lanes first = lanes_exp2(lanes_subtract(lanes_load(TCK_FLOAT32, scores + token), maximum));
      lanes second = lanes_exp2(lanes_subtract(lanes_load(TCK_FLOAT32, scores + token + LANES), maximum));
      lanes_store(TCK_FLOAT32, scores + token, first);
      lanes_store(TCK_FLOAT32, scores + token + LANES, second);
      sum = lanes_add(sum, lanes_add(first, second));
      lanes square = lanes_multiply(first, first);
      square_sum = lanes_add(square_sum, lanes_multiply_add(second, second, square));
      error_sum = lanes_add(error_sum, lanes_cap(square, ROUNDING_ERROR));  // Every second one stands for all.
    }
    sums[row] = sum;
    squares[row] = square_sum;
    errors[row] = error_sum;
  }
  float tile_sums[TCK_QUERY_ROWS], square_sums[TCK_QUERY_ROWS], error_sums[TCK_QUERY_ROWS];
  lanes_store_fours(tile_sums, lanes_transpose_add(sums));
  lanes_store_fours(square_sums, lanes_transpose_add(squares));
  lanes_store_fours(error_sums, lanes_transpose_add(errors));
  // By how much what was before and what this tile gives are scaled, as powers of two: one call for all.
  float powers[LANES] = {0};
  for (size_t row = 0; row < TCK_QUERY_ROWS; row++) {
    if (!sees[row]) continue;
    float common = queries->maxima[row] > tile_maxima[row] ? queries->maxima[row] : tile_maxima[row];
    powers[2 * row] = queries->maxima[row] - common;
    powers[2 * row + 1] = tile_maxima[row] - common;
    queries->maxima[row] = common;
  }
  lanes_store(TCK_FLOAT32, powers, lanes_exp2(lanes_larger(lanes_load(TCK_FLOAT32, powers), lanes_splat(-200))));
  for (size_t row = 0; row < TCK_QUERY_ROWS; row++) {
    work->old_factor[row] = powers[2 * row];
    work->tile_factor[row] = sees[row] ? powers[2 * row + 1] : 0;
    if (!sees[row]) continue;
    queries->sums[row] = queries->sums[row] * work->old_factor[row] + tile_sums[row] * work->tile_factor[row];
    bool suffices = suffices_for_values(2 * error_sums[row], square_sums[row], work->tile_factor[row]);
    work->needs_precision = work->needs_precision || !suffices;
  }
}

// MARK: - Values

/// Joins a slice of 16 channels of the tile's output to what was before.
TCK_INLINE void join_output(tck_queries *queries, size_t dimension, size_t row, size_t slice, lanes tile,
                            const workspace *work) {
  if (work->tile_factor[row] == 0) return;  // The query sees nothing of the tile, whose values may be NaN.
  float *output = queries->outputs + row * dimension + slice * LANES;
  lanes old = lanes_multiply(lanes_load(TCK_FLOAT32, output), lanes_splat(work->old_factor[row]));
  lanes_store(TCK_FLOAT32, output, lanes_multiply_add(tile, lanes_splat(work->tile_factor[row]), old));
}

/// Fours of tokens whose groups fill a line of folded probabilities: with one or two groups there is room for several.
TCK_INLINE size_t fours_of_line(size_t groups) { return groups == 1 ? 4 : groups == 2 ? 2 : 1; }

/// The probabilities of a line's tokens: as many fours as it has, each repeated for its groups.
TCK_INLINE lanes load_powers(const float *powers, size_t fours) {
  if (fours == 1) return lanes_splat_four(powers);
  return fours == 2 ? lanes_splat_two_fours(powers) : lanes_load(TCK_FLOAT32, powers);
}

/// The largest of each lane and those that stand for other tokens of the same group, `period` lanes apart.
TCK_INLINE lanes largest_of_period(lanes value, size_t period) {
  float all[LANES];
  lanes_store(TCK_FLOAT32, all, value);
  for (size_t i = period; i < LANES; i++) all[i % period] = all[i] > all[i % period] ? all[i] : all[i % period];
  for (size_t i = period; i < LANES; i++) all[i] = all[i % period];
  return lanes_load(TCK_FLOAT32, all);
}

/// Folds the scales of values into the probabilities, for one set of up to four groups: lines of 4 groups x 4 queries x
/// 4 tokens for each four tokens, or of fewer groups for several fours.
///
/// - group_steps, constants: per group and query, the step and what does not depend on the channel.
TCK_INLINE void fold_values(tile *it, size_t set, unsigned width, size_t rows, bool is_precise) {
  const tck_block_format *format = it->format;
  const workspace *work = &it->work;
  fetcher ahead = it->ahead;
  size_t groups = tck_value_groups(format->value_dimension, format->value_group);
  size_t fours = fours_of_line(groups), lines = format->tokens / QUAD / fours;
  size_t count = smaller(groups * fours - set * QUAD, QUAD) * QUAD;
  const tck_coding coding = format->value_coding;
  size_t start = set * QUAD * QUAD * tck_scale_bytes(coding);
  size_t line_scales = fours * groups * QUAD * tck_scale_bytes(coding);
  lanes largest = largest_scales(it, coding, format->value_scales + start, lines, line_scales, count);
  lanes highest = lanes_highest_of_fours(largest);  // A group's tokens have one step.
  if (fours > 1) highest = largest_of_period(highest, groups * QUAD);
  lanes limit = lanes_splat(is_precise ? 65535 : 255);
  lanes excess = lanes_subtract(highest, lanes_splat(SMALLEST_STEPS));
  lanes step = lanes_where_positive(excess, lanes_divide(highest, limit));
  lanes inverse = lanes_where_positive(excess, lanes_divide(limit, highest));
  lanes_store(TCK_FLOAT32, work->group_steps + set * LANES, step);
  // Bytes of width 8 are taken as signed: code - 128.
  const float centre = width == 8 ? 128 : tck_code_centre(width);
  lanes constant[TCK_QUERY_ROWS];
  for (size_t row = 0; row < TCK_QUERY_ROWS; row++) constant[row] = lanes_splat(0);
  line total = line_zero(), low_total = line_zero();
  uint8_t *folded = work->folded + set * work->set_bytes;
  size_t low_offset = work->low_offset;
  const float *powers = work->scores;
  for (size_t block = 0; block < it->block_count; block++) {
    const char *scales = block_part(it, block, format->value_scales + start);
    const char *minima = block_part(it, block, format->value_minima + start);
    for (size_t i = 0; i < lines; i++) {
      size_t at = i * line_scales;
      folded_groups of_line = load_groups(coding, centre, scales + at, minima + at, count);
      lanes folding = lanes_multiply(of_line.scale, inverse);
      lanes products[TCK_QUERY_ROWS];
      for (size_t row = 0; row < TCK_QUERY_ROWS; row++) {
        if (row >= rows) {
          products[row] = lanes_splat(0);
          continue;
        }
        lanes power = load_powers(powers + row * TCK_PAGE_TOKENS, fours);
        products[row] = lanes_multiply(power, folding);
        constant[row] = lanes_multiply_add(power, of_line.middle, constant[row]);
      }
      if (is_precise) {
        line high, low;
        line_split_unsigned(products, &high, &low);
        line_store(folded, high);
        line_store(folded + low_offset, low);
        total = line_add_fours(total, high);
        low_total = line_add_fours(low_total, low);
      } else {
        line packed = line_pack_unsigned(products);
        line_store(folded, packed);
        total = line_add_fours(total, packed);
      }
      folded += LINE_BYTES;
      powers += fours * QUAD;
      for (size_t four = 0; four < fours; four++) fetch_line(&ahead);
    }
  }
  it->ahead = ahead;
  lanes whole = line_lanes(total);
  if (is_precise) whole = lanes_multiply_add(whole, lanes_splat(256), line_lanes(low_total));
  lanes sums = lanes_transpose_add(constant);
  if (width < 8) {
    sums = lanes_subtract(sums, lanes_multiply(lanes_multiply(whole, lanes_splat(centre)), step));
  }
  float *constants = work->constants + set * LANES;
  lanes_store(TCK_FLOAT32, constants, sums);
  // What stands behind the groups is of their other tokens.
  for (size_t i = groups * QUAD; fours > 1 && i < LANES; i++) constants[i % (groups * QUAD)] += constants[i];
}

/// Adds slices of the tile's output from quantized values.
TCK_INLINE void add_slices(tile *it, size_t slice, size_t slices, bool is_aligned, unsigned width, size_t rows,
                           bool is_precise) {
  const tck_block_format *format = it->format;
  const workspace *work = &it->work;
  const uint8_t *weights[(TCK_VALUE_SLICES + 1) / 2];
  for (size_t i = 0; i < slices; i += 2) {
    size_t group = (slice + i) * LANES / format->value_group;
    weights[i / 2] = work->folded + group / QUAD * work->set_bytes + group % QUAD * QUERY_QUAD_BYTES;
  }
  float dots[TCK_VALUE_SLICES][TCK_QUERY_ROWS][LANES];
  value_dots(it, slice, slices, is_aligned, width, weights, rows, is_precise, dots);
  size_t dimension = tck_padded_dimension(format->value_dimension);
  for (size_t i = 0; i < slices; i++) {
    size_t group = (slice + i) * LANES / format->value_group;
    lanes step = lanes_splat(work->group_steps[group * QUAD]);
    for (size_t row = 0; row < rows; row++) {
      lanes constant = lanes_splat(work->constants[group * QUAD + row]);
      lanes sum = lanes_multiply_add(lanes_load(TCK_FLOAT32, dots[i][row]), step, constant);
      join_output(it->queries, dimension, row, slice + i, sum, work);
    }
  }
}

TCK_INLINE void add_quantized_values(tile *it, unsigned width, size_t rows, bool is_precise) {
  const tck_block_format *format = it->format;
  size_t groups = tck_value_groups(format->value_dimension, format->value_group);
  it->work.four_bytes = LINE_BYTES / fours_of_line(groups);
  it->work.set_bytes = it->block_count * format->tokens / QUAD * it->work.four_bytes;
  it->work.low_offset = (groups + QUAD - 1) / QUAD * it->work.set_bytes;
  for (size_t set = 0; set * QUAD < groups; set++) fold_values(it, set, width, rows, is_precise);
  size_t sixteens = (format->value_dimension + LANES - 1) / LANES;
  size_t wide = is_precise ? TCK_PRECISE_VALUE_SLICES : TCK_VALUE_SLICES;
  size_t slice = 0;
  if (sixteens % units_of_lines(width) == 0) {
    for (; slice + wide <= sixteens; slice += wide) add_slices(it, slice, wide, true, width, rows, is_precise);
  } else {
    for (; slice + wide <= sixteens; slice += wide) add_slices(it, slice, wide, false, width, rows, is_precise);
  }
  for (; slice < sixteens; slice++) add_slices(it, slice, 1, false, width, rows, is_precise);
}

/// Rows of values in full precision; those of every `block_tokens` tokens begin `block_stride` bytes after the last
/// ones.
typedef struct value_rows {
  tck_rows rows;
  size_t tokens, dimension;
  size_t block_tokens, block_stride;
} value_rows;

/// Adds `slices` slices of 16 channels of rows of values, the last one perhaps partial.
TCK_INLINE void add_row_slices(const value_rows *source, size_t slice, size_t slices, bool is_partial,
                               tck_queries *queries, const workspace *work, tck_element_type type, size_t rows) {
  lanes sums[2][TCK_QUERY_ROWS];
  for (size_t i = 0; i < slices; i++) {
    for (size_t row = 0; row < rows; row++) sums[i][row] = lanes_splat(0);
  }
  for (size_t start = 0; start < source->tokens; start += source->block_tokens) {
    const char *first_row = (const char *)source->rows.bytes + start / source->block_tokens * source->block_stride;
    size_t count = smaller(source->tokens - start, source->block_tokens);
    for (size_t token = 0; token < count; token++) {
      const char *value_row = first_row + token * source->rows.token_stride + slice * LANES * tck_element_bytes(type);
      for (size_t i = 0; i < slices; i++) {
        const char *bytes = value_row + i * LANES * tck_element_bytes(type);
        lanes value = is_partial ? lanes_load_some(type, bytes, source->dimension - slice * LANES)
                                 : lanes_load(type, bytes);
        for (size_t row = 0; row < rows; row++) {
          lanes power = lanes_splat(work->scores[row * TCK_PAGE_TOKENS + start + token]);
          sums[i][row] = lanes_multiply_add(power, value, sums[i][row]);
        }
      }
    }
  }
  for (size_t i = 0; i < slices; i++) {
    for (size_t row = 0; row < rows; row++) {
      join_output(queries, tck_padded_dimension(source->dimension), row, slice + i, sums[i][row], work);
    }
  }
}

/// Adds rows of values in full precision.
TCK_INLINE void add_rows(const value_rows *source, tck_queries *queries, const workspace *work, tck_element_type type,
                         size_t rows) {
  size_t whole = source->dimension / LANES;
  size_t slice = 0;
  for (; slice + 2 <= whole; slice += 2) add_row_slices(source, slice, 2, false, queries, work, type, rows);
  for (; slice < whole; slice++) add_row_slices(source, slice, 1, false, queries, work, type, rows);
  if (source->dimension % LANES > 0) add_row_slices(source, slice, 1, true, queries, work, type, rows);
}

#include "vector_runs.h"

// MARK: - Functions for each number of queries, width and precision

#define DEFINE_QUANTIZED(rows, width)                                                                                  \
  TCK_LEAF void dots_##rows##_##width##_precise(const uint8_t *codes, size_t quads, const uint8_t *folded,             \
                                                size_t low_offset, const float *steps, float *scores) {                \
    key_dots(codes, quads, width, folded, low_offset, rows, true, steps, scores);                                      \
  }                                                                                                                    \
  TCK_LEAF void dots_##rows##_##width##_fast(const uint8_t *codes, size_t quads, const uint8_t *folded,                \
                                             size_t low_offset, const float *steps, float *scores) {                   \
    key_dots(codes, quads, width, folded, low_offset, rows, false, steps, scores);                                     \
  }                                                                                                                    \
  TCK_LEAF void run_##rows##_##width##_dots(const uint8_t *codes, size_t quads, size_t tokens, const uint8_t *folded,  \
                                            const float *factors, float *sums) {                                       \
    run_dots(codes, quads, tokens, width, folded, rows, factors, sums);                                                \
  }                                                                                                                    \
  TCK_LEAF void add_##rows##_##width##_fast(tile *it) { add_quantized_values(it, width, rows, false); }                \
  TCK_LEAF void add_##rows##_##width##_precise(tile *it) { add_quantized_values(it, width, rows, true); }

#define DEFINE_FULL(rows, name, type)                                                                                  \
  TCK_LEAF void score_##rows##_##name(tile *it, const tck_key_run *run, const float *queries) {                        \
    score_full_run(it, run, queries, type, rows);                                                                      \
  }                                                                                                                    \
  TCK_LEAF void score_rows_##rows##_##name(tck_rows keys, size_t tokens, size_t key_dimension, const float *queries,   \
                                           float *scores) {                                                            \
    score_rows(keys, tokens, key_dimension, queries, scores, type, rows);                                              \
  }                                                                                                                    \
  TCK_LEAF void add_rows_##rows##_##name(const value_rows *source, tck_queries *queries, const workspace *work) {      \
    add_rows(source, queries, work, type, rows);                                                                       \
  }

#define DEFINE_FOR_ROWS(rows)                  \
  DEFINE_QUANTIZED(rows, 1)                    \
  DEFINE_QUANTIZED(rows, 2)                    \
  DEFINE_QUANTIZED(rows, 3)                    \
  DEFINE_QUANTIZED(rows, 4)                    \
  DEFINE_QUANTIZED(rows, 5)                    \
  DEFINE_QUANTIZED(rows, 8)                    \
  DEFINE_FULL(rows, float16, TCK_FLOAT16)      \
  DEFINE_FULL(rows, bfloat16, TCK_BFLOAT16)    \
  DEFINE_FULL(rows, float32, TCK_FLOAT32)

DEFINE_FOR_ROWS(1)
DEFINE_FOR_ROWS(2)
DEFINE_FOR_ROWS(4)

static size_t type_index(tck_element_type type) { return type == TCK_FLOAT16 ? 0 : type == TCK_BFLOAT16 ? 1 : 2; }

#define OF_WIDTHS(name, mode) \
  {name##_1_##mode, name##_2_##mode, name##_3_##mode, name##_4_##mode, name##_5_##mode, name##_8_##mode}

#define DEFINE_ADD_RUNS(rows)                                                        \
  TCK_LEAF void add_runs_##rows(tile *it, bool is_precise) {                        \
    static run_dots_function *const dots[WIDTHS] = OF_WIDTHS(run_##rows, dots);     \
    add_runs(it, rows, is_precise, dots);                                           \
  }

DEFINE_ADD_RUNS(1)
DEFINE_ADD_RUNS(2)
DEFINE_ADD_RUNS(4)

#define DEFINE_SCORES(rows)                                                                                   \
  TCK_LEAF void score_quantized_##rows(tile *it) {                                                            \
    static key_dots_function *const dots[2][WIDTHS] = {OF_WIDTHS(dots_##rows, fast),                          \
                                                       OF_WIDTHS(dots_##rows, precise)};                      \
    score_quantized(it, rows, dots);                                                                          \
  }

DEFINE_SCORES(1)
DEFINE_SCORES(2)
DEFINE_SCORES(4)

/// The functions for a number of queries: quantized ones by precision and width, others by type.
typedef struct row_functions {
  void (*score_quantized)(tile *it);
  void (*add_quantized[2][WIDTHS])(tile *it);
  void (*add_runs)(tile *it, bool is_precise);
  void (*score_full[3])(tile *it, const tck_key_run *run, const float *queries);
  void (*score_rows[3])(tck_rows keys, size_t tokens, size_t key_dimension, const float *queries, float *scores);
  void (*add_rows[3])(const value_rows *source, tck_queries *queries, const workspace *work);
} row_functions;

#define ROW_FUNCTIONS(rows)                                                                                 \
  {                                                                                                         \
      score_quantized_##rows,                                                                               \
      {OF_WIDTHS(add_##rows, fast), OF_WIDTHS(add_##rows, precise)},                                        \
      add_runs_##rows,                                                                                      \
      {score_##rows##_float16, score_##rows##_bfloat16, score_##rows##_float32},                            \
      {score_rows_##rows##_float16, score_rows_##rows##_bfloat16, score_rows_##rows##_float32},             \
      {add_rows_##rows##_float16, add_rows_##rows##_bfloat16, add_rows_##rows##_float32},                   \
  }

/// Those for at least so many queries.
static const row_functions *functions_for(size_t rows) {
  static const row_functions functions[] = {ROW_FUNCTIONS(1), ROW_FUNCTIONS(2), ROW_FUNCTIONS(4)};
  return &functions[rows <= 2 ? rows - 1 : 2];
}

// MARK: - Entry points

TCK_TARGET static void score_blocks(tile *it, const row_functions *functions) {
  const float *run_queries = it->queries->kept_rows;
  bool has_codes = false;
  for (size_t i = 0; i < it->format->key_run_count; i++) {
    has_codes = has_codes || it->format->key_runs[i].coding.width > 0;
  }
  if (has_codes) functions->score_quantized(it);
  it->is_first_run = !has_codes;
  for (size_t i = 0; i < it->format->key_run_count; i++) {
    const tck_key_run *run = &it->format->key_runs[i];
    if (run->coding.width == 0) {
      functions->score_full[type_index(it->format->full_type)](it, run, run_queries);
      it->is_first_run = false;
    }
    run_queries += tck_padded_dimension(run->count);
  }
}

TCK_TARGET static void attend_blocks(const tck_block_format *format, const void *blocks, size_t block_count,
                                     tck_queries *queries, const void *next, size_t next_byte_count) {
  tile it = {format,
             blocks,
             block_count,
             queries,
             make_workspace(format->key_dimension, format->value_dimension, queries->workspace),
             make_fetcher(format, blocks, block_count, next, next_byte_count),
             true};
  const row_functions *functions = functions_for(queries->count);
  size_t tokens = block_count * format->tokens;
  score_blocks(&it, functions);
  exponentiate(queries, tokens, &it.work);
  if (format->value_run_count > 0) {
    functions->add_runs(&it, queries->is_precise || it.work.needs_precision);
  } else if (format->value_coding.width == 0) {
    size_t row_bytes = format->value_dimension * tck_element_bytes(format->full_type);
    value_rows values = {{block_part(&it, 0, format->value_codes), row_bytes, format->full_type},
                         tokens,
                         format->value_dimension,
                         format->tokens,
                         format->byte_count};
    functions->add_rows[type_index(format->full_type)](&values, queries, &it.work);
  } else {
    bool is_precise = queries->is_precise || it.work.needs_precision || needs_precision(format->value_coding);
    functions->add_quantized[is_precise][width_index(format->value_coding.width)](&it);
  }
}

TCK_TARGET static void attend_rows(tck_rows keys, tck_rows values, size_t tokens, size_t key_dimension,
                                   size_t value_dimension, tck_queries *queries) {
  workspace work = make_workspace(key_dimension, value_dimension, queries->workspace);
  const row_functions *functions = functions_for(queries->count);
  functions->score_rows[type_index(keys.type)](keys, tokens, key_dimension, queries->rows, work.scores);
  exponentiate(queries, tokens, &work);
  value_rows source = {values, tokens, value_dimension, tokens, 0};
  functions->add_rows[type_index(values.type)](&source, queries, &work);
}

TCK_TARGET static void join_scores(float *scores, size_t tokens, size_t value_dimension, tck_queries *queries) {
  workspace work = {.scores = scores};
  exponentiate(queries, tokens, &work);
  size_t dimension = tck_padded_dimension(value_dimension);
  for (size_t row = 0; row < queries->count; row++) {
    for (size_t token = 0; token < tokens; token += LANES) {
      float *at = scores + row * TCK_PAGE_TOKENS + token;
      lanes_store(TCK_FLOAT32, at, lanes_multiply(lanes_load(TCK_FLOAT32, at), lanes_splat(work.tile_factor[row])));
    }
    for (size_t i = 0; i < dimension; i += LANES) {
      float *at = queries->outputs + row * dimension + i;
      lanes_store(TCK_FLOAT32, at, lanes_multiply(lanes_load(TCK_FLOAT32, at), lanes_splat(work.old_factor[row])));
    }
  }
}

#endif

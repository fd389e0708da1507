// Attention to values that lie in runs of components. Part of vector_attention.h.
//
// A group is a component's numbers of a whole block, so that scales don't meet probabilities: these are quantized once,
// in steps of a 255th (precise: a 65535th) of the tile's largest. Of a block a component gives
//     scale * (step * sum(p' * (code - centre)) + sum(p) * middle / scale)
// in lanes of four components for each four of 16 tokens, which are added up when the tile has been seen.

#ifndef THINK_KERNELS_VECTOR_RUNS_H
#define THINK_KERNELS_VECTOR_RUNS_H

/// Folded probabilities of a query for 16 tokens: bytes of four tokens for each of four components.
#define FOLDED_BYTES LINE_BYTES
/// Those of a query for all of a tile.
#define FOLDED_ROW_BYTES (TCK_PAGE_TOKENS / 16 * FOLDED_BYTES)

/// run_dots of a width and a number of queries.
typedef void run_dots_function(const uint8_t *codes, size_t quads, size_t tokens, const uint8_t *folded,
                               const float *factors, float *sums);

/// Adds the products of 16 tokens' codes, of `count` quads of components: at most as many as fill lines.
TCK_INLINE void add_run_units(tally sums[][TCK_QUERY_ROWS], code_lines lines, size_t half, size_t count, unsigned width,
                              const uint8_t *folded, size_t rows) {
  const size_t units = units_of_lines(width);
  piece weights[TCK_QUERY_ROWS];
  for (size_t row = 0; row < rows; row++) weights[row] = piece_load(folded + row * FOLDED_ROW_BYTES);
  // Whole lines must be unrolled: see add_key_quads.
#pragma GCC unroll 4
  for (size_t i = 0; i < count; i++) {
    piece codes = signed_codes(unit_codes(lines, 0, 2 * i + half, units, width), width);
    for (size_t row = 0; row < rows; row++) sums[i][row] = add_products(sums[i][row], weights[row], codes, width);
  }
}

/// Quads whose codes fill lines.
#define MOST_RUN_QUADS 4

/// sum(p' * code) over a block's tokens, for `count` quads from `quad` on, times `factors`, is added to `sums`.
TCK_INLINE void add_run_quads(const uint8_t *codes, size_t quads, size_t quad, size_t count, size_t tokens,
                              unsigned width, const uint8_t *folded, size_t rows, const float *factors, float *sums) {
  const size_t subblock_bytes = tck_line_bytes(2 * quads, width);
  for (size_t at = 0; at < TCK_PIECES; at++) {
    tally totals[MOST_RUN_QUADS][TCK_QUERY_ROWS], parts[MOST_RUN_QUADS][TCK_QUERY_ROWS];
    for (size_t i = 0; i < count; i++) {
      for (size_t row = 0; row < rows; row++) totals[i][row] = tally_zero();
    }
    const uint8_t *weights = folded + at * PIECE_BYTES;
    for (size_t token = 0; token < tokens; token += TCK_SUBBLOCK_TOKENS, weights += 2 * FOLDED_BYTES) {
      code_lines lines = lines_of_codes(codes + token / TCK_SUBBLOCK_TOKENS * subblock_bytes + at * PIECE_BYTES,
                                        2 * quads, width);
      skip_units(&lines, 2 * quad, width);
      if (has_parts(width)) {  // A part holds the products of two units of any width.
        for (size_t i = 0; i < count; i++) {
          for (size_t row = 0; row < rows; row++) parts[i][row] = tally_zero();
        }
      }
      tally(*to)[TCK_QUERY_ROWS] = has_parts(width) ? parts : totals;
      add_run_units(to, lines, 0, count, width, weights, rows);
      add_run_units(to, lines, 1, count, width, weights + FOLDED_BYTES, rows);
      if (has_parts(width)) {
        for (size_t i = 0; i < count; i++) {
          for (size_t row = 0; row < rows; row++) totals[i][row] = add_part(totals[i][row], parts[i][row]);
        }
      }
    }
    for (size_t i = 0; i < count; i++) {
      for (size_t row = 0; row < rows; row++) {
        tally_add_scaled_by(sums + ((quad + i) * TCK_QUERY_ROWS + row) * LANES + at * PIECE_LANES, totals[i][row],
                            factors + (quad + i) * LANES + at * PIECE_LANES);
      }
    }
  }
}

/// Adds sum(p' * code) over a block's tokens, times `factors`, to `sums`.
///
/// - folded: the block's part of each query's.
/// - factors: `[quads][LANES]`; sums: `[quads][TCK_QUERY_ROWS][LANES]`.
TCK_INLINE void run_dots(const uint8_t *codes, size_t quads, size_t tokens, unsigned width, const uint8_t *folded,
                         size_t rows, const float *factors, float *sums) {
  const size_t step = width == 8 ? 1 : units_of_lines(width) / 2;  // Of width 8 a quad has two lines.
  size_t quad = 0;
  for (; quad + step <= quads; quad += step) {
    add_run_quads(codes, quads, quad, step, tokens, width, folded, rows, factors, sums);
  }
  if (step > 1 && quad < quads) {
    add_run_quads(codes, quads, quad, quads - quad, tokens, width, folded, rows, factors, sums);
  }
}

/// What a block's probabilities add up to, for each query: as they are, and as they were folded.
typedef struct block_weights {
  float sums[TCK_QUERY_ROWS], folded[TCK_QUERY_ROWS];
} block_weights;

/// Quantizes a tile's probabilities: for each query FOLDED_ROW_BYTES, and `low_offset` bytes on their low parts.
TCK_INLINE void fold_powers(const tile *it, size_t rows, bool is_precise, size_t low_offset,
                            block_weights weights[TILE_BLOCKS]) {
  const workspace *work = &it->work;
  const float limit = is_precise ? 65535 : 255;
  for (size_t block = 0; block < it->block_count; block++) {
    lanes sums[TCK_QUERY_ROWS];
    for (size_t row = 0; row < TCK_QUERY_ROWS; row++) sums[row] = lanes_splat(0);
    for (size_t row = 0; row < rows; row++) {
      line total = line_zero(), low_total = line_zero();
      for (size_t token = block * it->format->tokens; token < (block + 1) * it->format->tokens; token += LANES) {
        lanes power = lanes_load(TCK_FLOAT32, work->scores + row * TCK_PAGE_TOKENS + token);
        uint8_t *folded = work->folded + row * FOLDED_ROW_BYTES + token / LANES * FOLDED_BYTES;
        sums[row] = lanes_add(sums[row], power);
        power = lanes_multiply(power, lanes_splat(limit));
        const lanes repeated[QUAD] = {power, power, power, power};
        if (is_precise) {
          line high, low;
          line_split_unsigned(repeated, &high, &low);
          line_store(folded, high);
          line_store(folded + low_offset, low);
          total = line_add_fours(total, high);
          low_total = line_add_fours(low_total, low);
        } else {
          line packed = line_pack_unsigned(repeated);
          line_store(folded, packed);
          total = line_add_fours(total, packed);
        }
      }
      lanes whole = line_lanes(total);
      if (is_precise) whole = lanes_multiply_add(whole, lanes_splat(256), line_lanes(low_total));
      float totals[QUAD];  // All alike.
      lanes_store_fours(totals, lanes_multiply(whole, lanes_splat(1 / limit)));
      weights[block].folded[row] = totals[0];
    }
    lanes_store_fours(weights[block].sums, lanes_transpose_add(sums));
  }
}

/// Where the sums of a tile's runs are: tck_run_sum_floats.
typedef struct run_sums {
  /// `[quads][TCK_QUERY_ROWS][LANES]`: lane l is of component l % 4.
  float *quads;
  /// `[sixteens][TCK_QUERY_ROWS][LANES]`: what does not depend on codes, of 16 components.
  float *constants;
  /// `[sixteens][QUAD][LANES]` of the run that is being added: steps of products with high and with low parts.
  float *factors, *high_factors;
  /// A query's components of all runs.
  float *joined;
} run_sums;

TCK_INLINE size_t sixteens_of(const tck_key_run *run) { return (run->count + LANES - 1) / LANES; }

/// The sums, zero.
TCK_INLINE run_sums begin_run_sums(const tile *it) {
  size_t quads = 0, sixteens = 0;
  for (size_t i = 0; i < it->format->value_run_count; i++) {
    quads += tck_padded_channels(it->format->value_runs[i].count) / QUAD;
    sixteens += sixteens_of(&it->format->value_runs[i]);
  }
  run_sums sums;
  sums.quads = it->work.run_sums;
  sums.constants = sums.quads + quads * TCK_QUERY_ROWS * LANES;
  sums.factors = sums.constants + sixteens * TCK_QUERY_ROWS * LANES;
  sums.high_factors = sums.factors + sixteens * QUAD * LANES;
  sums.joined = sums.high_factors + sixteens * QUAD * LANES;
  memset(sums.quads, 0, (size_t)(sums.factors - sums.quads) * sizeof *sums.quads);
  return sums;
}

/// Adds a block's part of a run to the run's sums.
TCK_INLINE void add_run(const tile *it, const tck_key_run *run, size_t block, size_t rows, bool is_precise,
                        size_t low_offset, const block_weights *weights, run_dots_function *dots, run_sums sums) {
  const size_t padded = tck_padded_channels(run->count), scale_bytes = tck_scale_bytes(run->coding);
  const unsigned width = run->coding.width;
  const float step = 1.0f / (is_precise ? 65535 : 255);
  // Bytes of width 8 are taken as signed: code - 128.
  const float centre = width == 8 ? 128 : tck_code_centre(width);
  const char *bytes = block_part(it, block, 0);
  for (size_t i = 0; i < padded; i += LANES) {
    folded_groups groups = load_groups(run->coding, centre, bytes + run->scales + i * scale_bytes,
                                       bytes + run->minima + i * scale_bytes, padded - i);
    for (size_t row = 0; row < rows; row++) {
      float *to = sums.constants + (i / LANES * TCK_QUERY_ROWS + row) * LANES;
      lanes constant = lanes_multiply_add(groups.middle, lanes_splat(weights->sums[row]),
                                          lanes_load(TCK_FLOAT32, to));
      if (width < 8) {
        constant = lanes_multiply_add(groups.scale, lanes_splat(-centre * weights->folded[row]), constant);
      }
      lanes_store(TCK_FLOAT32, to, constant);
    }
    float scales[LANES];
    lanes_store(TCK_FLOAT32, scales, lanes_multiply(groups.scale, lanes_splat(step)));
    for (size_t quad = 0; quad < QUAD; quad++) {
      lanes factor = lanes_splat_four(scales + quad * QUAD);
      lanes_store(TCK_FLOAT32, sums.factors + (i / QUAD + quad) * LANES, factor);
      if (is_precise) {
        lanes_store(TCK_FLOAT32, sums.high_factors + (i / QUAD + quad) * LANES,
                    lanes_multiply(factor, lanes_splat(256)));
      }
    }
  }
  const uint8_t *codes = (const uint8_t *)bytes + run->codes;
  const uint8_t *folded = it->work.folded + block * it->format->tokens / LANES * FOLDED_BYTES;
  dots(codes, padded / QUAD, it->format->tokens, folded, is_precise ? sums.high_factors : sums.factors, sums.quads);
  if (is_precise) dots(codes, padded / QUAD, it->format->tokens, folded + low_offset, sums.factors, sums.quads);
}

/// Adds up the lanes of all runs' sums and joins them to the output.
TCK_INLINE void join_runs(tile *it, size_t rows, const run_sums *all) {
  const tck_block_format *format = it->format;
  const size_t dimension = tck_padded_dimension(format->value_dimension);
  // Sums of four lanes first, where factors were: a load of what has just been stored in parts would wait for it.
  const size_t stride = (size_t)(all->high_factors - all->factors) / QUAD;
  for (size_t row = 0; row < rows; row++) {
    const float *quads = all->quads + row * LANES;
    float *to = all->factors + row * stride;
    for (size_t i = 0; i < format->value_run_count; i++) {
      const tck_key_run *run = &format->value_runs[i];
      const size_t run_quads = tck_padded_channels(run->count) / QUAD;
      for (size_t quad = 0; quad < run_quads; quad++, quads += TCK_QUERY_ROWS * LANES) {
        lanes_store_fours(to + quad * QUAD, lanes_load(TCK_FLOAT32, quads));
      }
      for (size_t at = run_quads * QUAD; at < sixteens_of(run) * LANES; at++) to[at] = 0;
      to += sixteens_of(run) * LANES;
    }
  }
  memset(all->joined, 0, dimension * sizeof *all->joined);
  for (size_t row = 0; row < rows; row++) {
    const float *from = all->factors + row * stride, *constants = all->constants + row * LANES;
    float *to = all->joined;
    for (size_t i = 0; i < format->value_run_count; i++) {
      const tck_key_run *run = &format->value_runs[i];
      for (size_t at = 0; at < run->count; at += LANES, from += LANES, constants += TCK_QUERY_ROWS * LANES) {
        // What is beyond the run is the next one's, and comes later.
        lanes_store(TCK_FLOAT32, to + at,
                    lanes_add(lanes_load(TCK_FLOAT32, from), lanes_load(TCK_FLOAT32, constants)));
      }
      to += run->count;
    }
    for (size_t slice = 0; slice < dimension / LANES; slice++) {
      join_output(it->queries, dimension, row, slice, lanes_load(TCK_FLOAT32, all->joined + slice * LANES), &it->work);
    }
  }
}

/// Adds runs of components to the tile's output.
TCK_INLINE void add_runs(tile *it, size_t rows, bool is_precise, run_dots_function *const dots[WIDTHS]) {
  const tck_block_format *format = it->format;
  const size_t low_offset = TCK_QUERY_ROWS * FOLDED_ROW_BYTES;
  block_weights weights[TILE_BLOCKS];
  fold_powers(it, rows, is_precise, low_offset, weights);
  const run_sums all = begin_run_sums(it);
  fetcher ahead = it->ahead;
  for (size_t block = 0; block < it->block_count; block++) {
    run_sums sums = all;
    for (size_t i = 0; i < format->value_run_count; i++) {
      const tck_key_run *run = &format->value_runs[i];
      add_run(it, run, block, rows, is_precise, low_offset, &weights[block], dots[width_index(run->coding.width)],
              sums);
      sums.quads += tck_padded_channels(run->count) / QUAD * TCK_QUERY_ROWS * LANES;
      sums.constants += sixteens_of(run) * TCK_QUERY_ROWS * LANES;
    }
    fetch_lines_of_block(&ahead);
  }
  it->ahead = ahead;
  join_runs(it, rows, &all);
}

#endif

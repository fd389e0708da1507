// Dot products of codes with folded queries and probabilities: the inner loops of attention. Part of
// vector_attention.h.
//
// A line of codes is taken in TCK_PIECES pieces of one register each, so that all sums of a piece stay in registers.

#ifndef THINK_KERNELS_VECTOR_DOTS_H
#define THINK_KERNELS_VECTOR_DOTS_H

#include "attention_workspace.h"
#include "vector_support.h"

#define PIECE_BYTES (LINE_BYTES / TCK_PIECES)
#define PIECE_LANES (LANES / TCK_PIECES)
/// Four bytes for each query.
#define QUERY_QUAD_BYTES (QUAD * TCK_QUERY_ROWS)

/// Adds the products of a unit's codes with four query's or four tokens' bytes.
TCK_INLINE tally add_products(tally sums, piece bytes, piece signed_bytes, unsigned width) {
  return width == 8 ? tally_add_wide(sums, bytes, signed_bytes) : tally_add(sums, bytes, signed_bytes);
}

// MARK: - Keys

/// Adds a quad of channels: its two units are of tokens 0-15 and 16-31.
TCK_INLINE void add_key_quad(tally sums[TCK_QUERY_ROWS][2], piece first, piece second, const uint8_t *queries,
                             size_t rows, unsigned width) {
  for (size_t row = 0; row < rows; row++) {
    piece query = piece_splat(queries + row * QUAD);
    sums[row][0] = add_products(sums[row][0], first, query, width);
    sums[row][1] = add_products(sums[row][1], second, query, width);
  }
}

/// Sums of a piece over all quads. Without `low` quads go to two sets of sums in turn, where there are two, and the
/// second set is added to the first; with `low` the second set is that of the low parts.
TCK_INLINE void sum_key_quads(tally sums[TCK_DOT_SETS][TCK_QUERY_ROWS][2], const uint8_t *codes, size_t quads,
                              unsigned width, const uint8_t *folded, const uint8_t *low, size_t rows) {
  const size_t other = low == NULL ? TCK_DOT_SETS - 1 : 0;
  const size_t last = TCK_DOT_SETS - 1;
  for (size_t set = 0; set < TCK_DOT_SETS; set++) {
    for (size_t row = 0; row < rows; row++) sums[set][row][0] = sums[set][row][1] = tally_zero();
  }
  size_t quad = 0;
  if (width == 2) {  // A line has two quads.
    for (; quad + 2 <= quads; quad += 2, codes += LINE_BYTES) {
      piece codes_of_both = piece_load(codes);
      piece first = piece_unit(codes_of_both, 0, width), second = piece_unit(codes_of_both, 2, width);
      add_key_quad(sums[0], first, second, folded + quad * QUERY_QUAD_BYTES, rows, width);
      if (low != NULL) add_key_quad(sums[last], first, second, low + quad * QUERY_QUAD_BYTES, rows, width);
      piece third = piece_unit(codes_of_both, 4, width), fourth = piece_unit(codes_of_both, 6, width);
      add_key_quad(sums[other], third, fourth, folded + (quad + 1) * QUERY_QUAD_BYTES, rows, width);
      if (low != NULL) add_key_quad(sums[last], third, fourth, low + (quad + 1) * QUERY_QUAD_BYTES, rows, width);
    }
  }
  for (; quad < quads; quad++) {
    piece first, second;
    if (width == 8) {  // A quad has two lines.
      first = piece_load(codes);
      second = piece_load(codes + LINE_BYTES);
      codes += 2 * LINE_BYTES;
    } else {
      piece one = piece_load(codes);
      first = piece_unit(one, 0, width);
      second = piece_unit(one, width, width);
      codes += LINE_BYTES;
    }
    add_key_quad(sums[0], first, second, folded + quad * QUERY_QUAD_BYTES, rows, width);
    if (low != NULL) add_key_quad(sums[last], first, second, low + quad * QUERY_QUAD_BYTES, rows, width);
  }
  if (low == NULL && TCK_DOT_SETS == 2) {
    for (size_t row = 0; row < rows; row++) {
      for (size_t half = 0; half < 2; half++) sums[0][row][half] = tally_sum(sums[0][row][half], sums[last][row][half]);
    }
  }
}

/// sum(q' * code) over a sub-block's quads, for 32 tokens.
///
/// - folded: `[quads][TCK_QUERY_ROWS][QUAD]` bytes; `low` their low parts, if precise.
TCK_INLINE void key_dots(const uint8_t *codes, size_t quads, unsigned width, const uint8_t *folded,
                         const uint8_t *low, size_t rows, bool is_precise, float dots[TCK_QUERY_ROWS][2][LANES]) {
  for (size_t at = 0; at < TCK_PIECES; at++) {
    tally high[TCK_DOT_SETS][TCK_QUERY_ROWS][2], rest[TCK_DOT_SETS][TCK_QUERY_ROWS][2];
    const uint8_t *piece_codes = codes + at * PIECE_BYTES;
    sum_key_quads(high, piece_codes, quads, width, folded, is_precise && TCK_DOT_SETS == 2 ? low : NULL, rows);
    if (is_precise && TCK_DOT_SETS == 1) sum_key_quads(rest, piece_codes, quads, width, low, NULL, rows);
    for (size_t row = 0; row < rows; row++) {
      for (size_t half = 0; half < 2; half++) {
        float *to = dots[row][half] + at * PIECE_LANES;
        if (is_precise) {
          tally_store_split(to, high[0][row][half], 128, TCK_DOT_SETS == 2 ? high[1][row][half] : rest[0][row][half]);
        } else {
          tally_store(to, high[0][row][half]);
        }
      }
    }
  }
}

// MARK: - Values

/// A unit of values' codes as signed bytes: those of width 8 less 128.
TCK_INLINE piece value_codes(const uint8_t *codes, size_t unit, unsigned shift, unsigned width) {
  piece codes_of_line = piece_load(codes + unit / (8 / width) * LINE_BYTES);
  return width == 8 ? piece_flip_signs(codes_of_line) : piece_unit(codes_of_line, shift, width);
}

/// sum(p' * code) over a tile's tokens, for `slices` slices of 16 channels, from an even one on.
///
/// - is_aligned: whether every four tokens begin with a new line.
/// - weights: for each two slices, whose group is one, a dword of four tokens for each query; LINE_BYTES on, the next
///   four tokens'; the workspace's `low_offset` bytes on, the low parts.
TCK_INLINE void value_dots(tile *it, size_t slice, size_t slices, bool is_aligned, unsigned width,
                           const uint8_t *const weights[(TCK_VALUE_SLICES + 1) / 2], size_t rows, bool is_precise,
                           float dots[TCK_VALUE_SLICES][TCK_QUERY_ROWS][LANES]) {
  size_t quads = it->format->tokens / QUAD;
  size_t sixteens = (it->format->value_dimension + LANES - 1) / LANES;
  size_t low_offset = it->work.low_offset;
  fetcher ahead = it->ahead;
  const size_t units_per_line = 8 / width;
  for (size_t at = 0; at < TCK_PIECES; at++) {
    tally sums[TCK_VALUE_SLICES][TCK_QUERY_ROWS], rest[TCK_VALUE_SLICES][TCK_QUERY_ROWS];
    for (size_t i = 0; i < slices; i++) {
      for (size_t row = 0; row < rows; row++) sums[i][row] = rest[i][row] = tally_zero();
    }
    size_t weight_offset = 0;
    for (size_t block = 0; block < it->block_count; block++) {
      const uint8_t *block_codes = (const uint8_t *)block_part(it, block, it->format->value_codes + at * PIECE_BYTES);
      for (size_t quad = 0; quad < quads; quad++, weight_offset += LINE_BYTES) {
        piece unit_codes[TCK_VALUE_SLICES];
        for (size_t i = 0; i < slices; i++) {
          size_t unit = quad * sixteens + slice + i;
          // Constants and what does not change in the loop shift faster: with lines aligned all units of a slice
          // have one place in theirs, and it is known where whole lines are taken at once.
          size_t place = !is_aligned ? unit : slices % units_per_line != 0 ? slice + i : i;
          unit_codes[i] = value_codes(block_codes, unit, (unsigned)(place % units_per_line) * width, width);
        }
        for (size_t pair = 0; pair < slices; pair += 2) {
          const uint8_t *weight = weights[pair / 2] + weight_offset;
          for (size_t row = 0; row < rows; row++) {
            piece high = piece_splat(weight + row * QUAD);
            for (size_t i = pair; i < pair + 2 && i < slices; i++) {
              sums[i][row] = add_products(sums[i][row], high, unit_codes[i], width);
            }
            if (!is_precise) continue;
            piece low = piece_splat(weight + low_offset + row * QUAD);
            for (size_t i = pair; i < pair + 2 && i < slices; i++) {
              rest[i][row] = add_products(rest[i][row], low, unit_codes[i], width);
            }
          }
        }
        if (at == 0) fetch_line(&ahead);
      }
    }
    for (size_t i = 0; i < slices; i++) {
      for (size_t row = 0; row < rows; row++) {
        float *to = dots[i][row] + at * PIECE_LANES;
        if (is_precise) {
          tally_store_split(to, sums[i][row], 256, rest[i][row]);
        } else {
          tally_store(to, sums[i][row]);
        }
      }
    }
  }
  it->ahead = ahead;
}

#endif

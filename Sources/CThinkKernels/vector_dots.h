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

/// Whether products with codes of a width are added up in parts before tallies get them.
TCK_INLINE bool has_parts(unsigned width) { return TCK_PART_LIMIT > 0 && width < 8; }

/// How often a part takes products of codes of a width and bytes of at most such a magnitude.
TCK_INLINE size_t part_capacity(unsigned width, size_t largest_byte) {
  return (size_t)TCK_PART_LIMIT / (2 * largest_byte * ((1u << width) - 1));
}

TCK_INLINE tally add_part(tally sums, tally part) {
#if TCK_PART_LIMIT > 0
  return tally_add_part(sums, part);
#else
  return tally_sum(sums, part);
#endif
}

/// Adds the products of a unit's codes with four query's or four tokens' bytes: to a part if there are any, else to a
/// tally.
TCK_INLINE tally add_products(tally sums, piece bytes, piece signed_bytes, unsigned width) {
  return width == 8 ? tally_add_wide(sums, bytes, signed_bytes) : tally_add(sums, bytes, signed_bytes);
}

// MARK: - Codes

/// Where the lines of a sub-block's codes begin, those of each plane.
typedef struct code_lines {
  const uint8_t *first, *second;
} code_lines;

TCK_INLINE code_lines lines_of_codes(const uint8_t *codes, size_t units, unsigned width) {
  return (code_lines){codes, codes + tck_plane_bytes(units, tck_first_plane_width(width))};
}

/// Goes on by `units` units, which fill their lines.
TCK_INLINE void skip_units(code_lines *lines, size_t units, unsigned width) {
  const unsigned first = tck_first_plane_width(width);
  lines->first += tck_plane_bytes(units, first);
  lines->second += tck_plane_bytes(units, width - first);
}

/// The fewest units that fill lines of every plane.
TCK_INLINE size_t units_of_lines(unsigned width) { return 8 / (tck_first_plane_width(width) < width ? 1 : width); }

/// The bits of a unit of a plane: see unit_codes.
TCK_INLINE piece plane_unit(const uint8_t *lines, size_t start, size_t i, size_t count, unsigned width) {
  piece codes = piece_load(lines + (start * width / 8 + i * width / 8) * LINE_BYTES);
  // Whole lines need no shift by what is no constant.
  if (count * width % 8 != 0) codes = piece_unit(codes, (unsigned)(start * width % 8), 8);
  return piece_unit(codes, (unsigned)(i * width % 8), width);
}

/// The codes of unit `start + i`, one of `count` that are taken at once, be it whole lines or units of one line.
TCK_INLINE piece unit_codes(code_lines lines, size_t start, size_t i, size_t count, unsigned width) {
  const unsigned first = tck_first_plane_width(width), second = width - first;
  piece codes = plane_unit(lines.first, start, i, count, first);
  if (second == 0) return codes;
  return piece_or_shifted(codes, plane_unit(lines.second, start, i, count, second), first);
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

/// Adds the first `count` quads, at most as many as fill lines; without low parts to sets of sums in turn, if asked.
TCK_INLINE void add_key_quads(tally sums[TCK_DOT_SETS][TCK_QUERY_ROWS][2], code_lines lines, size_t count,
                              unsigned width, const uint8_t *folded, size_t low_offset, size_t rows, bool alternates) {
  const size_t last = TCK_DOT_SETS - 1, other = low_offset == 0 && alternates ? last : 0;
  const size_t units = units_of_lines(width);
  // Whole lines must be unrolled, or else shifts are variable and sums are found in memory.
#pragma GCC unroll 4
  for (size_t i = 0; i < count; i++, folded += QUERY_QUAD_BYTES) {
    piece first = unit_codes(lines, 0, 2 * i, units, width), second = unit_codes(lines, 0, 2 * i + 1, units, width);
    add_key_quad(sums[i % 2 == 0 ? 0 : other], first, second, folded, rows, width);
    if (low_offset != 0) add_key_quad(sums[last], first, second, folded + low_offset, rows, width);
  }
}

TCK_INLINE void zero_key_sums(tally sums[TCK_DOT_SETS][TCK_QUERY_ROWS][2], size_t rows) {
  for (size_t set = 0; set < TCK_DOT_SETS; set++) {
    for (size_t row = 0; row < rows; row++) sums[set][row][0] = sums[set][row][1] = tally_zero();
  }
}

TCK_INLINE void add_key_parts(tally sums[TCK_DOT_SETS][TCK_QUERY_ROWS][2],
                              tally parts[TCK_DOT_SETS][TCK_QUERY_ROWS][2], size_t rows) {
  for (size_t set = 0; set < TCK_DOT_SETS; set++) {
    for (size_t row = 0; row < rows; row++) {
      for (size_t half = 0; half < 2; half++) {
        sums[set][row][half] = add_part(sums[set][row][half], parts[set][row][half]);
      }
    }
  }
}

/// Sums of a piece over all quads. Without low parts, which have `low_offset` 0, quads go to two sets of sums in turn,
/// where there are two, and the second set is added to the first; with them the second set is theirs.
TCK_INLINE void sum_key_quads(tally sums[TCK_DOT_SETS][TCK_QUERY_ROWS][2], const uint8_t *codes, size_t quads,
                              unsigned width, const uint8_t *folded, size_t low_offset, size_t rows) {
  const size_t last = TCK_DOT_SETS - 1;
  zero_key_sums(sums, rows);
  const size_t step = width == 8 ? 1 : units_of_lines(width) / 2;  // Of width 8 a quad has two lines.
  const size_t most = has_parts(width) ? part_capacity(width, 128) / step * step : SIZE_MAX;
  tally parts[TCK_DOT_SETS][TCK_QUERY_ROWS][2];
  tally(*to)[TCK_QUERY_ROWS][2] = has_parts(width) ? parts : sums;
  code_lines lines = lines_of_codes(codes, 2 * quads, width);
  while (quads > 0) {
    size_t count = smaller(quads, most);
    quads -= count;
    if (has_parts(width)) zero_key_sums(parts, rows);
    for (; count >= step; count -= step, folded += step * QUERY_QUAD_BYTES) {
      add_key_quads(to, lines, step, width, folded, low_offset, rows, true);
      skip_units(&lines, 2 * step, width);
    }
    if (step > 1) add_key_quads(to, lines, count, width, folded, low_offset, rows, false);
    if (has_parts(width)) add_key_parts(sums, parts, rows);
  }
  if (low_offset == 0 && TCK_DOT_SETS == 2) {
    for (size_t row = 0; row < rows; row++) {
      for (size_t half = 0; half < 2; half++) sums[0][row][half] = tally_sum(sums[0][row][half], sums[last][row][half]);
    }
  }
}

/// Adds step * sum(q' * code) over a sub-block's quads to the scores of 32 tokens.
///
/// - folded: `[quads][TCK_QUERY_ROWS][QUAD]` bytes; `low_offset` bytes on their low parts, if precise.
/// - steps: of each query's q'.
TCK_INLINE void key_dots(const uint8_t *codes, size_t quads, unsigned width, const uint8_t *folded, size_t low_offset,
                         size_t rows, bool is_precise, const float *steps, float *scores) {
  for (size_t at = 0; at < TCK_PIECES; at++) {
    tally high[TCK_DOT_SETS][TCK_QUERY_ROWS][2], rest[TCK_DOT_SETS][TCK_QUERY_ROWS][2];
    const uint8_t *piece_codes = codes + at * PIECE_BYTES;
    sum_key_quads(high, piece_codes, quads, width, folded, is_precise && TCK_DOT_SETS == 2 ? low_offset : 0, rows);
    if (is_precise && TCK_DOT_SETS == 1) {
      sum_key_quads(rest, piece_codes, quads, width, folded + low_offset, 0, rows);
    }
    for (size_t row = 0; row < rows; row++) {
      for (size_t half = 0; half < 2; half++) {
        float *to = scores + row * TCK_PAGE_TOKENS + half * LANES + at * PIECE_LANES;
        if (is_precise) {
          tally low = TCK_DOT_SETS == 2 ? high[1][row][half] : rest[0][row][half];
          tally_add_scaled(to, high[0][row][half], 128 * steps[row]);
          tally_add_scaled(to, low, steps[row]);
        } else {
          tally_add_scaled(to, high[0][row][half], steps[row]);
        }
      }
    }
  }
}

// MARK: - Values

/// Codes as signed bytes: those of width 8 less 128.
TCK_INLINE piece signed_codes(piece codes, unsigned width) { return width == 8 ? piece_flip_signs(codes) : codes; }

TCK_INLINE void zero_value_sums(tally sums[TCK_VALUE_SLICES][TCK_QUERY_ROWS], size_t slices, size_t rows) {
  for (size_t i = 0; i < slices; i++) {
    for (size_t row = 0; row < rows; row++) sums[i][row] = tally_zero();
  }
}

TCK_INLINE void add_value_parts(tally sums[TCK_VALUE_SLICES][TCK_QUERY_ROWS],
                                tally parts[TCK_VALUE_SLICES][TCK_QUERY_ROWS], size_t slices, size_t rows) {
  for (size_t i = 0; i < slices; i++) {
    for (size_t row = 0; row < rows; row++) sums[i][row] = add_part(sums[i][row], parts[i][row]);
  }
}

/// Fours of tokens, a divisor of a sub-block's, whose products are added up before the tallies get them.
TCK_INLINE size_t fours_of_part(unsigned width) {
  const size_t all = TCK_SUBBLOCK_TOKENS / QUAD;
  if (!has_parts(width)) return all;
  const size_t capacity = part_capacity(width, 255);
  return capacity >= all ? all : capacity >= 4 ? 4 : 2;
}

/// sum(p' * code) over a tile's tokens, for `slices` slices of 16 channels, from an even one on.
///
/// - is_aligned: whether every four tokens begin with a new line of each plane.
/// - weights: for each two slices, whose group is one, a dword of four tokens for each query; the workspace's
///   `four_bytes` on, the next four tokens'; its `low_offset` bytes on, the low parts.
TCK_INLINE void value_dots(tile *it, size_t slice, size_t slices, bool is_aligned, unsigned width,
                           const uint8_t *const weights[(TCK_VALUE_SLICES + 1) / 2], size_t rows, bool is_precise,
                           float dots[TCK_VALUE_SLICES][TCK_QUERY_ROWS][LANES]) {
  const size_t sixteens = (it->format->value_dimension + LANES - 1) / LANES;
  const size_t units = tck_value_units(it->format->value_dimension), sub_block_bytes = tck_line_bytes(units, width);
  const size_t fours = fours_of_part(width);
  // Slices of one line have its shift in common.
  const bool are_together = sixteens % slices == 0;
  const size_t four_bytes = it->work.four_bytes, low_offset = it->work.low_offset;
  fetcher ahead = it->ahead;
  for (size_t at = 0; at < TCK_PIECES; at++) {
    tally sums[TCK_VALUE_SLICES][TCK_QUERY_ROWS], rest[TCK_VALUE_SLICES][TCK_QUERY_ROWS];
    zero_value_sums(sums, slices, rows);
    zero_value_sums(rest, slices, rows);
    size_t weight_offset = 0;
    for (size_t block = 0; block < it->block_count; block++) {
      const uint8_t *codes = (const uint8_t *)block_part(it, block, it->format->value_codes + at * PIECE_BYTES);
      for (size_t token = 0; token < it->format->tokens; token += TCK_SUBBLOCK_TOKENS, codes += sub_block_bytes) {
        code_lines lines = lines_of_codes(codes, units, width);
        for (size_t first = slice; first < units; first += fours * sixteens) {
          tally parts[2][TCK_VALUE_SLICES][TCK_QUERY_ROWS];
          tally(*high_sums)[TCK_QUERY_ROWS] = has_parts(width) ? parts[0] : sums;
          tally(*low_sums)[TCK_QUERY_ROWS] = has_parts(width) ? parts[1] : rest;
          if (has_parts(width)) {
            zero_value_sums(parts[0], slices, rows);
            if (is_precise) zero_value_sums(parts[1], slices, rows);
          }
          for (size_t four = 0; four < fours; four++, weight_offset += four_bytes) {
            size_t start = first + four * sixteens;
            piece unit[TCK_VALUE_SLICES];
            for (size_t i = 0; i < slices; i++) {
              // What does not change in the loop shifts faster.
              piece codes = is_aligned     ? unit_codes(lines, slice, i, slices, width)
                            : are_together ? unit_codes(lines, start, i, slices, width)
                                           : unit_codes(lines, start + i, 0, 1, width);
              unit[i] = signed_codes(codes, width);
            }
            if (is_aligned) skip_units(&lines, sixteens, width);
            for (size_t pair = 0; pair < slices; pair += 2) {
              const uint8_t *weight = weights[pair / 2] + weight_offset;
              const size_t end = smaller(pair + 2, slices);
              for (size_t row = 0; row < rows; row++) {
                piece high = piece_splat(weight + row * QUAD);
                for (size_t i = pair; i < end; i++) {
                  high_sums[i][row] = add_products(high_sums[i][row], high, unit[i], width);
                }
                if (!is_precise) continue;
                piece low = piece_splat(weight + low_offset + row * QUAD);
                for (size_t i = pair; i < end; i++) {
                  low_sums[i][row] = add_products(low_sums[i][row], low, unit[i], width);
                }
              }
            }
            if (at == 0) fetch_line(&ahead);
          }
          if (has_parts(width)) {
            add_value_parts(sums, parts[0], slices, rows);
            if (is_precise) add_value_parts(rest, parts[1], slices, rows);
          }
        }
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

// What the phases of the vector kernels for attention share: the tile, their memory, and fetching ahead.

#ifndef THINK_KERNELS_ATTENTION_WORKSPACE_H
#define THINK_KERNELS_ATTENTION_WORKSPACE_H

#include "vector_support.h"

/// Blocks of a tile at the most.
#define TILE_BLOCKS (TCK_PAGE_TOKENS / TCK_SUBBLOCK_TOKENS)

typedef struct workspace {
  /// Scores and then powers: `[TCK_QUERY_ROWS][TCK_PAGE_TOKENS]`.
  float *scores;
  /// As the kept rows of the queries: each run's in its steps.
  float *scaled_queries;
  /// What does not depend on the token (keys: per block and query) or on the channel (values: per group and query).
  float *constants;
  /// Steps of the probabilities, four for each group of channels.
  float *group_steps;
  /// Folded queries, then folded probabilities; `low_offset` bytes on their low parts, `set_bytes` for each set
  /// of groups, `four_bytes` for each four tokens in it.
  uint8_t *folded;
  /// Sums over runs of value components: tck_run_sum_floats.
  float *run_sums;
  size_t low_offset, set_bytes, four_bytes;
  /// By how much the earlier tiles' sums and this tile's are scaled.
  float old_factor[TCK_QUERY_ROWS], tile_factor[TCK_QUERY_ROWS];
  /// Whether probabilities in 8 bits do not suffice for this tile.
  bool needs_precision;
} workspace;

static inline workspace make_workspace(size_t key_dimension, size_t value_dimension, void *memory) {
  workspace work;
  size_t groups = (tck_value_groups(value_dimension, TCK_SUBBLOCK_TOKENS) + 3) / 4 * 4;
  work.scores = memory;
  work.scaled_queries = work.scores + TCK_QUERY_ROWS * TCK_PAGE_TOKENS;
  work.constants = work.scaled_queries + TCK_QUERY_ROWS * tck_widest_kept_dimension(key_dimension);
  work.group_steps = work.constants + TCK_QUERY_ROWS * (groups > TILE_BLOCKS ? groups : TILE_BLOCKS);
  work.folded = (uint8_t *)(work.group_steps + TCK_QUERY_ROWS * groups);
  size_t keys = TILE_BLOCKS * tck_widest_kept_dimension(key_dimension), values = TCK_PAGE_TOKENS * groups;
  uintptr_t end = (uintptr_t)(work.folded + 2 * TCK_QUERY_ROWS * (keys > values ? keys : values));
  work.run_sums = (float *)((end + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES);
  work.low_offset = work.set_bytes = work.four_bytes = 0;
  work.needs_precision = false;
  return work;
}

// MARK: - Fetching ahead

/// Lines of the next tile that are still to be fetched.
typedef struct fetcher {
  const char *next;
  const char *end;
  /// Lines to fetch at each block and sub-block of keys; the loops over values fetch one at each four tokens.
  size_t lines_per_block;
} fetcher;

/// How often lines are fetched by the loops over blocks and sub-blocks of keys, and of values in runs.
static inline size_t fetching_steps(const tck_block_format *format, size_t block_count) {
  size_t subblocks = block_count * format->tokens / TCK_SUBBLOCK_TOKENS;
  return format->value_run_count > 0 ? subblocks + 2 * block_count : 2 * subblocks;
}

static inline fetcher make_fetcher(const tck_block_format *format, const void *blocks, size_t block_count,
                                   const void *next, size_t byte_count) {
  size_t tokens = block_count * format->tokens;
  size_t by_values = tokens / QUAD * ((tck_value_groups(format->value_dimension, format->value_group) + 3) / 4 +
                                      (format->value_dimension + 63) / 64);
  if (format->value_coding.width == 0 || format->value_run_count > 0) by_values = 0;
  size_t lines = byte_count / LINE_BYTES;
  if (byte_count == 0) next = blocks;  // A line that is there, and no further one.
  return (fetcher){next, (const char *)next + byte_count,
                   lines > by_values ? (lines - by_values) / fetching_steps(format, block_count) + 1 : 0};
}

/// Fetches a line; when there are no more, the last one again, which costs less than a branch.
TCK_INLINE void fetch_line(fetcher *ahead) {
  __builtin_prefetch(ahead->next, 0, PREFETCH_LEVEL);
  ahead->next += ahead->next < ahead->end ? LINE_BYTES : 0;
}

TCK_INLINE void fetch_lines_of_block(fetcher *ahead) {
  for (size_t i = 0; i < ahead->lines_per_block; i++) fetch_line(ahead);
}

// MARK: - Tile

/// The blocks that a call of attend_blocks is about.
typedef struct tile {
  const tck_block_format *format;
  const char *blocks;
  size_t block_count;
  tck_queries *queries;
  workspace work;
  fetcher ahead;
  /// Whether no other run's part of the scores is there yet.
  bool is_first_run;
} tile;

/// The part of a block that is `offset` bytes from its begin.
static inline const char *block_part(const tile *it, size_t block, size_t offset) {
  return it->blocks + block * it->format->byte_count + offset;
}

#endif

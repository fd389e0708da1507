// Kernels over blocks of a key-value cache, in plain C.
//
// Every kernel exists once per instruction set; `scalar` is the definition and the others give the same bits, but for
// attention, where they agree within a tolerance: relative error of the output 5e-4 in precise mode, 3.5e-2 in fast;
// and for multiply_rows, which states its own.
// The layouts are specified in Formats/kivi.md and Formats/full-precision.md; names below are theirs.
//
// Rules for all kernels (attention and multiply_rows may fuse multiply-add, and attention's workspace is aligned)
// - No allocation, no logging, no failure; pointers need no alignment and may not overlap unless said.
// - Arithmetic is float32 in the order written, without fused multiply-add, so that bytes are equal everywhere.
// - A "row" is one token's `head_dimension` values of one KV head; rows lie `token_stride` bytes apart.
// - Limits: `head_dimension` 1...TCK_MAX_HEAD_DIMENSION, `tokens` of a packed block 32, 64 or 128.

#ifndef THINK_KERNELS_H
#define THINK_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TCK_MAX_HEAD_DIMENSION 1024
#define TCK_MAX_BLOCK_TOKENS 128
/// Tokens that one line of packed key codes covers: two halves of 16 lanes.
#define TCK_SUBBLOCK_TOKENS 32
/// The largest magnitude that quantization takes: float16's largest finite value.
#define TCK_MAX_QUANTIZED_MAGNITUDE 65504.0f

/// Element types; the numbers are those of Formats/snapshot.md, "Element types".
typedef enum tck_element_type {
  TCK_FLOAT16 = 1,
  TCK_BFLOAT16 = 2,
  TCK_FLOAT32 = 3,
} tck_element_type;

/// Rows to read.
typedef struct tck_rows {
  const void *bytes;
  size_t token_stride;
  tck_element_type type;
} tck_rows;

/// Rows to write.
typedef struct tck_mutable_rows {
  void *bytes;
  size_t token_stride;
  tck_element_type type;
} tck_mutable_rows;

/// The key channels of one run: `channels[i]` is the source channel of the run's channel i.
typedef struct tck_channels {
  const uint16_t *indices;
  size_t count;
} tck_channels;

/// Where the parts of a quantized run (keys) or of a block's values lie.
typedef struct tck_packed {
  const uint8_t *codes;
  const uint16_t *scales;
  const uint16_t *minima;
} tck_packed;

typedef struct tck_mutable_packed {
  uint8_t *codes;
  uint16_t *scales;
  uint16_t *minima;
} tck_mutable_packed;

// MARK: - Attention

/// Tokens that the attention kernels take at once: a page.
#define TCK_TILE_TOKENS 256
/// Queries that share every code that is unpacked.
#define TCK_QUERY_ROWS 4
/// Runs of key channels in a plan at the most.
#define TCK_MAX_KEY_RUNS 4

/// A run of key channels in a block; for full precision `width` is 0 and only `codes` counts.
typedef struct tck_key_run {
  size_t count;
  unsigned width;
  // Offsets in the block, in bytes.
  size_t codes, scales, minima;
} tck_key_run;

/// What a block holds, and where.
typedef struct tck_block_format {
  size_t tokens;
  size_t byte_count;
  size_t head_dimension;
  /// The type of what is in full precision.
  tck_element_type full_type;
  size_t key_run_count;
  tck_key_run key_runs[TCK_MAX_KEY_RUNS];
  /// Bits per value; 0 for full precision, where only `value_codes` counts.
  unsigned value_width;
  // Offsets in the block, in bytes.
  size_t value_codes, value_scales, value_minima;
} tck_block_format;

/// Tokens of a tile; none if `first` is not below `end`.
typedef struct tck_token_range {
  size_t first, end;
} tck_token_range;

/// Up to TCK_QUERY_ROWS queries of one KV head, and what attention over the tokens so far has given for them.
///
/// A score is `query * key` in units of log2: queries have been multiplied by the attention's scale and by log2(e).
/// After any number of tiles `outputs / sums` is the attention over their tokens. Arrays have TCK_QUERY_ROWS elements.
typedef struct tck_queries {
  /// 1...TCK_QUERY_ROWS.
  size_t count;
  /// `[TCK_QUERY_ROWS][tck_padded_dimension(head dimension)]`, zero beyond the head dimension and beyond `count`.
  const float *rows;
  /// The same queries in the order of a block's key runs: `[TCK_QUERY_ROWS][tck_thin_dimension(format)]`; every run
  /// begins at a multiple of 16 and is padded with zeros.
  const float *thin_rows;
  /// What is added to every score of a block: the pruned channels' part.
  const float *offsets;
  /// Which tokens of the tile each query sees.
  const tck_token_range *visible;
  /// Scores are bent to `soft_cap * tanh(score / soft_cap)`; 0 for none. In units of log2, too.
  float soft_cap;
  /// Queries and probabilities have 15 bits instead of 8 where they meet codes.
  bool is_precise;
  /// The largest score so far, -infinity at first; sum of 2^(score - maximum) and of that times the value.
  float *maxima;
  float *sums;
  /// `[TCK_QUERY_ROWS][tck_padded_dimension(head dimension)]`.
  float *outputs;
  /// tck_attention_workspace_bytes(head dimension), aligned to 64 bytes: the caller's, one per thread.
  void *workspace;
} tck_queries;

/// From how many queries of a KV head on restoring a tile and multiplying matrices is faster than attend_blocks or
/// attend_rows: for quantized blocks in fast and in precise mode, and for what is in full precision.
///
/// Measured with `Tools/Benchmarks/run --only queries`, against OpenBLAS on one thread.
typedef struct tck_product_rows {
  size_t fast, precise, full;
} tck_product_rows;

typedef struct tck_kernels {
  const char *name;
  tck_product_rows product_rows;

  /// Converts `count` elements to float32, exactly.
  void (*widen)(tck_element_type type, const void *source, size_t count, float *destination);

  /// Converts `count` float32 values, rounding to nearest, ties to even; overflow gives infinity, NaN stays NaN.
  void (*narrow)(tck_element_type type, const float *source, size_t count, void *destination);

  /// Adds each channel's sum and sum of squares over `tokens` rows to `sums` and `squares`.
  ///
  /// Runs of 32 rows, from the first, are added up in float32 in row order, then added to the float64 totals.
  /// Of a total that is NaN only that is certain, not its sign and payload.
  void (*add_channel_sums)(tck_rows source, size_t tokens, size_t head_dimension, double *sums, double *squares);

  /// Quantizes one run of a block's key channels per channel and packs it; `width` is 2, 4 or 8.
  ///
  /// Writes tck_key_code_bytes codes and tck_padded_channels(count) scales and minima.
  /// Returns false where a value of the run is not finite or exceeds TCK_MAX_QUANTIZED_MAGNITUDE; the bytes
  /// written are then unspecified.
  bool (*pack_keys)(tck_rows source, size_t tokens, tck_channels channels, size_t head_dimension, unsigned width,
                    tck_mutable_packed destination);

  /// Quantizes a block's values per token in groups of `group` channels and packs them; `width` is 2, 4 or 8.
  ///
  /// Writes tck_value_code_bytes codes and tokens * tck_value_groups scales and minima. Returns as pack_keys.
  bool (*pack_values)(tck_rows source, size_t tokens, size_t head_dimension, size_t group, unsigned width,
                      tck_mutable_packed destination);

  /// Restores one run of a block's keys into its channels of the destination's rows; other channels keep their bytes,
  /// but may be written with them: two threads must not restore different runs into the same rows at once.
  void (*unpack_keys)(tck_packed source, size_t tokens, tck_channels channels, size_t head_dimension, unsigned width,
                      tck_mutable_rows destination);

  /// Restores a block's values.
  void (*unpack_values)(tck_packed source, size_t tokens, size_t head_dimension, size_t group, unsigned width,
                        tck_mutable_rows destination);

  /// Copies channels of rows into channel-major order: `destination[i * tokens + t]`, elements of the source's type.
  void (*pack_full_keys)(tck_rows source, size_t tokens, tck_channels channels, void *destination);

  /// The inverse of pack_full_keys, converting to the destination's type; other channels are left alone.
  void (*unpack_full_keys)(tck_element_type type, const void *source, size_t tokens, tck_channels channels,
                           tck_mutable_rows destination);

  /// Attention over up to TCK_TILE_TOKENS tokens of blocks that lie one after another.
  ///
  /// Computes scores, bends and masks them, and adds the tile to the queries' maxima, sums and outputs.
  /// Meanwhile `next_byte_count` bytes from `next` are fetched into the caches: the tile after this one.
  /// `scalar` computes in float32 throughout; the others quantize queries and probabilities where they meet codes, and
  /// expect what an encoder writes: scales that are not negative, and numbers that need no cap.
  void (*attend_blocks)(const tck_block_format *format, const void *blocks, size_t block_count, tck_queries *queries,
                        const void *next, size_t next_byte_count);

  /// Attention over up to TCK_TILE_TOKENS rows of keys and of values in full precision, as attend_blocks.
  ///
  /// A value that is infinite or NaN spoils the outputs of all queries that see any of the tile's tokens.
  void (*attend_rows)(tck_rows keys, tck_rows values, size_t tokens, size_t head_dimension, tck_queries *queries);

  /// The part of attention between two matrix products, for scores that were computed elsewhere.
  ///
  /// Bends and masks `scores`, `[TCK_QUERY_ROWS][TCK_TILE_TOKENS]` of which `tokens` count, turns them into
  /// 2^(score - the queries' maximum), joins maxima and sums, and scales the outputs to the new maximum, so that
  /// adding `scores * values` to them completes the tile. Offsets are not added.
  void (*join_scores)(float *scores, size_t tokens, size_t head_dimension, tck_queries *queries);

  /// Products of a matrix's rows with a vector: `outputs[r]` is the sum of `matrix[r][c] * vector[c]` over `columns`
  /// channels, of which there is at least one and may be any number.
  ///
  /// A row's result does not depend on `rows`, so that threads may share a matrix in any way; of NaN only that is
  /// certain, not its sign and payload. What is not finite in a row reaches its own result only.
  /// `scalar` multiplies and adds in float32, in order; its error is at most `columns * 2^-24` of the sum of the
  /// products' magnitudes. The others fuse and add up in parts: `(columns / 16 + 8) * 2^-24`. To this comes
  /// `columns * 2^-150` where products are subnormal; sums may overflow on the way.
  void (*multiply_rows)(tck_rows matrix, size_t rows, size_t columns, const float *vector, float *outputs);

  /// CRC-32C (Castagnoli, reflected, initial value and final xor all ones) of the bytes so far and these:
  /// `crc` is 0 at first, then the last result.
  uint32_t (*crc32c)(uint32_t crc, const void *bytes, size_t count);
} tck_kernels;

/// The kernels for this machine: the widest instruction set that it has, or the one that the environment variable
/// THINK_COMPRESS_KERNELS names. Null if that names a set which is unknown or which this machine lacks.
const tck_kernels *tck_best_kernels(void);

/// The kernels of one instruction set ("scalar", "avx2", "avx512", "avx512vnni", "neon", "neondotprod"), or null if
/// this machine lacks it.
const tck_kernels *tck_kernels_named(const char *name);

/// Tells the processor that the thread waits for another.
static inline void tck_spin_hint(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");  // Waits longer than `yield`, which does nothing on most cores.
#endif
}

// MARK: - Sizes, in one place for the kernels and their callers

/// Key channels are packed in quads: the run's channel count rounded up to a multiple of 4.
static inline size_t tck_padded_channels(size_t count) { return (count + 3) / 4 * 4; }

/// Bytes of a run's key codes: lines of 64 bytes hold 8/width units of 16 tokens x 4 channels.
static inline size_t tck_key_code_bytes(size_t tokens, size_t count, unsigned width) {
  size_t units = tck_padded_channels(count) / 4 * 2;
  size_t units_per_line = 8 / width;
  return tokens / TCK_SUBBLOCK_TOKENS * ((units + units_per_line - 1) / units_per_line) * 64;
}

/// Bytes of a block's value codes: lines of 64 bytes hold 8/width units of 4 tokens x 16 channels.
static inline size_t tck_value_code_bytes(size_t tokens, size_t head_dimension, unsigned width) {
  size_t units = tokens / 4 * ((head_dimension + 15) / 16);
  size_t units_per_line = 8 / width;
  return (units + units_per_line - 1) / units_per_line * 64;
}

/// Groups of `group` channels in a row of values; the last may be shorter.
static inline size_t tck_value_groups(size_t head_dimension, size_t group) {
  return (head_dimension + group - 1) / group;
}

/// Head dimension of queries and outputs in memory: a multiple of 16.
static inline size_t tck_padded_dimension(size_t head_dimension) { return (head_dimension + 15) / 16 * 16; }

/// Numbers in a row of queries in the order of a block's key runs.
static inline size_t tck_thin_dimension(const tck_block_format *format) {
  size_t total = 0;
  for (size_t run = 0; run < format->key_run_count; run++) total += tck_padded_dimension(format->key_runs[run].count);
  return total;
}

/// The longest row of queries in the order of any block's key runs.
static inline size_t tck_widest_thin_dimension(size_t head_dimension) {
  return tck_padded_dimension(head_dimension) + (TCK_MAX_KEY_RUNS - 1) * 16;
}

/// Bytes that the attention kernels need to work in.
static inline size_t tck_attention_workspace_bytes(size_t head_dimension) {
  size_t thin = tck_widest_thin_dimension(head_dimension);
  size_t groups = (tck_value_groups(head_dimension, TCK_SUBBLOCK_TOKENS) + 3) / 4 * 4;
  size_t tile_blocks = TCK_TILE_TOKENS / TCK_SUBBLOCK_TOKENS;
  size_t constants = groups > tile_blocks ? groups : tile_blocks;
  size_t floats = TCK_QUERY_ROWS * (TCK_TILE_TOKENS + thin + constants + groups);
  size_t keys = tile_blocks * TCK_QUERY_ROWS * thin;
  size_t values = TCK_TILE_TOKENS * TCK_QUERY_ROWS * groups;
  return floats * sizeof(float) + 2 * (keys > values ? keys : values);
}

#endif

// Kernels over blocks of a key-value cache, in plain C.
//
// Every kernel exists once per instruction set; `scalar` is the definition and the others give the same bits, but for
// attention, where they agree within a tolerance: relative error of the output 5e-4 in precise mode, 3.5e-2 in fast;
// and for multiply_rows and multiply_gates, which state their own.
// The layouts of caches are specified in Formats/kivi.md and Formats/full-precision.md; names below are theirs.
//
// Rules for all kernels (attention, multiply_rows and multiply_gates may fuse multiply-add; attention's workspace is
// aligned)
// - No allocation, no logging, no failure; pointers need no alignment and may not overlap unless said.
// - Arithmetic is float32 in the order written, without fused multiply-add, so that bytes are equal everywhere.
// - A "row" is one token's `head_dimension` values of one KV head; rows lie `token_stride` bytes apart.
// - Limits: dimensions of heads 1...TCK_MAX_HEAD_DIMENSION, `tokens` of a packed block 32, 64 or 128.

#ifndef THINK_KERNELS_H
#define THINK_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TCK_MAX_HEAD_DIMENSION 1024
#define TCK_MAX_BLOCK_TOKENS 128
/// Tokens of a page: what the attention kernels take at once.
#define TCK_PAGE_TOKENS 256
/// Codes lie in lines of so many bytes; a block's keys and its values begin at multiples of it.
#define TCK_LINE_BYTES 64
/// Tokens whose codes lie together: of keys in two halves of 16 lanes, of values in fours.
#define TCK_SUBBLOCK_TOKENS 32
/// Runs of key channels in a plan at the most, and runs of components of values.
#define TCK_MAX_KEY_RUNS 4
/// Channels of a group of values with compact scales.
#define TCK_COMPACT_VALUE_GROUP 64
/// The largest magnitude that quantization takes: float16's largest finite value.
#define TCK_MAX_QUANTIZED_MAGNITUDE 65504.0f

/// Element types; the numbers are those of Formats/snapshot.md, "Element types".
typedef enum tck_element_type {
  TCK_FLOAT16 = 1,
  TCK_BFLOAT16 = 2,
  TCK_FLOAT32 = 3,
} tck_element_type;

/// How a model's weights are stored: as numbers, or in blocks of ggml's quantized formats. The numbers are ggml's, as
/// GGUF files have them.
typedef enum tck_weight_type {
  TCK_WEIGHT_F32 = 0,
  TCK_WEIGHT_F16 = 1,
  TCK_WEIGHT_Q4_0 = 2,
  TCK_WEIGHT_Q4_1 = 3,
  TCK_WEIGHT_Q5_0 = 6,
  TCK_WEIGHT_Q5_1 = 7,
  TCK_WEIGHT_Q8_0 = 8,
  TCK_WEIGHT_Q2_K = 10,
  TCK_WEIGHT_Q3_K = 11,
  TCK_WEIGHT_Q4_K = 12,
  TCK_WEIGHT_Q5_K = 13,
  TCK_WEIGHT_Q6_K = 14,
  TCK_WEIGHT_IQ4_NL = 20,
  TCK_WEIGHT_BF16 = 30,
  TCK_WEIGHT_MXFP4 = 39,
} tck_weight_type;

/// Weights of a row that are stored together, and the bytes that they take.
typedef struct tck_weight_block {
  size_t length;
  size_t bytes;
} tck_weight_block;

/// What the gate of a feed-forward layer is sent through: `x * sigmoid(s)`, with s the gate x itself for SiLU, and
/// `sqrt(8 / pi) * (x + 0.044715 x^3)` for GELU (in its form with tanh).
typedef enum tck_activation {
  TCK_SILU,
  TCK_GELU,
} tck_activation;

/// Rows to read.
typedef struct tck_rows {
  const void *bytes;
  size_t token_stride;
  tck_element_type type;
} tck_rows;

/// Rows of a matrix of weights. A row is whole blocks, one after another.
typedef struct tck_weights {
  const void *bytes;
  /// Bytes from one row to the next.
  size_t row_stride;
  tck_weight_type type;
} tck_weights;

/// Rows to write.
typedef struct tck_mutable_rows {
  void *bytes;
  size_t token_stride;
  tck_element_type type;
} tck_mutable_rows;

/// How the scales and minima of groups are stored.
typedef enum tck_scale_format {
  /// In full precision there are none.
  TCK_NO_SCALES = 0,
  /// A scale and a minimum in float16.
  TCK_FLOAT16_SCALES = 1,
  /// A byte for the scale's logarithm, and in place of the minimum a signed one for the middle of the range:
  /// Formats/kivi.md, "Compact scales".
  TCK_COMPACT_SCALES = 2,
} tck_scale_format;

/// How the ranges of groups are chosen when they are packed.
typedef enum tck_range_rule {
  /// From the least number to the greatest.
  TCK_LEAST_TO_GREATEST = 0,
  /// Of some ranges the one of least squared error: Formats/kivi.md, "Fitted ranges".
  TCK_FITTED_RANGES = 1,
} tck_range_rule;

/// What values are multiplied by before they are quantized.
typedef enum tck_rotation {
  TCK_NO_ROTATION = 0,
  /// A normalized Hadamard matrix: rotate_rows.
  TCK_HADAMARD = 1,
} tck_rotation;

/// How the numbers of a key run, or of a block's values, are stored.
typedef struct tck_coding {
  /// Bits per number, 1...5 or 8; 0 for full precision.
  uint8_t width;
  /// A tck_scale_format.
  uint8_t scales;
  /// A tck_range_rule, for packing.
  uint8_t ranges;
  /// A tck_rotation, for values: tck_pack_block applies it, and whoever restores values or attends to them undoes it.
  uint8_t rotation;
} tck_coding;

/// The key channels of one run: `channels[i]` is the source channel of the run's channel i.
typedef struct tck_channels {
  const uint16_t *indices;
  size_t count;
} tck_channels;

/// Where the parts of a quantized run (keys) or of a block's values lie; the coding says what scales and minima are.
typedef struct tck_packed {
  const uint8_t *codes;
  const void *scales;
  const void *minima;
} tck_packed;

typedef struct tck_mutable_packed {
  uint8_t *codes;
  void *scales;
  void *minima;
} tck_mutable_packed;

/// What is stored of groups, and what their codes are computed with: an element for each group.
typedef struct tck_quantizers {
  /// As the coding says.
  void *scales, *minima;
  /// The stored minimum, and 1 / the stored scale; 0 where that is 0.
  float *minimum_values, *inverse_scales;
} tck_quantizers;

// MARK: - Plans and blocks

/// The key channels of one coding in a plan.
typedef struct tck_coded_channels {
  size_t count;
  tck_coding coding;
} tck_coded_channels;

/// How the blocks of a head are packed: Formats/snapshot.md, "PLAN".
typedef struct tck_block_plan {
  size_t tokens;
  size_t key_dimension, value_dimension;
  /// The type of what is in full precision.
  tck_element_type full_type;
  size_t key_run_count;
  tck_coded_channels key_runs[TCK_MAX_KEY_RUNS];
  tck_coding values;
  /// Runs of components, which are then all there is of values; 0 where values have one coding per token.
  size_t value_run_count;
  tck_coded_channels value_runs[TCK_MAX_KEY_RUNS];
} tck_block_plan;

/// A run of key channels, or of components of values, in a block; of one in full precision only `codes` counts.
typedef struct tck_key_run {
  size_t count;
  tck_coding coding;
  // Offsets in the block, in bytes.
  size_t codes, scales, minima;
} tck_key_run;

/// What a block holds, and where.
typedef struct tck_block_format {
  size_t tokens;
  size_t byte_count;
  size_t key_dimension, value_dimension;
  /// The type of what is in full precision.
  tck_element_type full_type;
  size_t key_run_count;
  tck_key_run key_runs[TCK_MAX_KEY_RUNS];
  /// In full precision only `value_codes` counts.
  tck_coding value_coding;
  /// Channels of a group of values, a multiple of 32.
  size_t value_group;
  // Offsets in the block, in bytes.
  size_t value_codes, value_scales, value_minima;
  /// Runs of components: Formats/calibrated.md, "Blocks". Where there are some, `value_dimension` is the number of their
  /// components, and the fields about values above do not count.
  size_t value_run_count;
  tck_key_run value_runs[TCK_MAX_KEY_RUNS];
} tck_block_format;

/// Where everything lies in a block of a plan.
///
/// Nothing is checked: callers see to it that the plan keeps the format's rules. Where the value dimension is 0, for
/// layers without values, their parts are empty; there is nothing to attend to then.
tck_block_format tck_layout(const tck_block_plan *plan);

// MARK: - Attention

/// Queries that share every code that is unpacked.
#define TCK_QUERY_ROWS 4

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
  /// `[TCK_QUERY_ROWS][tck_padded_dimension(key dimension)]`, zero beyond the key dimension and beyond `count`.
  const float *rows;
  /// Of the same queries the kept channels, in the order of a block's key runs:
  /// `[TCK_QUERY_ROWS][tck_kept_dimension(format)]`; every run begins at a multiple of 16 and is padded with zeros.
  const float *kept_rows;
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
  /// `[TCK_QUERY_ROWS][tck_padded_dimension(value dimension)]`.
  float *outputs;
  /// tck_attention_workspace_bytes(key and value dimension), aligned to 64 bytes: the caller's, one per thread.
  void *workspace;
} tck_queries;

/// From how many queries of a KV head on restoring a tile and multiplying matrices is faster than attend_blocks or
/// attend_rows: for quantized blocks in fast and in precise mode, and for what is in full precision.
///
/// Measured with `Tools/Benchmarks/run --only queries`, against OpenBLAS on one thread.
typedef struct tck_product_rows {
  size_t fast, precise, full;
} tck_product_rows;

// MARK: - Archive coding
//
// What archives are coded with: Formats/archive-coder.md. Everything here gives the same bits everywhere.

/// Lanes that symbols are coded in, in turns.
#define TCK_SYMBOL_LANES 16
/// Tables of frequencies: two families (0 Gaussian, 1 logistic) of TCK_SYMBOL_SCALES each. Table number
/// `family * TCK_SYMBOL_SCALES + q` is that of the standard deviation 2^(q / 4 - 5).
#define TCK_SYMBOL_TABLES 56
#define TCK_SYMBOL_SCALES 28
/// Symbols of a table: -TCK_SYMBOL_LIMIT...TCK_SYMBOL_LIMIT in order, and then the escape.
#define TCK_SYMBOLS 64
/// The largest magnitude of a symbol.
#define TCK_SYMBOL_LIMIT 31
/// Stands for every symbol that a table lacks.
#define TCK_ESCAPE (-32)
/// Frequencies of a table add up to this.
#define TCK_FREQUENCY_TOTAL 4096
/// Bytes of coded symbols besides their words: the decoder's states.
#define TCK_SYMBOL_STATE_BYTES (TCK_SYMBOL_LANES * 4)

/// What decodes symbols. `words` are 16-bit, little-endian and at any address.
typedef struct tck_symbol_decoder {
  /// At least 2^16 each; decode_symbols keeps them so.
  uint32_t states[TCK_SYMBOL_LANES];
  const uint8_t *words;
  const uint8_t *end;
  /// False once there were not enough words; the missing ones are taken for 0.
  bool is_valid;
  /// Set once a symbol was TCK_ESCAPE; callers may clear it.
  bool has_escape;
} tck_symbol_decoder;

/// What is decoded of one decoder at a time: symbols of a table.
typedef struct tck_symbol_call {
  tck_symbol_decoder *decoder;
  unsigned table;
  int16_t *symbols;
} tck_symbol_call;

/// What encodes symbols, the last first. Words are written downwards from the end of a buffer.
typedef struct tck_symbol_encoder {
  uint32_t states[TCK_SYMBOL_LANES];
  /// The words so far begin here.
  uint16_t *next;
} tck_symbol_encoder;

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

  /// Converts rows to float32 and subtracts the mean of each channel. The destination's rows, of `dimension` numbers each,
  /// follow each other. Returns whether all numbers of the source are finite and at most TCK_MAX_QUANTIZED_MAGNITUDE.
  bool (*subtract_means)(tck_rows source, size_t count, size_t dimension, const float *means, float *destination);

  /// Adds the mean of each channel to rows of `dimension` numbers that follow each other, keeps the sums within
  /// TCK_MAX_QUANTIZED_MAGNITUDE, and stores them as narrow does.
  void (*add_means)(const float *source, size_t count, size_t dimension, const float *means,
                    tck_mutable_rows destination);

  /// Rotates rows that follow each other, in place: Formats/kivi.md, "Rotated values". The inverse of itself, but for
  /// rounding.
  void (*rotate_rows)(float *rows, size_t count, size_t dimension);

  // Quantizing takes these steps, which tck_pack_keys and tck_pack_values put together: the ranges of groups, fitting
  // them if the coding says so, what is stored of them, and the codes. Groups are in the order in which their scales are
  // stored.

  /// The least and the greatest number of every channel of a run, negative zero taken as zero.
  ///
  /// Writes tck_padded_channels(count) of each, zeros for missing channels. Returns false where a number of the run is
  /// not finite or exceeds TCK_MAX_QUANTIZED_MAGNITUDE; what is written is then unspecified.
  bool (*key_ranges)(tck_rows source, size_t tokens, tck_channels channels, size_t head_dimension, float *minima,
                     float *maxima);

  /// The least and the greatest number of every group of `group` channels of a token's values, as key_ranges.
  ///
  /// Writes tokens * tck_value_groups of each; `tokens` is a multiple of 32.
  bool (*value_ranges)(tck_rows source, size_t tokens, size_t head_dimension, size_t group, float *minima,
                       float *maxima);

  /// Narrows ranges to those of least squared error, by the coding's width and scales: Formats/kivi.md, "Fitted ranges".
  ///
  /// Each row of `groups` has the `count` numbers of a group, TCK_MAX_BLOCK_TOKENS at the most; `minima` and `maxima` are
  /// their least and greatest.
  void (*fit_ranges)(tck_coding coding, tck_rows groups, size_t count, size_t group_count, float *minima,
                     float *maxima);

  /// Computes what is stored of any number of groups from their ranges: magnitudes of at most
  /// TCK_MAX_QUANTIZED_MAGNITUDE, and no negative zero. `minimum_values` may be the array `minima`, and
  /// `inverse_scales` the array `maxima`.
  void (*encode_scales)(tck_coding coding, size_t groups, const float *minima, const float *maxima,
                        tck_quantizers quantizers);

  /// Packs the codes of one run of a block's key channels, tck_key_code_bytes; `width` is 1...5 or 8.
  ///
  /// A code is `(key - minimum) * inverse scale`, of a magnitude below 2^31, rounded to nearest, ties to even, and
  /// clamped to the width's numbers. Minima and inverse scales of missing channels are 0.
  void (*pack_keys)(tck_rows source, size_t tokens, tck_channels channels, size_t head_dimension, unsigned width,
                    const float *minima, const float *inverse_scales, uint8_t *codes);

  /// Packs the codes of a block's values, tck_value_code_bytes, as pack_keys; `tokens` is a multiple of 32.
  void (*pack_values)(tck_rows source, size_t tokens, size_t head_dimension, size_t group, unsigned width,
                      const float *minima, const float *inverse_scales, uint8_t *codes);

  /// Restores one run of a block's keys into its channels of the destination's rows; other channels keep their bytes,
  /// but may be written with them: two threads must not restore different runs into the same rows at once.
  void (*unpack_keys)(tck_packed source, size_t tokens, tck_channels channels, size_t head_dimension,
                      tck_coding coding, tck_mutable_rows destination);

  /// Restores a block's values.
  void (*unpack_values)(tck_packed source, size_t tokens, size_t head_dimension, size_t group, tck_coding coding,
                        tck_mutable_rows destination);

  /// Copies channels of rows into channel-major order: `destination[i * tokens + t]`, elements of the source's type.
  void (*pack_full_keys)(tck_rows source, size_t tokens, tck_channels channels, void *destination);

  /// The inverse of pack_full_keys, converting to the destination's type; other channels are left alone.
  void (*unpack_full_keys)(tck_element_type type, const void *source, size_t tokens, tck_channels channels,
                           tck_mutable_rows destination);

  /// Attention over up to TCK_PAGE_TOKENS tokens of blocks that lie one after another.
  ///
  /// Computes scores, bends and masks them, and adds the tile to the queries' maxima, sums and outputs.
  /// Meanwhile `next_byte_count` bytes from `next` are fetched into the caches: the tile after this one.
  /// `scalar` computes in float32 throughout; the others quantize queries and probabilities where they meet codes, and
  /// expect what an encoder writes: scales that are not negative, and numbers that need no cap.
  void (*attend_blocks)(const tck_block_format *format, const void *blocks, size_t block_count, tck_queries *queries,
                        const void *next, size_t next_byte_count);

  /// Attention over up to TCK_PAGE_TOKENS rows of keys and of values in full precision, as attend_blocks.
  ///
  /// A value that is infinite or NaN spoils the outputs of all queries that see any of the tile's tokens.
  void (*attend_rows)(tck_rows keys, tck_rows values, size_t tokens, size_t key_dimension, size_t value_dimension,
                      tck_queries *queries);

  /// Products of a basis with queries: `outputs[r][k]` is the sum of `matrix[k][c] * rows[r][c]` over the channels.
  ///
  /// - matrix: `[components][channels]` signed bytes; `channels` is a multiple of 16.
  /// - rows, outputs: lie so many numbers apart.
  void (*project_rows)(const int8_t *matrix, size_t components, size_t channels, const float *rows, size_t row_stride,
                       size_t count, float *outputs, size_t output_stride);

  /// The opposite: `outputs[r][c]` is the sum of `rows[r][k] * matrix[k][c]` over the components.
  void (*expand_rows)(const int8_t *matrix, size_t components, size_t channels, const float *rows, size_t row_stride,
                      size_t count, float *outputs, size_t output_stride);

  /// The part of attention between two matrix products, for scores that were computed elsewhere.
  ///
  /// Bends and masks `scores`, `[TCK_QUERY_ROWS][TCK_PAGE_TOKENS]` of which `tokens` count, turns them into
  /// 2^(score - the queries' maximum), joins maxima and sums, and scales the outputs to the new maximum, so that
  /// adding `scores * values` to them completes the tile. Offsets are not added.
  void (*join_scores)(float *scores, size_t tokens, size_t value_dimension, tck_queries *queries);

  /// Replaces each of `count` gates by its activation times `ups` of the same number.
  ///
  /// The sigmoid is exact within 2^-16 of itself and 2^-59. NaN stays NaN; of infinite gates nothing is said.
  void (*multiply_gates)(tck_activation activation, float *gates, const float *ups, size_t count);

  /// Converts `count` weights, whole blocks, to float32: the numbers that the Python package gguf gives. Of NaN only
  /// that is certain, not its sign and payload.
  void (*widen_weights)(tck_weight_type type, const void *source, size_t count, float *destination);

  /// Products of a matrix's rows with a vector: `outputs[r]` is the sum of `matrix[r][c] * vector[c]` over `columns`
  /// channels, of which there is at least one block and may be any number.
  ///
  /// A row's result does not depend on `rows`, so that threads may share a matrix in any way; of NaN only that is
  /// certain, not its sign and payload. What is not finite in a row reaches its own result only, which is then not
  /// finite either.
  /// `scalar` widens, multiplies and adds in float32, in order; its error is at most `columns * 2^-24` of the sum of the
  /// products' magnitudes. The others fuse and add up in parts: `(columns / 16 + 8) * 2^-24`. To this comes
  /// `columns * 2^-150` where products are subnormal; sums may overflow on the way.
  /// Where weights are in blocks the others multiply codes and scale sums of these products: in place of a weight's
  /// magnitude counts three times the largest that any code of its group stands for, with `(columns / 16 + 16) * 2^-24`,
  /// and to this comes 2^-126 of the sum of these, for vectors that are hardly more.
  void (*multiply_rows)(tck_weights matrix, size_t rows, size_t columns, const float *vector, float *outputs);

  /// CRC-32C (Castagnoli, reflected, initial value and final xor all ones) of the bytes so far and these:
  /// `crc` is 0 at first, then the last result.
  uint32_t (*crc32c)(uint32_t crc, const void *bytes, size_t count);

  /// Products of a matrix with another: `outputs[r * output_stride + c]` is the sum of
  /// `left[r * left_row_stride + i * left_inner_stride] * right[i * right_stride + c]` over `inner` numbers i, of which
  /// there may be none.
  ///
  /// Strides are in elements. The left matrix may be transposed: its rows are then 1 apart, which is fastest where it is
  /// large. Sums begin at 0 and are added up in the order of i; each product and each sum is rounded to float32, so that
  /// the bits are the same however the work is divided. Of NaN only that is certain, not its sign and payload.
  void (*multiply_in_order)(const float *left, size_t left_row_stride, size_t left_inner_stride, size_t rows,
                            const float *right, size_t right_stride, size_t inner, size_t columns, float *outputs,
                            size_t output_stride);

  /// Goes on with sums of multiply_in_order: adds `codes[i * code_stride + r] * right[i * right_stride + c]` to
  /// `outputs[r * output_stride + c]`, for each i in order, leaving out codes that are 0. For codes of which most are.
  void (*add_sparse_products)(const int16_t *codes, size_t code_stride, size_t rows, const float *right,
                              size_t right_stride, size_t inner, size_t columns, float *outputs, size_t output_stride);

  /// Encodes what a call of decode_symbols for one decoder gives. Calls come in the reverse order of decoding.
  ///
  /// Writes at the most one word for each symbol. No symbol may have frequency 0: callers pass TCK_ESCAPE instead.
  void (*encode_symbols)(tck_symbol_encoder *encoder, unsigned table, const int16_t *symbols, size_t count);

  /// Decodes `count` symbols of each of `call_count` decoders, which are side by side since each waits for its own states.
  /// Symbol j is of lane j % TCK_SYMBOL_LANES: every call begins at lane 0.
  ///
  /// Nothing is read beyond a decoder's end, whatever its states are.
  void (*decode_symbols)(const tck_symbol_call *calls, size_t call_count, size_t count);

  /// `numbers[j]` is `codes[j] * step`.
  void (*widen_codes)(const int16_t *codes, size_t count, float step, float *numbers);

  /// A code is `numbers[j] * inverse_step`, rounded to nearest, ties to even. Returns false where one would not be within
  /// -32767...32767, or is NaN; all codes are then unspecified.
  bool (*round_to_codes)(const float *numbers, size_t count, float inverse_step, int16_t *codes);

  /// Rows of sums over components: number c of row r is `sums[r * sum_stride + c] * steps[r] + means[c]`, each operation
  /// rounded. Then numbers i < `pairs` and i + `pairs` of each, called a and b, become `a * cosine - b * sine` and
  /// `b * cosine + a * sine`.
  ///
  /// - cosines, sines: `[count][pairs]`: tck_rotary_angles. Not null, even where there are no pairs.
  /// - rows: `[count][dimension]`.
  void (*restore_rows)(const float *sums, size_t sum_stride, size_t count, size_t dimension, const float *steps,
                       const float *means, size_t pairs, const float *cosines, const float *sines, float *rows);

  /// Rotates pairs of numbers back, in place: a and b of restore_rows become `a * cosine + b * sine` and
  /// `b * cosine - a * sine`, by angles as there. Rows lie `row_stride` elements apart.
  void (*rotate_back)(float *rows, size_t count, size_t row_stride, size_t pairs, const float *cosines,
                      const float *sines);
} tck_kernels;

/// The kernels for this machine: the widest instruction set that it has, or the one that the environment variable
/// THINK_COMPRESS_KERNELS names. Null if that names a set which is unknown or which this machine lacks.
const tck_kernels *tck_best_kernels(void);

/// The kernels of one instruction set ("scalar", "avx2", "avx512", "avx512vnni", "neon", "neondotprod"), or null if
/// this machine lacks it.
const tck_kernels *tck_kernels_named(const char *name);

// MARK: - Packing

/// Quantizes one run of a block's key channels, each channel a group, and packs it.
///
/// Returns false where the run has a number that can't be quantized (see key_ranges); the bytes are then unspecified.
bool tck_pack_keys(const tck_kernels *kernels, tck_rows source, size_t tokens, tck_channels channels,
                   size_t head_dimension, tck_coding coding, tck_mutable_packed destination);

/// Quantizes a block's values per token in groups of `group` channels, 32, 64 or 128, and packs them; as tck_pack_keys.
bool tck_pack_values(const tck_kernels *kernels, tck_rows source, size_t tokens, size_t head_dimension, size_t group,
                     tck_coding coding, tck_mutable_packed destination);

/// Copies some channels of rows, those of `channels` in their order, to rows of as many elements that follow each other.
void tck_gather_channels(tck_rows source, size_t tokens, tck_channels channels, void *destination);

/// Copies rows of as many elements as there are channels, which follow each other, to those channels of rows; others stay
/// as they are. The elements are of the destination's type.
void tck_scatter_channels(const void *source, size_t tokens, tck_channels channels, tck_mutable_rows destination);

/// What is subtracted from numbers with compact scales before they are packed, and memory to do it in.
typedef struct tck_centering {
  /// The mean of every channel, which does not count where a run's keys have no compact scales. Null where none have.
  const float *key_means, *value_means;
  /// tck_packing_floats of the format.
  float *workspace;
} tck_centering;

/// Floats that tck_pack_block needs to work in.
size_t tck_packing_floats(const tck_block_format *format);

/// Packs a whole block, but for the bytes between its parts.
///
/// `channels` are those of all runs, one run after another. Rows have the format's type where a part of theirs is in
/// full precision. Returns as tck_pack_keys.
bool tck_pack_block(const tck_kernels *kernels, const tck_block_format *format, const uint16_t *channels,
                    tck_rows keys, tck_rows values, tck_centering centering, void *block);

/// Packs a whole block of components, but for the bytes between its parts: rows of float32 that have the components of
/// the format's key runs and value runs, in their order.
///
/// Returns as tck_pack_keys.
bool tck_pack_components(const tck_kernels *kernels, const tck_block_format *format, tck_rows keys, tck_rows values,
                         void *block);

/// Bytes that tck_unpack_components needs to work in.
size_t tck_unpacking_bytes(const tck_block_format *format);

/// Restores components of a block: those of its key runs, or those of its value runs, to rows of float32.
void tck_unpack_components(const tck_kernels *kernels, const tck_block_format *format, bool of_values, const void *block,
                           void *workspace, float *destination, size_t row_stride);

// MARK: - Coding of symbols

/// The frequencies of a table's TCK_SYMBOLS symbols. One may be 0, but not the escape's.
const uint16_t *tck_symbol_frequencies(unsigned table);

/// What each of a table's TCK_SYMBOLS symbols costs, in 1/256 bit, rounded. The escape's cost includes 16 bits for the
/// number that it stands for; a symbol of frequency 0 costs as much.
const uint16_t *tck_symbol_costs(unsigned table);

/// The sum of the numbers' squares.
uint64_t tck_sum_of_squares(const int16_t *codes, size_t count);

/// Counts the symbols of at most 65,535 numbers, the low bits taken off: `counts[v + TCK_SYMBOL_LIMIT]` of symbol v, the
/// last of those that need an escape.
void tck_count_symbols(const int16_t *codes, size_t count, unsigned low_bits, uint16_t counts[TCK_SYMBOLS]);

/// What so many symbols cost in a table, in 1/256 bit.
uint32_t tck_symbols_cost(unsigned table, const uint16_t counts[TCK_SYMBOLS]);

/// Whether all numbers are symbols of a table as they are. False where one needs an escape, or may.
bool tck_need_no_escape(unsigned table, const int16_t *codes, size_t count);

/// What the decoder needs to know of each state modulo TCK_FREQUENCY_TOTAL: the symbol, signed, in the highest 8 bits,
/// then its frequency, and in the lowest 12 bits by how much the state's remainder exceeds the symbol's first.
const uint32_t *tck_symbol_lookup(unsigned table);

/// An encoder that writes into a buffer of words, of which there must be as many as symbols.
tck_symbol_encoder tck_start_encoder(uint16_t *buffer, size_t word_count);

/// Writes the states, TCK_SYMBOL_STATE_BYTES of them, as tck_start_decoder takes them, and returns where the words begin,
/// which go on to the buffer's end.
const uint8_t *tck_finish_symbols(const tck_symbol_encoder *encoder, void *states);

/// A decoder of words by the encoder's states. It is not valid where a state is below 2^16; it then decodes nonsense.
tck_symbol_decoder tck_start_decoder(const void *states, const void *words, size_t word_count);

/// Whether the decoder has decoded everything, and rightly as far as can be told: it is valid, has no words left, and its
/// states are those that an encoder begins with.
bool tck_has_ended(const tck_symbol_decoder *decoder);

/// Rows of one head that are restored from sums over components, and where they go.
typedef struct tck_restored_rows {
  /// The row of a place is `sums * step + means`, turned to its position.
  const float *sums;
  /// Elements from one row's sums to the next.
  size_t sum_stride;
  size_t dimension;
  const float *steps;
  const float *means;
  /// Places of the rows; those from `place_count` on are left out.
  const uint32_t *places;
  size_t place_count;
  /// Of every place `[pairs]`: tck_rotary_angles. No pairs for values.
  size_t pairs;
  const float *cosines;
  const float *sines;
  /// The row of place 0.
  tck_mutable_rows destination;
} tck_restored_rows;

/// Turns rows of so many numbers into columns, and subtracts a mean from each: number c of row r becomes
/// `columns[c * column_stride + places[r]]`, unless the place is UINT32_MAX.
void tck_center_columns(const float *rows, const uint32_t *places, size_t count, size_t dimension, const float *means,
                        float *columns, size_t column_stride);

/// Stores rows, bounded by TCK_MAX_QUANTIZED_MAGNITUDE.
void tck_store_restored_rows(const tck_kernels *kernels, const tck_restored_rows *restored, size_t count);

/// Cosines and sines of `position * frequency`, `[count][pairs]`: Formats/archive-coder.md, "Rotary angles".
///
/// They are those of the product as float64 within 1e-15 before they are rounded to float32, for angles below 2^31; and
/// that product is exact where positions are below 2^29.
void tck_rotary_angles(const float *frequencies, size_t pairs, const int32_t *positions, size_t count, float *cosines,
                       float *sines);

/// Tells the processor that the thread waits for another.
static inline void tck_spin_hint(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");  // Waits longer than `yield`, which does nothing on most cores.
#endif
}

// MARK: - Sizes, in one place for the kernels and their callers

/// Bytes of an element.
static inline size_t tck_element_bytes(tck_element_type type) { return type == TCK_FLOAT32 ? 4 : 2; }

/// The block of a weight type; `length` is 0 for a number that is none of the types.
static inline tck_weight_block tck_weight_block_of(tck_weight_type type) {
  switch (type) {
    case TCK_WEIGHT_F32: return (tck_weight_block){1, 4};
    case TCK_WEIGHT_F16:
    case TCK_WEIGHT_BF16: return (tck_weight_block){1, 2};
    case TCK_WEIGHT_Q4_0:
    case TCK_WEIGHT_IQ4_NL: return (tck_weight_block){32, 18};
    case TCK_WEIGHT_Q4_1: return (tck_weight_block){32, 20};
    case TCK_WEIGHT_Q5_0: return (tck_weight_block){32, 22};
    case TCK_WEIGHT_Q5_1: return (tck_weight_block){32, 24};
    case TCK_WEIGHT_Q8_0: return (tck_weight_block){32, 34};
    case TCK_WEIGHT_MXFP4: return (tck_weight_block){32, 17};
    case TCK_WEIGHT_Q2_K: return (tck_weight_block){256, 84};
    case TCK_WEIGHT_Q3_K: return (tck_weight_block){256, 110};
    case TCK_WEIGHT_Q4_K: return (tck_weight_block){256, 144};
    case TCK_WEIGHT_Q5_K: return (tck_weight_block){256, 176};
    case TCK_WEIGHT_Q6_K: return (tck_weight_block){256, 210};
  }
  return (tck_weight_block){0, 0};
}

/// Bytes of a stored scale, and of what is stored for a minimum.
static inline size_t tck_scale_bytes(tck_coding coding) {
  return coding.scales == TCK_FLOAT16_SCALES ? sizeof(uint16_t) : coding.scales == TCK_COMPACT_SCALES ? 1 : 0;
}

/// Key channels are packed in quads: the run's channel count rounded up to a multiple of 4.
static inline size_t tck_padded_channels(size_t count) { return (count + 3) / 4 * 4; }

/// Bits of a code in its first plane; codes of width 3 and 5 have their highest bit in a second one: Formats/kivi.md,
/// "Lines".
static inline unsigned tck_first_plane_width(unsigned width) { return width == 3 || width == 5 ? width - 1 : width; }

/// Bytes of the lines of one plane of `units` units, of which a line holds 8/width.
static inline size_t tck_plane_bytes(size_t units, unsigned width) { return (units * width + 7) / 8 * TCK_LINE_BYTES; }

/// Bytes of the lines of `units` units of codes.
static inline size_t tck_line_bytes(size_t units, unsigned width) {
  unsigned first = tck_first_plane_width(width);
  return tck_plane_bytes(units, first) + tck_plane_bytes(units, width - first);
}

/// Units of a run's key codes in a sub-block: of 16 tokens x 4 channels.
static inline size_t tck_key_units(size_t count) { return TCK_SUBBLOCK_TOKENS / 16 * (tck_padded_channels(count) / 4); }

/// Units of value codes in a sub-block: of 4 tokens x 16 channels.
static inline size_t tck_value_units(size_t head_dimension) {
  return TCK_SUBBLOCK_TOKENS / 4 * ((head_dimension + 15) / 16);
}

/// Bytes of a run's key codes.
static inline size_t tck_key_code_bytes(size_t tokens, size_t count, unsigned width) {
  return tokens / TCK_SUBBLOCK_TOKENS * tck_line_bytes(tck_key_units(count), width);
}

/// Bytes of a block's value codes.
static inline size_t tck_value_code_bytes(size_t tokens, size_t head_dimension, unsigned width) {
  return tokens / TCK_SUBBLOCK_TOKENS * tck_line_bytes(tck_value_units(head_dimension), width);
}

/// Groups of `group` channels in a row of values; the last may be shorter.
static inline size_t tck_value_groups(size_t head_dimension, size_t group) {
  return (head_dimension + group - 1) / group;
}

/// The place of the scale and minimum of a token's group among those of `groups` for each token: Formats/kivi.md, "Value
/// scales and minima".
static inline size_t tck_value_group_index(size_t token, size_t group, size_t groups) {
  return (token / 4 * groups + group) * 4 + token % 4;
}

/// Dimension of queries and outputs in memory: a multiple of 16.
static inline size_t tck_padded_dimension(size_t dimension) { return (dimension + 15) / 16 * 16; }

/// Numbers in a row of queries in the order of a block's key runs.
static inline size_t tck_kept_dimension(const tck_block_format *format) {
  size_t total = 0;
  for (size_t run = 0; run < format->key_run_count; run++) total += tck_padded_dimension(format->key_runs[run].count);
  return total;
}

/// The longest row of queries in the order of any block's key runs.
static inline size_t tck_widest_kept_dimension(size_t key_dimension) {
  return tck_padded_dimension(key_dimension) + (TCK_MAX_KEY_RUNS - 1) * 16;
}

/// Floats that sums over a tile's runs of value components take, for as many components: 16 of each query and quad of
/// components and of each query and 16 components, eight times 16 for 16 components of a run, and a query's components.
static inline size_t tck_run_sum_floats(size_t components) {
  size_t quads = (components + 3) / 4 + TCK_MAX_KEY_RUNS, sixteens = (components + 15) / 16 + TCK_MAX_KEY_RUNS;
  return 16 * (TCK_QUERY_ROWS * (quads + sixteens) + 8 * sixteens + sixteens + 1);
}

/// Bytes that the attention kernels need to work in.
static inline size_t tck_attention_workspace_bytes(size_t key_dimension, size_t value_dimension) {
  size_t kept = tck_widest_kept_dimension(key_dimension);
  size_t groups = (tck_value_groups(value_dimension, TCK_SUBBLOCK_TOKENS) + 3) / 4 * 4;
  size_t tile_blocks = TCK_PAGE_TOKENS / TCK_SUBBLOCK_TOKENS;
  size_t constants = groups > tile_blocks ? groups : tile_blocks;
  size_t floats = TCK_QUERY_ROWS * (TCK_PAGE_TOKENS + kept + constants + groups);
  size_t keys = tile_blocks * TCK_QUERY_ROWS * kept;
  size_t values = TCK_PAGE_TOKENS * TCK_QUERY_ROWS * groups;
  // Sums begin at a multiple of 64 bytes.
  size_t folded = (2 * (keys > values ? keys : values) + TCK_LINE_BYTES - 1) / TCK_LINE_BYTES * TCK_LINE_BYTES;
  return floats * sizeof(float) + folded + tck_run_sum_floats(value_dimension) * sizeof(float) + TCK_LINE_BYTES;
}

#endif

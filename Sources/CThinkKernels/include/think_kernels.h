// Kernels over blocks of a key-value cache, in plain C.
//
// Every kernel exists once per instruction set; `scalar` is the definition and the others give the same bits.
// The layouts are specified in Formats/kivi.md and Formats/full-precision.md; names below are theirs.
//
// Rules for all kernels
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

typedef struct tck_kernels {
  const char *name;

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

  /// CRC-32C (Castagnoli, reflected, initial value and final xor all ones) of the bytes so far and these:
  /// `crc` is 0 at first, then the last result.
  uint32_t (*crc32c)(uint32_t crc, const void *bytes, size_t count);
} tck_kernels;

/// The kernels for this machine: the widest instruction set that it has, or the one that the environment variable
/// THINK_COMPRESS_KERNELS names. Null if that names a set which is unknown or which this machine lacks.
const tck_kernels *tck_best_kernels(void);

/// The kernels of one instruction set ("scalar", "avx2", "avx512", "neon"), or null if this machine lacks it.
const tck_kernels *tck_kernels_named(const char *name);

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

#endif

// Vector kernels for weights in blocks: 64 weights at a time become codes, scales and minima. Part of vector_kernels.h.
//
// A weight is `(code - offset) * scale + minimum`. Codes are bytes in the order of their weights; lane l of the scales
// and minima belongs to the codes 4l to 4l + 3.

#ifndef THINK_KERNELS_VECTOR_WEIGHTS_H
#define THINK_KERNELS_VECTOR_WEIGHTS_H

#include <string.h>

#include "vector_rows.h"
#include "vector_support.h"
#include "weight_blocks.h"

/// Weights that are taken at once.
#define LINE_WEIGHTS 64
/// Lines of a block of 256.
#define BLOCK_LINES 4

typedef struct weight_line {
  codes codes;
  lanes scales;
  /// Unused where the type has none.
  lanes minima;
} weight_line;

/// Scales and minima of a block of 256, in the order of its groups.
typedef struct block_scales {
  float scales[16], minima[16];
} block_scales;

TCK_INLINE bool weights_are_numbers(tck_weight_type type) {
  return type == TCK_WEIGHT_F32 || type == TCK_WEIGHT_F16 || type == TCK_WEIGHT_BF16;
}

/// How numbers that weights are stored as are called elsewhere.
TCK_INLINE tck_element_type weights_element(tck_weight_type type) {
  return type == TCK_WEIGHT_F32 ? TCK_FLOAT32 : type == TCK_WEIGHT_F16 ? TCK_FLOAT16 : TCK_BFLOAT16;
}

TCK_INLINE bool weights_have_minima(tck_weight_type type) {
  return type == TCK_WEIGHT_Q4_1 || type == TCK_WEIGHT_Q5_1 || type == TCK_WEIGHT_Q2_K || type == TCK_WEIGHT_Q4_K ||
         type == TCK_WEIGHT_Q5_K;
}

/// What codes exceed the numbers by that they stand for; 0 where there are minima.
TCK_INLINE float weights_offset(tck_weight_type type) {
  switch (type) {
    case TCK_WEIGHT_Q3_K: return 4;
    case TCK_WEIGHT_Q4_0: return 8;
    case TCK_WEIGHT_MXFP4: return 12;
    case TCK_WEIGHT_Q5_0: return 16;
    case TCK_WEIGHT_Q6_K: return 32;
    case TCK_WEIGHT_Q8_0:
    case TCK_WEIGHT_IQ4_NL: return 128;
    default: return 0;
  }
}

// MARK: - Blocks of 32

TCK_INLINE codes codes_of_numbers(codes value, const int8_t numbers[16], float offset) {
  uint8_t table[16];
  for (size_t i = 0; i < 16; i++) table[i] = (uint8_t)(numbers[i] + (int)offset);
  return codes_lookup(value, table);
}

/// The line of two blocks.
TCK_INLINE weight_line line_of_32(tck_weight_type type, const uint8_t *first, const uint8_t *second) {
  weight_line line;
  line.minima = lanes_splat(0);
  if (type == TCK_WEIGHT_MXFP4) {
    float scales[2] = {tck_mxfp4_scale(first), tck_mxfp4_scale(second)};
    line.scales = lanes_splat_halves(scales);
    line.codes = codes_of_numbers(codes_of_nibbles(first + 1, second + 1), tck_mxfp4_numbers, weights_offset(type));
    return line;
  }
  line.scales = lanes_splat_float16(first, second);
  switch (type) {
    case TCK_WEIGHT_Q4_1:
      line.minima = lanes_splat_float16(first + 2, second + 2);
      line.codes = codes_of_nibbles(first + 4, second + 4);
      break;
    case TCK_WEIGHT_Q5_0:
      line.codes = codes_or(codes_of_nibbles(first + 6, second + 6), codes_of_bits(first + 2, second + 2, 16));
      break;
    case TCK_WEIGHT_Q5_1:
      line.minima = lanes_splat_float16(first + 2, second + 2);
      line.codes = codes_or(codes_of_nibbles(first + 8, second + 8), codes_of_bits(first + 4, second + 4, 16));
      break;
    case TCK_WEIGHT_Q8_0: line.codes = codes_flip_signs(codes_load(first + 2, second + 2)); break;
    case TCK_WEIGHT_IQ4_NL:
      line.codes = codes_of_numbers(codes_of_nibbles(first + 2, second + 2), tck_iq4_nl_numbers, weights_offset(type));
      break;
    default: line.codes = codes_of_nibbles(first + 2, second + 2);
  }
  return line;
}

// MARK: - Blocks of 256

static inline uint64_t load_64(const uint8_t *bytes) {
  uint64_t value;
  memcpy(&value, bytes, sizeof value);
  return value;
}

static inline uint32_t load_32(const uint8_t *bytes) {
  uint32_t value;
  memcpy(&value, bytes, sizeof value);
  return value;
}

static inline uint64_t join_32(uint32_t low, uint32_t high) { return low | (uint64_t)high << 32; }

#define EVERY_BYTE(value) (0x0101010101010101u * (uint64_t)(value))

/// The opposites of as many bytes' products with a scale: minima are subtracted.
TCK_INLINE lanes opposite_products(lanes bytes, lanes scale) {
  return lanes_multiply(lanes_multiply(bytes, scale), lanes_splat(-1));
}

TCK_INLINE void unpack_q2_scales(const uint8_t *block, block_scales *result) {
  uint64_t low = load_64(block), high = load_64(block + 8), mask = EVERY_BYTE(15);
  lanes scales = lanes_multiply(lanes_of_bytes(low & mask, high & mask), lanes_splat_float16(block + 80, block + 80));
  lanes_store(TCK_FLOAT32, result->scales, scales);
  lanes_store(TCK_FLOAT32, result->minima, opposite_products(lanes_of_bytes(low >> 4 & mask, high >> 4 & mask),
                                                             lanes_splat_float16(block + 82, block + 82)));
}

TCK_INLINE void unpack_q3_scales(const uint8_t *block, block_scales *result) {
  uint64_t low = load_64(block + 96), mask = EVERY_BYTE(15), high_mask = EVERY_BYTE(0x30);
  uint32_t high = load_32(block + 104);
  lanes scales = lanes_of_bytes((low & mask) | (join_32(high << 4, high << 2) & high_mask),
                                (low >> 4 & mask) | (join_32(high, high >> 2) & high_mask));
  scales = lanes_multiply(lanes_subtract(scales, lanes_splat(32)), lanes_splat_float16(block + 108, block + 108));
  lanes_store(TCK_FLOAT32, result->scales, scales);
}

/// The 8 scales of a block of Q4_K or Q5_K, then its minima.
TCK_INLINE lanes scales_and_minima(const uint8_t *block) {
  uint32_t low = load_32(block + 4), middle = load_32(block + 8), high = load_32(block + 12);
  const uint32_t mask = 0x0F0F0F0F, high_mask = 0x30303030, low_mask = 0x3F3F3F3F;
  uint64_t scales = join_32(low & low_mask, (high & mask) | (low >> 2 & high_mask));
  uint64_t minima = join_32(middle & low_mask, (high >> 4 & mask) | (middle >> 2 & high_mask));
  const float signs[2] = {1, -1};
  lanes products = lanes_multiply(lanes_of_bytes(scales, minima), lanes_splat_float16(block, block + 2));
  return lanes_multiply(products, lanes_splat_halves(signs));
}

TCK_INLINE void unpack_scales_and_minima(const uint8_t *block, block_scales *result) {
  float both[LANES];
  lanes_store(TCK_FLOAT32, both, scales_and_minima(block));
  memcpy(result->scales, both, 8 * sizeof *both);
  memcpy(result->minima, both + 8, 8 * sizeof *both);
}

TCK_INLINE void unpack_q6_scales(const uint8_t *block, block_scales *result) {
  const uint64_t signs = EVERY_BYTE(0x80);
  lanes scales = lanes_of_bytes(load_64(block + 192) ^ signs, load_64(block + 200) ^ signs);
  scales = lanes_multiply(lanes_subtract(scales, lanes_splat(128)), lanes_splat_float16(block + 208, block + 208));
  lanes_store(TCK_FLOAT32, result->scales, scales);
}

TCK_INLINE void unpack_scales(tck_weight_type type, const uint8_t *block, block_scales *result) {
  switch (type) {
    case TCK_WEIGHT_Q2_K: unpack_q2_scales(block, result); break;
    case TCK_WEIGHT_Q3_K: unpack_q3_scales(block, result); break;
    case TCK_WEIGHT_Q6_K: unpack_q6_scales(block, result); break;
    default: unpack_scales_and_minima(block, result);
  }
}

/// One of the four lines of a block.
TCK_INLINE weight_line line_of_256(tck_weight_type type, const uint8_t *block, const block_scales *scales,
                                   unsigned index) {
  weight_line line;
  bool is_wide = type == TCK_WEIGHT_Q4_K || type == TCK_WEIGHT_Q5_K;
  line.scales = is_wide ? lanes_splat_halves(scales->scales + 2 * index) : lanes_splat_fours(scales->scales + 4 * index);
  line.minima = lanes_splat(0);
  if (is_wide) line.minima = lanes_splat_halves(scales->minima + 2 * index);
  if (type == TCK_WEIGHT_Q2_K) line.minima = lanes_splat_fours(scales->minima + 4 * index);
  const uint8_t *half = block + index / 2 * 32;
  int shift = (int)index % 2 * 4, bit = 2 * (int)index;
  codes high = codes_zero();
  switch (type) {
    case TCK_WEIGHT_Q2_K: line.codes = codes_field(codes_load(half + 16, half + 16), shift, shift + 2, 3); break;
    case TCK_WEIGHT_Q3_K:
      line.codes = codes_field(codes_load(half + 32, half + 32), shift, shift + 2, 3);
      high = codes_field(codes_load(block, block), bit - 2, bit - 1, 4);
      break;
    case TCK_WEIGHT_Q4_K:
      line.codes = codes_field(codes_load(block + 16 + 32 * index, block + 16 + 32 * index), 0, 4, 15);
      break;
    case TCK_WEIGHT_Q5_K:
      line.codes = codes_field(codes_load(block + 48 + 32 * index, block + 48 + 32 * index), 0, 4, 15);
      high = codes_field(codes_load(block + 16, block + 16), bit - 4, bit - 3, 16);
      break;
    default:
      line.codes = codes_field(codes_load(half + index / 2 * 32, half + index / 2 * 32 + 32), shift, shift, 15);
      high = codes_field(codes_load(half + 128, half + 128), shift - 4, shift - 2, 0x30);
  }
  line.codes = codes_or(line.codes, high);
  return line;
}

// MARK: - Widening

TCK_INLINE void widen_line(tck_weight_type type, weight_line line, float *destination) {
  uint8_t bytes[LINE_WEIGHTS];
  float scales[LANES], minima[LANES];
  codes_store(bytes, line.codes);
  lanes_store(TCK_FLOAT32, scales, line.scales);
  lanes_store(TCK_FLOAT32, minima, line.minima);
  for (size_t i = 0; i < LINE_WEIGHTS / LANES; i++) {
    lanes numbers = lanes_of_bytes(load_64(bytes + i * LANES), load_64(bytes + i * LANES + 8));
    numbers = lanes_subtract(numbers, lanes_splat(weights_offset(type)));
    numbers = lanes_multiply(numbers, lanes_splat(scales[4 * i]));
    if (weights_have_minima(type)) numbers = lanes_add(numbers, lanes_splat(minima[4 * i]));
    lanes_store(TCK_FLOAT32, destination + i * LANES, numbers);
  }
}

TCK_INLINE void widen_blocks(tck_weight_type type, const void *source, size_t count, float *destination) {
  const tck_weight_block block = tck_weight_block_of(type);
  const uint8_t *next = source;
  for (; count >= LINE_WEIGHTS && block.length < LINE_WEIGHTS; count -= LINE_WEIGHTS) {
    widen_line(type, line_of_32(type, next, next + block.bytes), destination);
    next += 2 * block.bytes;
    destination += LINE_WEIGHTS;
  }
  for (; count >= LINE_WEIGHTS; count -= block.length) {
    block_scales scales;
    unpack_scales(type, next, &scales);
    for (unsigned i = 0; i < BLOCK_LINES; i++) {
      widen_line(type, line_of_256(type, next, &scales, i), destination);
      destination += LINE_WEIGHTS;
    }
    next += block.bytes;
  }
  if (count > 0) tck_widen_block(type, next, destination);
}

/// Does something with the name of each type of blocks.
#define FOR_EACH_BLOCK_TYPE(action)                                                                                  \
  action(Q4_0) action(Q4_1) action(Q5_0) action(Q5_1) action(Q8_0) action(IQ4_NL) action(MXFP4) action(Q2_K)         \
  action(Q3_K) action(Q4_K) action(Q5_K) action(Q6_K)

#define DEFINE_WIDENING(name)                                                                                        \
  TCK_LEAF void widen_##name(const void *source, size_t count, float *destination) {                                 \
    widen_blocks(TCK_WEIGHT_##name, source, count, destination);                                                     \
  }
FOR_EACH_BLOCK_TYPE(DEFINE_WIDENING)

#define WIDENING_CASE(name) \
  case TCK_WEIGHT_##name: widen_##name(source, count, destination); break;

TCK_TARGET static void widen_weights(tck_weight_type type, const void *source, size_t count, float *destination) {
  switch (type) {
    FOR_EACH_BLOCK_TYPE(WIDENING_CASE)
    default: widen(weights_element(type), source, count, destination);
  }
}

#endif

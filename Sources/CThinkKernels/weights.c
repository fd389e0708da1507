// The blocks that weights are stored in, and what numbers they stand for: the definition for all instruction sets.
//
// Blocks are ggml's; the arithmetic is that of the Python package gguf (quants.py, `dequantize_blocks`), in its order.
// A scale times a code is exact: float16 scales have 11 bits, what multiplies them 13 at the most.

#pragma STDC FP_CONTRACT OFF

#include "weight_blocks.h"

#include "instruction_sets.h"
#include "quantizer.h"

static float half(const uint8_t *bytes) { return tck_load(TCK_FLOAT16, bytes, 0); }

// MARK: - Blocks of 32

/// Which numbers the 16 codes of IQ4_NL stand for.
const int8_t tck_iq4_nl_numbers[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
/// Those of MXFP4, twice E2M1's; its scales are halved.
const int8_t tck_mxfp4_numbers[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/// A 4-bit code: the low halves of 16 bytes come first.
static unsigned nibble(const uint8_t *codes, size_t index) {
  return index < 16 ? codes[index] & 15u : codes[index - 16] >> 4;
}

/// A code's fifth bit.
static unsigned fifth_bit(const uint8_t *bits, size_t index) { return (bits[index / 8] >> index % 8 & 1u) << 4; }

/// Scale and minimum in float16 if there are two, bits of 5-bit codes if there are any, and codes.
static void widen_32(tck_weight_type type, const uint8_t *block, float *numbers) {
  float scale = half(block);
  for (size_t i = 0; i < 32; i++) {
    switch (type) {
      case TCK_WEIGHT_Q4_0: numbers[i] = scale * (float)((int)nibble(block + 2, i) - 8); break;
      case TCK_WEIGHT_IQ4_NL: numbers[i] = scale * (float)tck_iq4_nl_numbers[nibble(block + 2, i)]; break;
      case TCK_WEIGHT_Q4_1: numbers[i] = scale * (float)nibble(block + 4, i) + half(block + 2); break;
      case TCK_WEIGHT_Q5_0:
        numbers[i] = scale * (float)((int)(nibble(block + 6, i) | fifth_bit(block + 2, i)) - 16);
        break;
      case TCK_WEIGHT_Q5_1:
        numbers[i] = scale * (float)(nibble(block + 8, i) | fifth_bit(block + 4, i)) + half(block + 2);
        break;
      case TCK_WEIGHT_Q8_0: numbers[i] = scale * (float)(int8_t)block[2 + i]; break;
      default: numbers[i] = tck_mxfp4_scale(block) * (float)tck_mxfp4_numbers[nibble(block + 1, i)];
    }
  }
}

// MARK: - Blocks of 256

/// The code of a weight whose bits lie in bytes that 32 weights share: weights 32 to 63 have the next bits.
static unsigned shared_bits(const uint8_t *bytes, size_t index, unsigned width) {
  return bytes[index % 32] >> index / 32 * width & ((1u << width) - 1);
}

/// The 6-bit scale and minimum of 32 weights in Q4_K and Q5_K.
static void scale_and_minimum(const uint8_t *packed, size_t group, unsigned *scale, unsigned *minimum) {
  if (group < 4) {
    *scale = packed[group] & 63u;
    *minimum = packed[group + 4] & 63u;
  } else {
    *scale = (packed[group + 4] & 15u) | (packed[group - 4] >> 2 & 0x30u);
    *minimum = packed[group + 4] >> 4 | (packed[group] >> 2 & 0x30u);
  }
}

/// The 6-bit scale of 16 weights in Q3_K.
static int q3_scale(const uint8_t *packed, size_t group) {
  unsigned low = packed[group % 8] >> group / 8 * 4 & 15u, high = packed[8 + group % 4] >> group / 4 * 2 & 3u;
  return (int)(low | high << 4) - 32;
}

static void widen_q2_k(const uint8_t *block, float *numbers) {
  for (size_t i = 0; i < 256; i++) {
    float scale = half(block + 80) * (float)(block[i / 16] & 15u);
    float minimum = half(block + 82) * (float)(block[i / 16] >> 4);
    numbers[i] = scale * (float)shared_bits(block + 16 + i / 128 * 32, i % 128, 2) - minimum;
  }
}

static void widen_q3_k(const uint8_t *block, float *numbers) {
  for (size_t i = 0; i < 256; i++) {
    float scale = half(block + 108) * (float)q3_scale(block + 96, i / 16);
    unsigned code = shared_bits(block + 32 + i / 128 * 32, i % 128, 2) | shared_bits(block, i, 1) << 2;
    numbers[i] = scale * (float)((int)code - 4);
  }
}

static void widen_q4_k(const uint8_t *block, float *numbers) {
  for (size_t i = 0; i < 256; i++) {
    unsigned scale, minimum;
    scale_and_minimum(block + 4, i / 32, &scale, &minimum);
    unsigned code = shared_bits(block + 16 + i / 64 * 32, i % 64, 4);
    numbers[i] = half(block) * (float)scale * (float)code - half(block + 2) * (float)minimum;
  }
}

static void widen_q5_k(const uint8_t *block, float *numbers) {
  for (size_t i = 0; i < 256; i++) {
    unsigned scale, minimum;
    scale_and_minimum(block + 4, i / 32, &scale, &minimum);
    unsigned code = shared_bits(block + 48 + i / 64 * 32, i % 64, 4) | shared_bits(block + 16, i, 1) << 4;
    numbers[i] = half(block) * (float)scale * (float)code - half(block + 2) * (float)minimum;
  }
}

static void widen_q6_k(const uint8_t *block, float *numbers) {
  for (size_t i = 0; i < 256; i++) {
    float scale = half(block + 208) * (float)(int8_t)block[192 + i / 16];
    // Of 128 weights the first 64 have the low halves of 64 bytes.
    unsigned low = block[i / 128 * 64 + i % 64] >> i % 128 / 64 * 4 & 15u;
    unsigned high = shared_bits(block + 128 + i / 128 * 32, i % 128, 2);
    numbers[i] = scale * (float)((int)(low | high << 4) - 32);
  }
}

void tck_widen_block(tck_weight_type type, const void *block, float *numbers) {
  switch (type) {
    case TCK_WEIGHT_F32: *numbers = tck_load(TCK_FLOAT32, block, 0); break;
    case TCK_WEIGHT_F16: *numbers = tck_load(TCK_FLOAT16, block, 0); break;
    case TCK_WEIGHT_BF16: *numbers = tck_load(TCK_BFLOAT16, block, 0); break;
    case TCK_WEIGHT_Q2_K: widen_q2_k(block, numbers); break;
    case TCK_WEIGHT_Q3_K: widen_q3_k(block, numbers); break;
    case TCK_WEIGHT_Q4_K: widen_q4_k(block, numbers); break;
    case TCK_WEIGHT_Q5_K: widen_q5_k(block, numbers); break;
    case TCK_WEIGHT_Q6_K: widen_q6_k(block, numbers); break;
    default: widen_32(type, block, numbers);
  }
}

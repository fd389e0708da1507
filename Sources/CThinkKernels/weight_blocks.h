// What the scalar and the vector kernels share of the blocks that weights are stored in.

#ifndef THINK_KERNELS_WEIGHT_BLOCKS_H
#define THINK_KERNELS_WEIGHT_BLOCKS_H

#include "instruction_sets.h"
#include "quantizer.h"

/// Weights of the longest block.
#define MOST_BLOCK_WEIGHTS 256

TCK_HIDDEN extern const int8_t tck_iq4_nl_numbers[16];
TCK_HIDDEN extern const int8_t tck_mxfp4_numbers[16];

/// Writes the numbers of one block.
TCK_HIDDEN void tck_widen_block(tck_weight_type type, const void *block, float *numbers);

/// Half of the scale of an MXFP4 block, 2^(its first byte - 128).
static inline float tck_mxfp4_scale(const uint8_t *block) {
  return tck_bits_to_float(*block < 2 ? 0x00200000u << *block : (uint32_t)(*block - 1) << 23);
}

#endif

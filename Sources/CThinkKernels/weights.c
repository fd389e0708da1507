// The blocks that weights are stored in.

#include "think_kernels.h"

tck_weight_block tck_weight_block_of(tck_weight_type type) {
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

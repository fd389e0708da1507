// What the parts of this check share.

#ifndef KERNEL_CHECK_H
#define KERNEL_CHECK_H

#include "think_kernels.h"

/// The definition, and the set that is compared with it.
extern const tck_kernels *scalar, *other;

uint32_t random_bits(void);

/// A random permutation of some channels.
tck_channels choose(uint16_t *indices, size_t head_dimension, size_t count);

/// Counts a comparison, and prints the first ones that fail.
void expect(bool equal, const char *kernel, const char *what, size_t a, size_t b, size_t c, size_t d);

/// Compares products of matrices and vectors with sums in float64.
void compare_products(void);

/// Compares the gates of feed-forward layers with float64.
void compare_gates(void);

/// Compares the kernels of archive coding.
void compare_archive(void);

/// Compares attention of the two sets and prints the largest errors.
void compare_attention(void);

#endif

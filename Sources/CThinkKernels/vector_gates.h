// The vector kernel of gated feed-forward layers. Part of vector_attention.h, whose lanes_exp2 it needs.

#ifndef THINK_KERNELS_VECTOR_GATES_H
#define THINK_KERNELS_VECTOR_GATES_H

#include <string.h>

#include "instruction_sets.h"
#include "vector_support.h"

TCK_INLINE lanes multiply_gate(tck_activation activation, lanes gate, lanes up) {
  // What 2 is raised to: -log2(e) times the gate, for GELU with sqrt(8 / pi) and the cubic part.
  lanes factor = lanes_splat(-1.44269504f);
  if (activation == TCK_GELU) {
    factor = lanes_multiply_add(lanes_multiply(gate, gate), lanes_splat(-0.102943240f), lanes_splat(-2.30220820f));
  }
  lanes power = lanes_exp2(lanes_cap(lanes_multiply(gate, factor), 60));
  return lanes_multiply(lanes_divide(gate, lanes_add(power, lanes_splat(1))), up);
}

TCK_INLINE void multiply_all_gates(tck_activation activation, float *gates, const float *ups, size_t count) {
  size_t whole = count / LANES * LANES;
  for (size_t i = 0; i < whole; i += LANES) {
    lanes product = multiply_gate(activation, lanes_load(TCK_FLOAT32, gates + i), lanes_load(TCK_FLOAT32, ups + i));
    lanes_store(TCK_FLOAT32, gates + i, product);
  }
  if (whole < count) {
    float products[LANES];
    lanes_store(TCK_FLOAT32, products,
                multiply_gate(activation, lanes_load_some(TCK_FLOAT32, gates + whole, count - whole),
                              lanes_load_some(TCK_FLOAT32, ups + whole, count - whole)));
    memcpy(gates + whole, products, (count - whole) * sizeof *products);
  }
}

TCK_TARGET static void multiply_gates(tck_activation activation, float *gates, const float *ups, size_t count) {
  if (activation == TCK_GELU) {
    multiply_all_gates(TCK_GELU, gates, ups, count);
  } else {
    multiply_all_gates(TCK_SILU, gates, ups, count);
  }
}

#endif

// Small pieces that the vector kernels and the operations of each instruction set share.

#ifndef THINK_KERNELS_VECTOR_SUPPORT_H
#define THINK_KERNELS_VECTOR_SUPPORT_H

#include "think_kernels.h"

// Inlined always: a call to a function with other target attributes than the caller's would go through memory.
#define TCK_INLINE TCK_TARGET static inline __attribute__((always_inline))
// Never inlined: many variants in one function would take too much of the stack where nothing is optimized.
#define TCK_LEAF TCK_TARGET static __attribute__((noinline))

#define LANES 16
#define QUAD 4
#define LINE_BYTES TCK_LINE_BYTES

// To the second-level cache: the first has too few misses in flight.
#define PREFETCH_LEVEL 2
#define PREFETCH_TOKENS 32

/// Runs a statement with TYPE as the constant that `type` equals, so that each type gets a loop of its own.
#define FOR_TYPE(type, statement)                \
  switch (type) {                                \
    case TCK_FLOAT16: {                          \
      const tck_element_type TYPE = TCK_FLOAT16; \
      statement;                                 \
      break;                                     \
    }                                            \
    case TCK_BFLOAT16: {                         \
      const tck_element_type TYPE = TCK_BFLOAT16;\
      statement;                                 \
      break;                                     \
    }                                            \
    default: {                                   \
      const tck_element_type TYPE = TCK_FLOAT32; \
      statement;                                 \
    }                                            \
  }

static inline size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static inline const void *offset(const void *bytes, size_t count) { return (const char *)bytes + count; }

static inline void *offset_mutable(void *bytes, size_t count) { return (char *)bytes + count; }

/// Fetches rows ahead of their use, in address order. The processors do not foresee the kernels' columns and blocks:
/// from DRAM this makes them up to twice as fast. Fetching what is beyond the end of the rows does no harm.
typedef struct prefetcher {
  const char *row;
  size_t next, row_bytes, stride;
} prefetcher;

TCK_INLINE prefetcher prefetch_after(const void *rows, size_t tokens, size_t row_bytes, size_t stride) {
  return (prefetcher){(const char *)rows + tokens * stride, 0, row_bytes, stride};
}

TCK_INLINE void prefetch_lines(prefetcher *ahead, size_t count, bool to_write) {
  for (size_t i = 0; i < count; i++) {
    if (to_write) {
      __builtin_prefetch(ahead->row + ahead->next, 1, PREFETCH_LEVEL);
    } else {
      __builtin_prefetch(ahead->row + ahead->next, 0, PREFETCH_LEVEL);
    }
    ahead->next += 64;
    bool ends = ahead->next >= ahead->row_bytes;
    ahead->row += ends ? ahead->stride : 0;
    ahead->next = ends ? 0 : ahead->next;
  }
}

#endif

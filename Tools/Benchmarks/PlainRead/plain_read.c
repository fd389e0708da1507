#include "plain_read.h"

typedef uint64_t lane_sums __attribute__((vector_size(64), aligned(64)));

/// Four accumulators, so that no load waits for an addition. Always inlined, so that callers decide on instructions.
static inline __attribute__((always_inline)) uint64_t read_lines(const void *bytes, size_t count) {
  const lane_sums *lines = bytes;
  lane_sums sums[4] = {{0}};
  for (size_t i = 0; i < count / sizeof sums; i++) {
    for (int j = 0; j < 4; j++) sums[j] += lines[4 * i + j];
  }
  lane_sums all = sums[0] + sums[1] + sums[2] + sums[3];
  uint64_t sum = 0;
  for (int i = 0; i < 8; i++) sum += all[i];
  return sum;
}

static uint64_t read_baseline(const void *bytes, size_t count) { return read_lines(bytes, count); }

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static uint64_t read_avx512(const void *bytes, size_t count) {
  return read_lines(bytes, count);
}

__attribute__((target("avx2"))) static uint64_t read_avx2(const void *bytes, size_t count) {
  return read_lines(bytes, count);
}
#endif

uint64_t plain_read(const void *bytes, size_t count) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return read_avx512(bytes, count);
  if (__builtin_cpu_supports("avx2")) return read_avx2(bytes, count);
#endif
  return read_baseline(bytes, count);
}

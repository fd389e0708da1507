#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include "instruction_sets.h"

#if defined(__x86_64__)
static bool has_avx2(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
         __builtin_cpu_supports("sse4.2") &&
         __builtin_cpu_supports("pclmul");
}

static bool has_avx512(void) {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool has_avx512vnni(void) { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
#elif defined(__aarch64__) && !defined(__AARCH64EB__)
static bool has_dot_products(void) {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__APPLE__)
  return true;  // All Macs.
#else
  return false;
#endif
}
#endif

/// The first of this machine's sets, widest first, that has this name; any has the name null.
static const tck_kernels *first_supported(const char *name) {
  const tck_kernels *candidates[] = {
#if defined(__x86_64__)
      has_avx512vnni() ? &tck_avx512vnni_kernels : NULL,
      has_avx512() ? &tck_avx512_kernels : NULL,
      has_avx2() ? &tck_avx2_kernels : NULL,
#elif defined(__aarch64__) && !defined(__AARCH64EB__)
      has_dot_products() ? &tck_neondotprod_kernels : NULL,
      &tck_neon_kernels,  // Every such machine has NEON.
#endif
      &tck_scalar_kernels,
  };
  for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++) {
    if (candidates[i] == NULL) continue;
    if (name == NULL || strcmp(name, candidates[i]->name) == 0) return candidates[i];
  }
  return NULL;
}

const tck_kernels *tck_kernels_named(const char *name) { return name == NULL ? NULL : first_supported(name); }

const tck_kernels *tck_best_kernels(void) {
  static _Atomic(const tck_kernels *) chosen = NULL;
  const tck_kernels *kernels = atomic_load_explicit(&chosen, memory_order_relaxed);
  if (kernels == NULL) {
    const char *forced = getenv("THINK_COMPRESS_KERNELS");
    kernels = first_supported(forced != NULL && *forced != 0 ? forced : NULL);
    atomic_store_explicit(&chosen, kernels, memory_order_relaxed);
  }
  return kernels;
}

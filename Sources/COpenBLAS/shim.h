#ifndef THINK_COMPRESS_COPENBLAS_SHIM_H
#define THINK_COMPRESS_COPENBLAS_SHIM_H

#include <cblas.h>
#include <stddef.h>

// In every OpenBLAS with threads of its own; used by it before a fork.
extern void blas_thread_shutdown_(void) __attribute__((weak));

/// Ends the threads that OpenBLAS starts when it is loaded; it starts others when it needs them. Nobody else may be
/// using OpenBLAS.
static inline void tcb_end_threads(void) {
  if (blas_thread_shutdown_ != NULL) blas_thread_shutdown_();
}

#endif

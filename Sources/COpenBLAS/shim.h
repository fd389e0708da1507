#ifndef THINK_COMPRESS_COPENBLAS_SHIM_H
#define THINK_COMPRESS_COPENBLAS_SHIM_H

#include <cblas.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>

// In every OpenBLAS with threads of its own; used by it before a fork.
extern void blas_thread_shutdown_(void) __attribute__((weak));
// OpenBLAS's own buffers, one for each product that is computed at a time, which it keeps. Where one can't be had
// blas_memory_alloc tries again for ever.
extern void *blas_memory_alloc(int position) __attribute__((weak));
extern void blas_memory_free(void *buffer) __attribute__((weak));

// LAPACK's eigenvectors of a symmetric matrix, which comes with OpenBLAS unless it was built without LAPACK.
extern void dsyevd_(const char *job, const char *triangle, const int *order, double *matrix, const int *stride,
                    double *values, double *work, const int *work_count, int *integer_work, const int *integer_count,
                    int *result, size_t job_length, size_t triangle_length) __attribute__((weak));

/// Whether OpenBLAS has LAPACK.
static inline bool tcb_has_lapack(void) { return dsyevd_ != NULL; }

/// Numbers that `tcb_eigenvectors` works in: doubles, then integers.
static inline size_t tcb_eigenvector_doubles(int order) { return 1 + 6 * (size_t)order + 2 * (size_t)order * order; }
static inline size_t tcb_eigenvector_integers(int order) { return 3 + 5 * (size_t)order; }

/// The eigenvalues of a symmetric matrix of doubles, ascending, and its eigenvectors of length 1, which replace it: each
/// one's numbers side by side.
///
/// - matrix: `order * order` numbers, of which row r's first r + 1 are read.
/// - values: room for `order` numbers.
/// - work, integer_work: as many as the functions above say.
/// Returns 0, or another number if they were not found.
static inline int tcb_eigenvectors(int order, double *matrix, double *values, double *work, int *integer_work) {
  // Fortran's upper triangle by columns is C's lower one by rows.
  int work_count = (int)tcb_eigenvector_doubles(order);
  int integer_count = (int)tcb_eigenvector_integers(order);
  int result = 0;
  dsyevd_("V", "U", &order, matrix, &order, values, work, &work_count, integer_work, &integer_count, &result, 1, 1);
  return result;
}

/// Bytes that OpenBLAS maps for a buffer (BUFFER_SIZE in its sources), and some more for what else is mapped meanwhile.
static const size_t tcb_buffer_bytes = (size_t)(128 + 4) << 20;

enum { tcb_most_buffers = 48 };

/// Ends the threads that OpenBLAS starts when it is loaded; it starts others when it needs them. Nobody else may be
/// using OpenBLAS.
static inline void tcb_end_threads(void) {
  if (blas_thread_shutdown_ != NULL) blas_thread_shutdown_();
}

/// Lets OpenBLAS take buffers until it has `count` of them, each when there is memory for it.
///
/// - former: how many it has already.
/// Returns how many it has then: fewer than `count` if there is no memory for more.
static inline int tcb_take_buffers(int former, int count) {
  if (blas_memory_alloc == NULL || blas_memory_free == NULL) return count;
  if (count > tcb_most_buffers) count = tcb_most_buffers;
  void *buffers[tcb_most_buffers];
  int taken = 0;
  while (taken < count) {
    if (taken >= former) {
      void *probe = mmap(NULL, tcb_buffer_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
      if (probe == MAP_FAILED) break;
      munmap(probe, tcb_buffer_bytes);
    }
    buffers[taken++] = blas_memory_alloc(0);
  }
  for (int index = taken; index-- > 0;) blas_memory_free(buffers[index]);
  return taken;
}

#endif

// Keeps OpenBLAS from starting threads when it is loaded, one per processor, long before main; and where address space is
// limited, keeps threads from reserving it.
//
// The command spreads its work itself, and OpenBLAS's threads only keep others from working. Where they can't be started
// OpenBLAS interrupts the process, and where there is no memory for their buffers they wait for ever. The environment
// can't be changed so early (libc sets it up after the first of the functions below), but OpenBLAS asks how many
// processors the process may use: for as long as libraries are loaded it is one. Linux only; elsewhere, and with
// libraries that ask for something else, `SingleThreadedProducts.adoptForProcess` ends the threads.

#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include "command_start.h"

#if defined(__linux__)

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

static cpu_set_t processors;
// Volatile: optimizers run constructors when they compile, without the function before them, and then drop them.
static volatile bool is_pinned;

// Before the constructors of all shared libraries.
static void use_one_processor(void) {
  unsigned current = 0;
  cpu_set_t one;
  CPU_ZERO(&one);
  // With more processors than such a set can have this fails, and nothing is changed.
  if (sched_getaffinity(0, sizeof processors, &processors) != 0 || CPU_COUNT(&processors) < 2) return;
  if (syscall(SYS_getcpu, &current, NULL, NULL) != 0 || current >= CPU_SETSIZE) return;
  CPU_SET(current, &one);
  is_pinned = sched_setaffinity(0, sizeof one, &one) == 0;
}

__attribute__((section(".preinit_array"), used)) static void (*const before_libraries)(void) = use_one_processor;

// After them: a program's constructors are called last.
__attribute__((constructor)) static void use_all_processors(void) {
  if (is_pinned) sched_setaffinity(0, sizeof processors, &processors);
}

#if defined(__GLIBC__)
// glibc gives each thread a heap of its own, which reserves 64 MiB of address space or twice that. Whether small
// allocations then find any under a limit (ulimit -v) would be a matter of luck.
__attribute__((constructor)) static void keep_address_space(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) mallopt(M_ARENA_MAX, 1);
}
#endif

#endif

#include "process_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

// A place is taken by one thread (filling), becomes set, and is free again when forgotten. While the thread creates the
// file itself, the place is creating. Places of files that a signal handler removes are never free again: their paths
// must not change under it.
enum { place_free, place_filling, place_creating, place_set, place_removing };

typedef struct {
  atomic_int state;
  char path[TCG_MAX_PATH];
} partial_place;

typedef struct {
  atomic_int state;
  atomic_uintptr_t base;
  atomic_size_t length;
  char path[TCG_MAX_PATH];
} mapping_place;

// Static memory that is never touched costs nothing.
static partial_place partials[TCG_MAX_PARTIALS];
static mapping_place mappings[TCG_MAX_MAPPINGS];
static atomic_bool is_ending;

static bool take(atomic_int *state) {
  int expected = place_free;
  return atomic_compare_exchange_strong(state, &expected, place_filling);
}

static int register_partial(const char *path, int state) {
  size_t length = strlen(path);
  if (length >= TCG_MAX_PATH) return TCG_NOT_COVERED;
  for (int index = 0; index < TCG_MAX_PARTIALS; ++index) {
    partial_place *place = &partials[index];
    if (!take(&place->state)) continue;
    memcpy(place->path, path, length + 1);
    atomic_store(&place->state, state);
    return index;
  }
  return TCG_NOT_COVERED;
}

int tcg_register_partial(const char *path) { return register_partial(path, place_set); }

int tcg_create_partial(const char *path, mode_t mode, int *partial) {
  // A handler that waited for the thread that it interrupted would wait in vain.
  sigset_t all, former;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &former);
  *partial = register_partial(path, place_creating);
  // Either this thread sees that the process ends, or the handler sees that a file is being created.
  while (atomic_load(&is_ending)) pause();
  int descriptor;
  do {
    descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  } while (descriptor < 0 && errno == EINTR);
  int error = errno;
  if (*partial >= 0) atomic_store(&partials[*partial].state, descriptor >= 0 ? place_set : place_free);
  if (descriptor < 0) *partial = TCG_NOT_COVERED;
  pthread_sigmask(SIG_SETMASK, &former, NULL);
  errno = error;
  return descriptor;
}

void tcg_forget_partial(int partial) {
  if (partial < 0 || partial >= TCG_MAX_PARTIALS) return;
  int expected = place_set;
  atomic_compare_exchange_strong(&partials[partial].state, &expected, place_free);
}

void tcg_remove_partials(void) {
  int error = errno;
  atomic_store(&is_ending, true);
  // A file system that hangs must not keep the process from ending.
  int tries_left = 2000;
  const struct timespec millisecond = {.tv_nsec = 1000000};
  // From the last: a file gets its final name, which may be registered too, after it was created under another.
  for (int index = TCG_MAX_PARTIALS - 1; index >= 0; --index) {
    partial_place *place = &partials[index];
    while (atomic_load(&place->state) == place_creating && tries_left-- > 0) nanosleep(&millisecond, NULL);
    int expected = place_set;
    if (atomic_compare_exchange_strong(&place->state, &expected, place_removing)) unlink(place->path);
  }
  errno = error;
}

int tcg_register_mapping(const void *base, size_t length, const char *path) {
  size_t count = strlen(path);
  if (count >= TCG_MAX_PATH) return TCG_NOT_COVERED;
  for (int index = 0; index < TCG_MAX_MAPPINGS; ++index) {
    mapping_place *place = &mappings[index];
    if (!take(&place->state)) continue;
    place->base = (uintptr_t)base;
    place->length = length;
    // As in all messages, names can't command the terminal.
    for (size_t byte = 0; byte <= count; ++byte) {
      unsigned char character = (unsigned char)path[byte];
      bool is_control = byte < count && (character < 0x20 || character == 0x7F);
      place->path[byte] = is_control ? '?' : path[byte];
    }
    atomic_store(&place->state, place_set);
    return index;
  }
  return TCG_NOT_COVERED;
}

void tcg_forget_mapping(int mapping) {
  if (mapping >= 0 && mapping < TCG_MAX_MAPPINGS) atomic_store(&mappings[mapping].state, place_free);
}

// MARK: Handlers

void tcg_claim_end(void) {
  static atomic_bool is_claimed;
  if (!atomic_exchange(&is_claimed, true)) return;
  for (;;) pause();
}

static const int fatal_signals[] = {SIGBUS, SIGSEGV, SIGILL, SIGTRAP, SIGFPE, SIGABRT};
enum { fatal_signal_count = sizeof fatal_signals / sizeof *fatal_signals };
static struct sigaction former_actions[fatal_signal_count];
static bool clears_line;

// Whether a trap's instruction is the next one again: on x86 it is the one behind.
#if defined(__aarch64__)
static const bool trap_repeats = true;
#else
static const bool trap_repeats = false;
#endif

static const mapping_place *mapping_at(const void *address) {
  uintptr_t place = (uintptr_t)address;
  for (int index = 0; index < TCG_MAX_MAPPINGS; ++index) {
    const mapping_place *mapping = &mappings[index];
    if (atomic_load(&mapping->state) == place_set && place >= mapping->base
        && place - mapping->base < mapping->length) {
      return mapping;
    }
  }
  return NULL;
}

static struct iovec text(const char *text) {
  return (struct iovec){.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
}

// Not to wait for whoever reads standard error, and perhaps doesn't.
static void write_if_possible(const struct iovec *parts, int count) {
  struct pollfd place = {.fd = STDERR_FILENO, .events = POLLOUT};
  if (poll(&place, 1, 0) != 1 || !(place.revents & POLLOUT)) return;
  // Nobody is left to be told where this fails.
  ssize_t written = writev(STDERR_FILENO, parts, count);
  (void)written;
}

void tcg_print(const char *message) {
  const struct iovec parts[] = {text(clears_line ? "\r\033[K" : ""), text("think-compress: "), text(message)};
  write_if_possible(parts, sizeof parts / sizeof *parts);
}

static void report(const mapping_place *mapping) {
  // A line of progress may stand there.
  const struct iovec parts[] = {
      text(clears_line ? "\r\033[K" : ""),
      text("think-compress: "),
      text(mapping->path),
      text(": was cut short while it was in use, or its disk fails; "
           "replace files by renaming another to their name, and run again\n"),
  };
  write_if_possible(parts, sizeof parts / sizeof *parts);
}

static void handle(int number, siginfo_t *information, void *context) {
  (void)context;
  // Codes above 0 are faults; others are sent by processes and have no address.
  bool is_fault = information->si_code > 0 && number != SIGABRT;
  if (number == SIGBUS && is_fault) {
    const mapping_place *mapping = mapping_at(information->si_addr);
    if (mapping != NULL) {
      tcg_claim_end();
      tcg_remove_partials();
      report(mapping);
      _exit(1);
    }
  }
  tcg_remove_partials();
  // An instruction that failed does so again when this returns, and meets what was there before, such as Swift's
  // backtraces. Anything else is sent again.
  if (is_fault && (number != SIGTRAP || trap_repeats)) {
    for (int index = 0; index < fatal_signal_count; ++index) {
      if (fatal_signals[index] == number) sigaction(number, &former_actions[index], NULL);
    }
  } else {
    signal(number, SIG_DFL);
    raise(number);
  }
}

void tcg_install_fault_handlers(void) {
  clears_line = isatty(STDERR_FILENO) == 1;
  for (int index = 0; index < fatal_signal_count; ++index) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    // A thread that ends the process isn't made to wait for itself.
    sigfillset(&action.sa_mask);
    sigaction(fatal_signals[index], &action, &former_actions[index]);
  }
  signal(SIGXFSZ, SIG_IGN);
}

#include "interruption.h"
#include "process_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

static atomic_bool is_interrupted;
static unsigned seconds_left;
/// What the handler writes to and `tcg_wait_for_interruption` reads from; -1 where there is none.
static int alert[2] = {-1, -1};

static void handle(int number) {
  int error = errno;
  bool is_second = atomic_exchange(&is_interrupted, true);
  if (is_second || number == SIGALRM) {
    tcg_claim_end();
    tcg_remove_partials();
    tcg_print("interrupted; no file was left unfinished\n");
    _exit(TCG_INTERRUPTED_STATUS);
  }
  alarm(seconds_left);
  if (alert[1] >= 0) {
    ssize_t written = write(alert[1], "", 1);
    (void)written;
  }
  errno = error;
}

static void install(int number) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = handle;
  // Nothing that is read or written need know of it.
  action.sa_flags = SA_RESTART;
  sigfillset(&action.sa_mask);
  sigaction(number, &action, NULL);
}

void tcg_handle_interruptions(unsigned seconds) {
  seconds_left = seconds;
  if (pipe(alert) == 0) {
    for (int end = 0; end < 2; ++end) fcntl(alert[end], F_SETFD, FD_CLOEXEC);
    fcntl(alert[1], F_SETFL, O_NONBLOCK);
  } else {
    alert[0] = alert[1] = -1;
  }
  signal(SIGPIPE, SIG_IGN);
  install(SIGALRM);
  sigset_t timer;
  sigemptyset(&timer);
  sigaddset(&timer, SIGALRM);
  sigprocmask(SIG_UNBLOCK, &timer, NULL);
  const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
  for (size_t index = 0; index < sizeof numbers / sizeof *numbers; ++index) {
    struct sigaction former;
    bool is_ignored = sigaction(numbers[index], NULL, &former) == 0 && former.sa_handler == SIG_IGN;
    if (!is_ignored) install(numbers[index]);
  }
}

bool tcg_is_interrupted(void) { return atomic_load(&is_interrupted); }

bool tcg_wait_for_interruption(void) {
  char byte;
  ssize_t count = -1;
  if (alert[0] < 0) return false;
  do {
    count = read(alert[0], &byte, 1);
  } while (count < 0 && errno == EINTR);
  return count == 1;
}

// SIGINT, SIGTERM and SIGHUP, so that they end the process in any state: also when no thread could be started, while a
// computation takes long, and while a lock is waited for.
//
// The first signal asks the process to end by itself, which lets it clean up. At a second one, or when the time for it
// has passed, the handler removes unfinished files and ends the process.

#ifndef INTERRUPTION_H
#define INTERRUPTION_H

#include <stdbool.h>

/// The exit status of an interrupted process.
#define TCG_INTERRUPTED_STATUS 130

/// Installs the handlers, each only if the signal wasn't ignored when the process began (as by nohup), and ignores
/// SIGPIPE, so that writing to a closed pipe fails and doesn't end the process. To be called once.
///
/// - seconds: how long the process may take to end by itself.
void tcg_handle_interruptions(unsigned seconds);

/// Whether a signal has come.
bool tcg_is_interrupted(void);

/// Waits until a signal has come; for a thread of its own.
///
/// Returns false if that can't be told.
bool tcg_wait_for_interruption(void);

#endif

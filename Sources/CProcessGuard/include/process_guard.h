// What a process must do when it ends at a bad moment, in plain C because signal handlers may do little.
//
// Two tables are kept: files that are not finished yet, which are to be removed, and files that are mapped into memory,
// whose name is to be said when reading them fails. Both have fixed places. Where all are taken, or a path is too long,
// registering returns TCG_NOT_COVERED: everything works, but that file stays behind, or its name isn't said.
//
// All functions may be called from any thread. `tcg_remove_partials` may be called from signal handlers, too.

#ifndef PROCESS_GUARD_H
#define PROCESS_GUARD_H

#include <stddef.h>
#include <sys/types.h>

/// How many unfinished files are covered at a time.
#define TCG_MAX_PARTIALS 64
/// How many mappings are covered at a time; a model may have some hundred files of weights.
#define TCG_MAX_MAPPINGS 512
/// Bytes that a path may have, with its end.
#define TCG_MAX_PATH 1024

/// What registering returns where a file is not covered; it may be handed to the forgetting functions.
#define TCG_NOT_COVERED (-1)

/// Registers a file to be removed if the process ends before it is forgotten.
///
/// To be called before the file is there. A relative path is one of the folder that is current when it is removed.
///
/// Returns what `tcg_forget_partial` takes.
int tcg_register_partial(const char *path);

/// Creates a file, for reading and writing, and registers it. None of that name may exist.
///
/// No file stays behind where the process ends meanwhile: a handler on another thread waits for it, 2 seconds at most.
///
/// - partial: set to what `tcg_forget_partial` takes.
///
/// Returns the descriptor, or -1 with `errno` set.
int tcg_create_partial(const char *path, mode_t mode, int *partial);

/// Takes a file out: it is finished, or removed.
void tcg_forget_partial(int partial);

/// Removes all files that are registered; async-signal-safe. They stay registered, as the process is about to end.
void tcg_remove_partials(void);

/// Lets one thread say why the process ends, and end it: any other waits here for ever. To be called by signal handlers
/// during which all signals are blocked.
void tcg_claim_end(void);

/// Prints `think-compress: MESSAGE` on standard error, unless that would have to wait; async-signal-safe.
void tcg_print(const char *message);

/// Registers memory that a file is mapped to, for the message of the handlers below.
///
/// Returns what `tcg_forget_mapping` takes.
int tcg_register_mapping(const void *base, size_t length, const char *path);

/// Takes a mapping out; to be called before it is unmapped.
void tcg_forget_mapping(int mapping);

/// Installs handlers for what ends a process at once, for the whole process; to be called once, when it begins.
///
/// - SIGBUS in a registered mapping (its file was cut short, or its disk fails) prints
///   `think-compress: PATH: was cut short while it was in use, ...` on standard error, removes registered files and ends
///   the process with exit status 1.
/// - Any other SIGBUS, SIGSEGV, SIGILL, SIGTRAP, SIGFPE and SIGABRT removes registered files, and then does what it
///   would have done without; SIGABRT, and signals that were sent, meet their default action. Where a thread's stack is
///   full no handler can run, and the files stay.
/// - SIGXFSZ is ignored, so that a write beyond the limit of file sizes fails and does not end the process.
void tcg_install_fault_handlers(void);

#endif

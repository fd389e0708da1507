// What the peers that measure llama.cpp share: how they answer their driver.

#ifndef LLAMA_PEER_H
#define LLAMA_PEER_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ggml.h"
#include "llama.h"

enum {
  MOST_TOKENS = 1 << 20,
  MOST_THREADS = 256,
};

static int threads = 1;

/// Why the last command failed.
static char failure[512];

static bool fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(failure, sizeof failure, format, arguments);
  va_end(arguments);
  return false;
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/// A number up to the end of the text.
static bool number(const char *text, long most, long *result) {
  char *end = NULL;
  *result = text == NULL ? 0 : strtol(text, &end, 10);
  return *result >= 1 && *result <= most && *end == 0;
}

/// Answers with names, versions, and the compiler.
static void answer_version(void) {
#ifdef __clang__
  const char *compiler = "clang";
  int major = __clang_major__, minor = __clang_minor__, patch = __clang_patchlevel__;
#else
  const char *compiler = "gcc";
  int major = __GNUC__, minor = __GNUC_MINOR__, patch = __GNUC_PATCHLEVEL__;
#endif
  printf("ok llama.cpp of llama-cpp-python %s, ggml %s, %s %d.%d.%d, %s\n", PACKAGE_VERSION, ggml_version(), compiler,
         major, minor, patch, strstr(llama_print_system_info(), "OPENMP = 1") ? "OpenMP" : "ggml's threads");
}

/// llama.cpp's messages would be taken for answers.
static void ignore_log(enum ggml_log_level level, const char *text, void *data) {
  (void)level, (void)text, (void)data;
}

#endif

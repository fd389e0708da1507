// Loaded before the C library by LD_PRELOAD: see include/fault_injection.h. Linux with glibc alone.

#undef _FORTIFY_SOURCE  // its inline functions would stand in the way of those below
#define _GNU_SOURCE
#include "fault_injection.h"

#include <limits.h>  // says which C library this is

#if defined(__linux__) && defined(__GLIBC__)

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

// MARK: - Which call fails

enum kind {
    ALLOCATION, THREAD, OPEN, READ, WRITE, SYNC, RENAME, LINK, CLOSE, TRUNCATE, STATUS, MAP, MODE, LOCK, KINDS
};

static const char *const kind_names[KINDS] = {
    "allocation", "thread", "open", "read", "write", "sync", "rename", "link", "close", "truncate", "status", "map",
    "mode", "lock",
};

static struct {
    const char *log;
    enum kind kind;
    unsigned long number;
    bool following;
    int error;
    size_t bytes;
} settings = {.kind = KINDS};

// What tries for ever must not fill the disk.
static const unsigned long most_recorded = 10000;

static atomic_ulong counts[KINDS];
static atomic_bool main_began;

static unsigned long number_from(const char *name, unsigned long otherwise)
{
    const char *text = getenv(name);
    return text ? strtoul(text, NULL, 10) : otherwise;
}

// A constructor, but those of other libraries may come before it and create threads.
__attribute__((constructor)) static void read_settings(void)
{
    static bool done;
    if (done) return;
    done = true;
    const char *kind = getenv("FAULT_KIND");
    for (int i = 0; kind && i < KINDS; i++) {
        if (strcmp(kind, kind_names[i]) == 0) settings.kind = i;
    }
    settings.log = getenv("FAULT_LOG");
    settings.number = number_from("FAULT_NUMBER", 0);
    settings.following = number_from("FAULT_FOLLOWING", 0) != 0;
    settings.error = (int)number_from("FAULT_ERROR", EIO);
    settings.bytes = number_from("FAULT_BYTES", 1 << 20);
}

// Appends a line to the log by system calls alone: nothing here may come back to the functions below.
static void record(enum kind kind, const char *function, const char *path, long value, bool failing)
{
    char name[256], line[512];
    if (!path && kind != ALLOCATION && kind != THREAD) {
        snprintf(line, sizeof line, "/proc/self/fd/%ld", value);
        long length = syscall(SYS_readlinkat, AT_FDCWD, line, name, sizeof name - 1);
        name[length < 0 ? 0 : length] = 0;
        path = name;
    }
    int length = snprintf(line, sizeof line, "%s%s %s %ld %.250s\n", failing ? "! " : "", kind_names[kind], function,
                          value, path ? path : "");
    long log = syscall(SYS_openat, AT_FDCWD, settings.log, O_WRONLY | O_APPEND | O_CLOEXEC, 0);
    if (log < 0) return;
    syscall(SYS_write, log, line, length);
    syscall(SYS_close, log);
}

// Counts a call and says whether it is one that fails. `value` is a descriptor, a number of bytes, or flags.
static bool fails(enum kind kind, const char *function, const char *path, long value)
{
    // A limit on threads meets those that libraries create while they are loaded, too. Whatever else happens before the
    // program begins is the loader's.
    if (kind != THREAD && !main_began) return false;
    int saved = errno;
    unsigned long number = atomic_fetch_add(&counts[kind], 1) + 1;
    bool failing = kind == settings.kind
        && (number == settings.number || (settings.following && settings.number > 0 && number > settings.number));
    if (settings.log && number <= most_recorded) record(kind, function, path, value, failing);
    errno = failing ? settings.error : saved;
    return failing;
}

// A fault without an error is one of reads and writes that do only a part.
static bool fails_wholly(enum kind kind, const char *function, int descriptor, size_t *count)
{
    if (!fails(kind, function, NULL, descriptor)) return false;
    if (settings.error != 0) return true;
    *count = (*count + 1) / 2;
    return false;
}

// The function of that name in the library that comes next.
#define NEXT(name) ({ \
    static _Atomic(void *) found; \
    if (!found) found = dlsym(RTLD_NEXT, #name); \
    (__typeof__(&name))found; \
})

static int (*program)(int, char **, char **);

static int begin(int count, char **arguments, char **environment)
{
    main_began = true;
    return program(count, arguments, environment);
}

int __libc_start_main(int (*main)(int, char **, char **), int count, char **arguments, void (*before)(void),
                      void (*after)(void), void (*loader)(void), void *stack)
{
    program = main;
    return NEXT(__libc_start_main)(begin, count, arguments, before, after, loader, stack);
}

// MARK: - Memory

// What dlsym finds for these can't be used: it may allocate itself.
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t),
    *__libc_memalign(size_t, size_t);

static bool fails_to_allocate(const char *function, size_t bytes)
{
    if (bytes < settings.bytes || !main_began || !fails(ALLOCATION, function, NULL, (long)bytes)) return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t bytes)
{
    return fails_to_allocate("malloc", bytes) ? NULL : __libc_malloc(bytes);
}

void *calloc(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) bytes = SIZE_MAX;
    return fails_to_allocate("calloc", bytes) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *block, size_t bytes)
{
    return fails_to_allocate("realloc", bytes) ? NULL : __libc_realloc(block, bytes);
}

void *memalign(size_t alignment, size_t bytes)
{
    return fails_to_allocate("memalign", bytes) ? NULL : __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    return fails_to_allocate("aligned_alloc", bytes) ? NULL : __libc_memalign(alignment, bytes);
}

int posix_memalign(void **block, size_t alignment, size_t bytes)
{
    if (alignment % sizeof(void *) || alignment & (alignment - 1) || alignment == 0) return EINVAL;
    int saved = errno;
    void *found = fails_to_allocate("posix_memalign", bytes) ? NULL : __libc_memalign(alignment, bytes);
    errno = saved;
    if (!found) return ENOMEM;
    *block = found;
    return 0;
}

// A thread that asks for no more than it was granted just before has asked in order to know: OpenBLAS, whose buffers
// are tried this way, waits for ever where it gets none. What was there a moment ago is taken to be there still.
static bool fails_to_map(const char *function, size_t bytes)
{
    static _Thread_local size_t granted;
    if (bytes >= settings.bytes && bytes <= granted) {
        granted = 0;
        return false;
    }
    granted = 0;
    if (fails_to_allocate(function, bytes)) return true;
    granted = bytes;
    return false;
}

#define MAP_FUNCTION(name, offset_t) \
    void *name(void *address, size_t bytes, int protection, int flags, int descriptor, offset_t offset) \
    { \
        if (flags & MAP_ANONYMOUS ? fails_to_map(#name, bytes) : fails(MAP, #name, NULL, descriptor)) \
            return MAP_FAILED; \
        return NEXT(name)(address, bytes, protection, flags, descriptor, offset); \
    }
MAP_FUNCTION(mmap, off_t)
MAP_FUNCTION(mmap64, off64_t)

// MARK: - Threads

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
    read_settings();
    int saved = errno;
    bool failing = fails(THREAD, "pthread_create", NULL, 0);
    errno = saved;
    return failing ? settings.error : NEXT(pthread_create)(thread, attributes, start, argument);
}

// MARK: - Opening and closing

// The mode, which is there only where a file may be made.
#define MODE_ARGUMENT(flags) ({ \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = (flags) & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
    va_end(rest); \
    mode; \
})

#define OPEN_FUNCTION(name) \
    int name(const char *path, int flags, ...) \
    { \
        mode_t mode = MODE_ARGUMENT(flags); \
        return fails(OPEN, #name, path, flags) ? -1 : NEXT(name)(path, flags, mode); \
    }
OPEN_FUNCTION(open)
OPEN_FUNCTION(open64)

#define OPENAT_FUNCTION(name) \
    int name(int folder, const char *path, int flags, ...) \
    { \
        mode_t mode = MODE_ARGUMENT(flags); \
        return fails(OPEN, #name, path, flags) ? -1 : NEXT(name)(folder, path, flags, mode); \
    }
OPENAT_FUNCTION(openat)
OPENAT_FUNCTION(openat64)

#define CALL(kind, failure, type, name, parameters, arguments, path, value) \
    type name parameters { return fails(kind, #name, path, value) ? (failure) : NEXT(name) arguments; }

// What the headers' checks turn some calls into.
int __open_2(const char *, int), __open64_2(const char *, int), __openat_2(int, const char *, int),
    __openat64_2(int, const char *, int);
CALL(OPEN, -1, int, __open_2, (const char *path, int flags), (path, flags), path, flags)
CALL(OPEN, -1, int, __open64_2, (const char *path, int flags), (path, flags), path, flags)
CALL(OPEN, -1, int, __openat_2, (int folder, const char *path, int flags), (folder, path, flags), path, flags)
CALL(OPEN, -1, int, __openat64_2, (int folder, const char *path, int flags), (folder, path, flags), path, flags)
CALL(OPEN, -1, int, creat, (const char *path, mode_t mode), (path, mode), path, mode)
CALL(OPEN, -1, int, creat64, (const char *path, mode_t mode), (path, mode), path, mode)
CALL(OPEN, NULL, FILE *, fopen, (const char *path, const char *mode), (path, mode), path, 0)
CALL(OPEN, NULL, FILE *, fopen64, (const char *path, const char *mode), (path, mode), path, 0)
CALL(OPEN, NULL, DIR *, opendir, (const char *path), (path), path, 0)
CALL(OPEN, NULL, DIR *, fdopendir, (int descriptor), (descriptor), NULL, descriptor)

int close(int descriptor)
{
    bool failing = fails(CLOSE, "close", NULL, descriptor);
    int result = NEXT(close)(descriptor);
    if (!failing) return result;
    errno = settings.error;  // Linux has closed it all the same
    return -1;
}

// MARK: - Reading and writing

#define TRANSFER(kind, name, memory, ...) \
    ssize_t name(int descriptor, memory buffer, size_t count TRANSFER_PARAMETER(__VA_ARGS__)) \
    { \
        if (fails_wholly(kind, #name, descriptor, &count)) return -1; \
        return NEXT(name)(descriptor, buffer, count TRANSFER_ARGUMENT(__VA_ARGS__)); \
    }
#define TRANSFER_PARAMETER(...) __VA_OPT__(, __VA_ARGS__ offset)
#define TRANSFER_ARGUMENT(...) __VA_OPT__(, offset)
TRANSFER(READ, read, void *)
TRANSFER(READ, pread, void *, off_t)
TRANSFER(READ, pread64, void *, off64_t)
TRANSFER(WRITE, write, const void *)
TRANSFER(WRITE, pwrite, const void *, off_t)
TRANSFER(WRITE, pwrite64, const void *, off64_t)

ssize_t __read_chk(int, void *, size_t, size_t), __pread_chk(int, void *, size_t, off_t, size_t),
    __pread64_chk(int, void *, size_t, off64_t, size_t);
ssize_t __read_chk(int descriptor, void *buffer, size_t count, size_t size)
{
    if (fails_wholly(READ, "__read_chk", descriptor, &count)) return -1;
    return NEXT(__read_chk)(descriptor, buffer, count, size);
}

#define CHECKED_READ(name, offset_t) \
    ssize_t name(int descriptor, void *buffer, size_t count, offset_t offset, size_t size) \
    { \
        if (fails_wholly(READ, #name, descriptor, &count)) return -1; \
        return NEXT(name)(descriptor, buffer, count, offset, size); \
    }
CHECKED_READ(__pread_chk, off_t)
CHECKED_READ(__pread64_chk, off64_t)

// Half of the buffers, which is all of a single one.
#define VECTOR_TRANSFER(kind, name, ...) \
    ssize_t name(int descriptor, const struct iovec *buffers, int buffer_count TRANSFER_PARAMETER(__VA_ARGS__)) \
    { \
        size_t count = (size_t)buffer_count; \
        if (fails_wholly(kind, #name, descriptor, &count)) return -1; \
        return NEXT(name)(descriptor, buffers, (int)count TRANSFER_ARGUMENT(__VA_ARGS__)); \
    }
VECTOR_TRANSFER(READ, readv)
VECTOR_TRANSFER(READ, preadv, off_t)
VECTOR_TRANSFER(READ, preadv64, off64_t)
VECTOR_TRANSFER(WRITE, writev)
VECTOR_TRANSFER(WRITE, pwritev, off_t)
VECTOR_TRANSFER(WRITE, pwritev64, off64_t)

// MARK: - Files

CALL(SYNC, -1, int, fsync, (int descriptor), (descriptor), NULL, descriptor)
CALL(SYNC, -1, int, fdatasync, (int descriptor), (descriptor), NULL, descriptor)
CALL(TRUNCATE, -1, int, ftruncate, (int descriptor, off_t size), (descriptor, size), NULL, descriptor)
CALL(TRUNCATE, -1, int, ftruncate64, (int descriptor, off64_t size), (descriptor, size), NULL, descriptor)
CALL(RENAME, -1, int, rename, (const char *old, const char *new), (old, new), old, 0)
CALL(RENAME, -1, int, renameat, (int a, const char *old, int b, const char *new), (a, old, b, new), old, 0)
CALL(RENAME, -1, int, renameat2, (int a, const char *old, int b, const char *new, unsigned flags),
     (a, old, b, new, flags), old, 0)
CALL(LINK, -1, int, link, (const char *old, const char *new), (old, new), old, 0)
CALL(LINK, -1, int, linkat, (int a, const char *old, int b, const char *new, int flags),
     (a, old, b, new, flags), old, 0)
CALL(STATUS, -1, int, fstat, (int descriptor, struct stat *status), (descriptor, status), NULL, descriptor)
CALL(STATUS, -1, int, fstat64, (int descriptor, struct stat64 *status), (descriptor, status), NULL, descriptor)
CALL(STATUS, -1, int, stat, (const char *path, struct stat *status), (path, status), path, 0)
CALL(STATUS, -1, int, stat64, (const char *path, struct stat64 *status), (path, status), path, 0)
CALL(STATUS, -1, int, lstat, (const char *path, struct stat *status), (path, status), path, 0)
CALL(STATUS, -1, int, lstat64, (const char *path, struct stat64 *status), (path, status), path, 0)
CALL(STATUS, -1, int, fstatat, (int folder, const char *path, struct stat *status, int flags),
     (folder, path, status, flags), path, 0)
CALL(STATUS, -1, int, fstatat64, (int folder, const char *path, struct stat64 *status, int flags),
     (folder, path, status, flags), path, 0)
CALL(STATUS, -1, int, access, (const char *path, int mode), (path, mode), path, mode)
CALL(MODE, -1, int, fchmod, (int descriptor, mode_t mode), (descriptor, mode), NULL, descriptor)
CALL(MODE, -1, int, chmod, (const char *path, mode_t mode), (path, mode), path, mode)
CALL(MODE, -1, int, fchmodat, (int folder, const char *path, mode_t mode, int flags),
     (folder, path, mode, flags), path, mode)
CALL(LOCK, -1, int, flock, (int descriptor, int operation), (descriptor, operation), NULL, descriptor)

#endif

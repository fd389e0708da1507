// What a machine can do at best with bytes that must come from memory: load them.

#ifndef PLAIN_READ_H
#define PLAIN_READ_H

#include <stddef.h>
#include <stdint.h>

/// Loads `count` bytes from front to back, 64 at a time with the widest vectors of this machine, and returns a sum of
/// them. `bytes` is aligned to 64; what is left of `count` after multiples of 256 is left out.
uint64_t plain_read(const void *bytes, size_t count);

#endif

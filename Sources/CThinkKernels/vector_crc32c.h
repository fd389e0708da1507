// CRC-32C with instructions that take eight bytes: three parts of the data at a time, because each step waits for the
// last, then combined. A file includes this after it defines
//
// crc32c_byte, crc32c_word  one step
// crc32c_product            the step by zero of the carry-less product of a checksum and a factor

#ifndef THINK_KERNELS_VECTOR_CRC32C_H
#define THINK_KERNELS_VECTOR_CRC32C_H

#include <string.h>

#include "vector_support.h"

TCK_INLINE uint64_t crc32c_word_at(uint64_t crc, const uint8_t *bytes) {
  uint64_t word;
  memcpy(&word, bytes, sizeof word);
  return crc32c_word(crc, word);
}

/// Takes parts of `part` bytes from the front while three remain. `factor` is x^(8 * part - 33) modulo the polynomial,
/// reflected: a product and the step by zero make up for the 33, so that a checksum moves past `part` bytes.
TCK_INLINE uint64_t crc32c_parts(uint64_t crc, const uint8_t **bytes, size_t *count, size_t part, uint64_t factor) {
  while (*count >= 3 * part) {
    const uint8_t *next = *bytes;
    uint64_t second = 0, third = 0;
    for (size_t i = 0; i < part; i += 8) {
      if (i % 64 == 0) {
        for (size_t j = 0; j < 3; j++) __builtin_prefetch(next + (3 + j) * part + i, 0, PREFETCH_LEVEL);
      }
      crc = crc32c_word_at(crc, next + i);
      second = crc32c_word_at(second, next + part + i);
      third = crc32c_word_at(third, next + 2 * part + i);
    }
    second ^= crc32c_product(crc, factor);
    crc = crc32c_product(second, factor) ^ third;
    *bytes += 3 * part;
    *count -= 3 * part;
  }
  return crc;
}

TCK_INLINE uint32_t crc32c_streams(uint32_t start, const void *source, size_t count) {
  const uint8_t *bytes = source;
  uint64_t crc = (uint32_t)~start;
  crc = crc32c_parts(crc, &bytes, &count, 2048, 0xA51B6135);
  crc = crc32c_parts(crc, &bytes, &count, 128, 0x0D3B6092);
  for (; count >= 8; bytes += 8, count -= 8) crc = crc32c_word_at(crc, bytes);
  for (; count > 0; bytes++, count--) crc = crc32c_byte((uint32_t)crc, *bytes);
  return (uint32_t)~crc;
}

#endif

// Compares every instruction set of this machine with the scalar kernels, bit for bit, on random and awkward input, and
// prints a checksum of all output, which is the same on all machines. Attention and matrix products have bounds instead.
//
// For machines without a Swift toolchain, and emulated ones; Tests/CThinkKernelsTests has more.

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { GUARD = 64, MOST_TOKENS = 128, MOST_BYTES = (TCK_MAX_HEAD_DIMENSION * 4 + GUARD) * MOST_TOKENS + 4 * GUARD };

const tck_kernels *scalar, *other;
static unsigned long checks, failures;
static uint32_t digest;
static const uint64_t SEED = 0x9E3779B97F4A7C15;
static uint64_t state;

uint32_t random_bits(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 32);
}

void expect(bool equal, const char *kernel, const char *what, size_t a, size_t b, size_t c, size_t d) {
  checks++;
  if (equal) return;
  if (failures++ < 20) printf("%s %s differs: %s %zu %zu %zu %zu\n", other->name, kernel, what, a, b, c, d);
}

static const uint8_t widths[] = {1, 2, 3, 4, 5, 8};

/// Groups of which it is compared what is stored.
#define MOST_STORED 64

/// Where outputs go, with bytes around them that must stay: one pair for each set, compared as a whole.
static _Alignas(float) uint8_t outputs[2][3][MOST_BYTES];
static uint8_t inputs[MOST_BYTES];

static void reset(void) { memset(outputs, 0xA5, sizeof outputs); }

static bool outputs_equal(void) { return memcmp(outputs[0], outputs[1], sizeof outputs[0]) == 0; }

typedef enum pattern {
  NORMAL, TINY, CONSTANT, ZEROS, OFFSET, ANY_BITS, WITH_NAN, WITH_INFINITY, TOO_LARGE, PATTERNS
} pattern;

static const char *const pattern_names[] = {"normal",   "tiny",     "constant",      "zeros",    "offset",
                                            "any bits", "with nan", "with infinity", "too large"};

static void fill(void *bytes, tck_element_type type, size_t count, pattern kind) {
  for (size_t i = 0; i < count; i++) {
    float value = (float)((int)(random_bits() % 20001) - 10000) / 1000.0f;
    if (kind == TINY) value *= 1e-7f * (float)(random_bits() % 8);
    if (kind == CONSTANT) value = -3.3f;
    if (kind == ZEROS) value = random_bits() & 1 ? 0.0f : -0.0f;
    if (kind == OFFSET) value = 60000.0f + value / 64;
    scalar->narrow(type, &value, 1, (char *)bytes + i * tck_element_bytes(type));
    uint32_t bits = random_bits();
    if (kind == ANY_BITS) memcpy((char *)bytes + i * tck_element_bytes(type), &bits, tck_element_bytes(type));
  }
  float odd = kind == WITH_NAN ? NAN : kind == WITH_INFINITY ? -INFINITY : 65600.0f;
  if (kind >= WITH_NAN) scalar->narrow(type, &odd, 1, (char *)bytes + random_bits() % count * tck_element_bytes(type));
}

tck_channels choose(uint16_t *indices, size_t head_dimension, size_t count) {
  for (size_t i = 0; i < head_dimension; i++) indices[i] = (uint16_t)i;
  for (size_t i = head_dimension - 1; i > 0; i--) {
    size_t j = random_bits() % (i + 1);
    uint16_t index = indices[i];
    indices[i] = indices[j];
    indices[j] = index;
  }
  return (tck_channels){indices, count};
}

static tck_mutable_packed packed_output(size_t set, size_t shift) {
  return (tck_mutable_packed){outputs[set][0] + GUARD + shift, outputs[set][1] + GUARD, outputs[set][2] + GUARD};
}

static tck_packed packed_input(size_t set, size_t shift) {
  tck_mutable_packed packed = packed_output(set, shift);
  return (tck_packed){packed.codes, packed.scales, packed.minima};
}

/// Compares what is stored of groups, in all widths and kinds of scales.
static void compare_scales(const char *kernel, size_t groups, const float *minima, const float *maxima) {
  size_t some = groups < MOST_STORED ? groups : 1 + groups * 7 % MOST_STORED;  // Any number of groups.
  for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
    for (uint8_t scales = TCK_FLOAT16_SCALES; scales <= TCK_COMPACT_SCALES; scales++) {
      float encoded[2][2][MOST_STORED];
      uint16_t stored[2][2][MOST_STORED];
      memset(encoded, 0xA5, sizeof encoded);
      memset(stored, 0xA5, sizeof stored);
      for (size_t set = 0; set < 2; set++) {
        tck_quantizers quantizers = {stored[set][0], stored[set][1], encoded[set][0], encoded[set][1]};
        tck_coding coding = {widths[w], scales, TCK_LEAST_TO_GREATEST, TCK_NO_ROTATION};
        (set ? other : scalar)->encode_scales(coding, some, minima, maxima, quantizers);
      }
      bool equal = memcmp(encoded[0], encoded[1], sizeof encoded[0]) == 0;
      equal = equal && memcmp(stored[0], stored[1], sizeof stored[0]) == 0;
      expect(equal, kernel, "scales", some, widths[w], scales, 0);
      digest = scalar->crc32c(digest, stored[1], sizeof stored[1]);
    }
  }
}

/// Compares the choice of ranges, of any numbers of groups and of their numbers, in all widths and kinds of scales.
static void compare_fitting(tck_element_type type, pattern kind) {
  static const size_t counts[] = {32, 64, 128, 16, 80, 7, 1};
  size_t count = counts[random_bits() % (sizeof counts / sizeof *counts)];
  size_t group_count = 1 + random_bits() % MOST_STORED;
  tck_rows groups = {inputs + 1, (count + random_bits() % 3) * tck_element_bytes(type), type};
  fill(inputs + 1, type, groups.token_stride * group_count / tck_element_bytes(type), kind);
  float ranges[2][MOST_STORED];
  for (size_t i = 0; i < group_count; i++) {
    bool within = scalar->value_ranges((tck_rows){inputs + 1 + i * groups.token_stride, 0, type}, 1, count, count,
                                       &ranges[0][i], &ranges[1][i]);
    if (!within) return;
  }
  for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
    for (uint8_t scales = TCK_FLOAT16_SCALES; scales <= TCK_COMPACT_SCALES; scales++) {
      float fitted[2][2][MOST_STORED];
      for (size_t set = 0; set < 2; set++) {
        memcpy(fitted[set], ranges, sizeof ranges);
        tck_coding coding = {widths[w], scales, TCK_FITTED_RANGES, TCK_NO_ROTATION};
        (set ? other : scalar)->fit_ranges(coding, groups, count, group_count, fitted[set][0], fitted[set][1]);
      }
      bool equal = true;
      for (size_t i = 0; i < 2; i++) {
        equal = equal && memcmp(fitted[0][i], fitted[1][i], group_count * sizeof(float)) == 0;
        digest = scalar->crc32c(digest, fitted[1][i], group_count * sizeof(float));
      }
      expect(equal, "fit_ranges", pattern_names[kind], count, group_count, widths[w], scales);
    }
  }
}

/// Compares the first two steps of quantizing: ranges, and what is stored of them.
static void compare_ranges(const char *kernel, tck_rows rows, size_t tokens, tck_channels channels,
                           size_t head_dimension, size_t group, bool values) {
  static float ranges[2][2][TCK_MAX_BLOCK_TOKENS * TCK_MAX_HEAD_DIMENSION / 32];
  bool within[2];
  size_t groups = values ? tokens * tck_value_groups(head_dimension, group) : tck_padded_channels(channels.count);
  memset(ranges, 0xA5, sizeof ranges);
  for (size_t set = 0; set < 2; set++) {
    const tck_kernels *kernels = set ? other : scalar;
    float *minima = ranges[set][0], *maxima = ranges[set][1];
    within[set] = values ? kernels->value_ranges(rows, tokens, head_dimension, group, minima, maxima)
                         : kernels->key_ranges(rows, tokens, channels, head_dimension, minima, maxima);
  }
  expect(within[0] == within[1], kernel, "ranges' flag", tokens, head_dimension, group, 0);
  if (!within[0] || !within[1]) return;
  expect(memcmp(ranges[0], ranges[1], sizeof ranges[0]) == 0, kernel, "ranges", tokens, head_dimension, group, groups);
  compare_scales(kernel, groups, ranges[0][0], ranges[0][1]);
}

static void compare_blocks(tck_element_type type, size_t tokens, size_t head_dimension, unsigned width, pattern kind) {
  static uint8_t restored[2][MOST_BYTES];
  uint16_t indices[TCK_MAX_HEAD_DIMENSION];
  size_t shift = random_bits() % 4, stride = (head_dimension + random_bits() % 3 * 3) * tck_element_bytes(type);
  const size_t counts[] = {head_dimension, (head_dimension * 3 + 4) / 5, 1};
  size_t count = counts[random_bits() % 3], group = (size_t)32 << random_bits() % 3;
  tck_channels channels = choose(indices, head_dimension, count);
  tck_rows rows = {inputs + GUARD + shift, stride, type};
  fill(inputs + GUARD + shift, type, stride * tokens / tck_element_bytes(type), kind);

  for (int values = 0; values < 2; values++) {
    const char *kernel = values ? "values" : "keys";
    tck_coding coding = {(uint8_t)width, TCK_FLOAT16_SCALES, TCK_LEAST_TO_GREATEST, TCK_NO_ROTATION};
    if (random_bits() & 1) coding.ranges = TCK_FITTED_RANGES;
    if (random_bits() & 1) coding.scales = TCK_COMPACT_SCALES;
    bool packed[2];
    compare_ranges(kernel, rows, tokens, channels, head_dimension, group, values);
    reset();
    for (size_t set = 0; set < 2; set++) {
      const tck_kernels *kernels = set ? other : scalar;
      tck_mutable_packed to = packed_output(set, shift);
      packed[set] = values ? tck_pack_values(kernels, rows, tokens, head_dimension, group, coding, to)
                           : tck_pack_keys(kernels, rows, tokens, channels, head_dimension, coding, to);
    }
    expect(packed[0] == packed[1], kernel, "flag", tokens, head_dimension, width, type);
    if (!packed[0]) continue;
    expect(outputs_equal(), kernel, pattern_names[kind], tokens, head_dimension, width, type);
    digest = other->crc32c(digest, outputs[1], sizeof outputs[1]);

    if (kind == TINY) {  // Readers take whatever scale and minimum a file has.
      for (size_t i = 0; i < 64; i++) outputs[0][1][GUARD + i] = (uint8_t)random_bits();
    }
    tck_element_type to = (tck_element_type)(TCK_FLOAT16 + random_bits() % 3);
    memset(restored, 0x5A, sizeof restored);
    for (size_t set = 0; set < 2; set++) {
      const tck_kernels *kernels = set ? other : scalar;
      size_t to_stride = head_dimension * tck_element_bytes(to) + 2 * shift;
      tck_mutable_rows to_rows = {restored[set] + GUARD + shift, to_stride, to};
      if (values) kernels->unpack_values(packed_input(0, shift), tokens, head_dimension, group, coding, to_rows);
      if (!values) kernels->unpack_keys(packed_input(0, shift), tokens, channels, head_dimension, coding, to_rows);
    }
    expect(memcmp(restored[0], restored[1], sizeof restored[0]) == 0, kernel, "restored", tokens, head_dimension, width,
           to);
    digest = other->crc32c(digest, restored[1], sizeof restored[1]);
  }
}

static void compare_full_keys(tck_element_type type, tck_element_type to, size_t tokens, size_t head_dimension) {
  uint16_t indices[TCK_MAX_HEAD_DIMENSION];
  tck_channels channels = choose(indices, head_dimension, 1 + random_bits() % head_dimension);
  size_t shift = random_bits() % 4;
  tck_rows rows = {inputs + GUARD + shift, head_dimension * tck_element_bytes(type) + shift, type};
  fill(inputs, type, sizeof inputs / 16, ANY_BITS);
  reset();
  for (size_t set = 0; set < 2; set++) {
    const tck_kernels *kernels = set ? other : scalar;
    kernels->pack_full_keys(rows, tokens, channels, outputs[set][0] + GUARD + shift);
    tck_mutable_rows to_rows = {outputs[set][1] + GUARD + shift, head_dimension * tck_element_bytes(to) + shift, to};
    kernels->unpack_full_keys(type, outputs[set][0] + GUARD + shift, tokens, channels, to_rows);
  }
  expect(outputs_equal(), "full keys", "bytes", tokens, head_dimension, type, to);
  digest = other->crc32c(digest, outputs[1], sizeof outputs[1]);
}

/// Equal, or both NaN: which NaN an addition gives depends on the order of its operands.
static bool totals_equal(const double *a, const double *b, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (memcmp(a + i, b + i, sizeof *a) != 0 && !(isnan(a[i]) && isnan(b[i]))) return false;
  }
  return true;
}

static void compare_sums(tck_element_type type, size_t tokens, size_t head_dimension, pattern kind) {
  double totals[2][2][TCK_MAX_HEAD_DIMENSION];
  size_t stride = (head_dimension + random_bits() % 3) * tck_element_bytes(type);
  fill(inputs, type, stride * tokens / tck_element_bytes(type) + 1, kind);
  memset(totals, 0, sizeof totals);
  for (size_t set = 0; set < 2; set++) {
    const tck_kernels *kernels = set ? other : scalar;
    kernels->add_channel_sums((tck_rows){inputs, stride, type}, tokens, head_dimension, totals[set][0], totals[set][1]);
  }
  expect(totals_equal(totals[0][0], totals[1][0], TCK_MAX_HEAD_DIMENSION), "sums", pattern_names[kind], tokens,
         head_dimension, type, 0);
  expect(totals_equal(totals[0][1], totals[1][1], TCK_MAX_HEAD_DIMENSION), "squares", pattern_names[kind], tokens,
         head_dimension, type, 0);
  if (kind < ANY_BITS) digest = other->crc32c(digest, totals[1], sizeof totals[1]);
}

/// Compares what is done with values before they are quantized.
static void compare_rotation(tck_element_type type, size_t dimension, pattern kind) {
  float means[TCK_MAX_HEAD_DIMENSION];
  size_t count = 1 + random_bits() % 5, stride = (dimension + random_bits() % 3) * tck_element_bytes(type);
  tck_rows rows = {inputs + 1, stride, type};
  fill(inputs + 1, type, stride * count / tck_element_bytes(type) + 1, kind);
  fill(means, TCK_FLOAT32, dimension, NORMAL);
  reset();
  for (size_t set = 0; set < 2; set++) {
    float *destination = (float *)(outputs[set][0] + GUARD);
    outputs[set][1][0] = (set ? other : scalar)->subtract_means(rows, count, dimension, means, destination);
  }
  expect(outputs_equal(), "subtract_means", pattern_names[kind], dimension, count, type, 0);
  for (size_t set = 0; set < 2; set++) {
    const float *numbers = (const float *)(outputs[set][0] + GUARD);
    tck_mutable_rows to = {outputs[set][2] + GUARD, stride, type};
    (set ? other : scalar)->add_means(numbers, count, dimension, means, to);
  }
  expect(outputs_equal(), "add_means", pattern_names[kind], dimension, count, type, 0);
  for (size_t set = 0; set < 2; set++) {
    (set ? other : scalar)->rotate_rows((float *)(outputs[set][0] + GUARD), count, dimension);
  }
  expect(outputs_equal(), "rotate_rows", pattern_names[kind], dimension, count, type, 0);
  digest = scalar->crc32c(digest, outputs[1], sizeof outputs[1]);
}

/// Every 16-bit number, and float32 numbers near and between all of them.
static void compare_conversions(tck_element_type type) {
  static uint16_t halves[2][65536 + 5];
  static float floats[2][65536 + 5];
  for (size_t i = 0; i < 65536 + 5; i++) halves[0][i] = (uint16_t)i;
  for (size_t start = 0; start < 3; start++) {
    size_t count = 65536 + start;
    scalar->widen(type, halves[0], count, floats[0]);
    other->widen(type, halves[0], count, floats[1]);
    expect(memcmp(floats[0], floats[1], count * sizeof(float)) == 0, "widen", "bits", type, count, 0, 0);
  }
  for (uint32_t low = 0; low < 0x10000; low += low < 0x20 || low > 0xFFE0 || (low & 0xFFF) > 0xFF0 ? 1 : 0xF1) {
    for (uint32_t i = 0; i < 65536; i++) {
      uint32_t bits = i << 16 | low;
      memcpy(floats[0] + i, &bits, sizeof bits);
    }
    scalar->narrow(type, floats[0], 65536 - low % 16, halves[0]);
    other->narrow(type, floats[0], 65536 - low % 16, halves[1]);
    expect(memcmp(halves[0], halves[1], (65536 - low % 16) * 2) == 0, "narrow", "bits", type, low, 0, 0);
  }
}

static void compare_checksums(void) {
  for (size_t i = 0; i < sizeof inputs; i++) inputs[i] = (uint8_t)random_bits();
  for (size_t count = 0; count < 20000; count += count < 1000 ? 1 : random_bits() % 999) {
    const uint8_t *bytes = inputs + random_bits() % 64;
    uint32_t start = random_bits();
    expect(scalar->crc32c(start, bytes, count) == other->crc32c(start, bytes, count), "crc32c", "", count, 0, 0, 0);
  }
}

static void compare_bits(void) {
  static const size_t dimensions[] = {1,  7,  8,  15, 16,  17,  31,  33,  40,  63,  64,
                                      65, 80, 96, 100, 128, 192, 256, 257, 320, 1024};
  static const size_t block_tokens[] = {32, 64, 128};
  static const unsigned widths[] = {1, 2, 3, 4, 5, 8};
  checks = 0;
  digest = 0;
  state = SEED;
  compare_conversions(TCK_FLOAT16);
  compare_conversions(TCK_BFLOAT16);
  compare_checksums();
  for (size_t d = 0; d < sizeof dimensions / sizeof *dimensions; d++) {
    for (tck_element_type type = TCK_FLOAT16; type <= TCK_FLOAT32; type++) {
      for (pattern kind = NORMAL; kind < PATTERNS; kind++) {
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
          compare_blocks(type, block_tokens[random_bits() % 3], dimensions[d], widths[w], kind);
        }
        compare_fitting(type, kind);
        compare_sums(type, random_bits() % MOST_TOKENS, dimensions[d], kind);
        if (kind < ANY_BITS) compare_rotation(type, dimensions[d], kind);  // Which NaN comes out is not said.
      }
      for (tck_element_type to = TCK_FLOAT16; to <= TCK_FLOAT32; to++) {
        compare_full_keys(type, to, random_bits() % MOST_TOKENS, dimensions[d]);
      }
    }
  }
  printf("%s: %lu comparisons, output %08x\n", other->name, checks, (unsigned)digest);
}

int main(void) {
  static const char *const names[] = {"avx512vnni", "avx512", "avx2", "neondotprod", "neon"};
  const tck_kernels *last = NULL;
  scalar = tck_kernels_named("scalar");
  printf("best: %s\n", tck_best_kernels()->name);
  for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
    other = tck_kernels_named(names[n]);
    if (other == NULL) continue;
    // Some sets differ in attention only.
    if (last == NULL || other->pack_keys != last->pack_keys) compare_bits();
    state = SEED;
    compare_products();
    compare_gates();
    compare_archive();
    state = SEED;
    compare_attention();
    last = other;
  }
  printf("%lu differences\n", failures);
  return failures == 0 ? 0 : 1;
}

// Archive coding with NEON. Symbols are coded as the definition does it: NEON can't look up 16 entries of a table at
// once, and the plain loop keeps 16 lanes going as well.

#pragma STDC FP_CONTRACT OFF

#if defined(__aarch64__) && !defined(__AARCH64EB__)

#define TCK_TARGET
#define TCK_ARCHIVE(name) tck_neon_##name

#include <arm_neon.h>
#include <string.h>

#include "instruction_sets.h"
#include "vector_support.h"

#define WIDE 4
#define TCK_TILE_WIDES 4

typedef float32x4_t wide;

TCK_INLINE wide wide_load(const float *numbers) { return vld1q_f32(numbers); }

TCK_INLINE wide wide_load_some(const float *numbers, size_t count) {
  float some[WIDE] = {0};
  memcpy(some, numbers, count * sizeof *some);
  return vld1q_f32(some);
}

TCK_INLINE void wide_store(float *numbers, wide value) { vst1q_f32(numbers, value); }

TCK_INLINE void wide_store_some(float *numbers, size_t count, wide value) {
  float some[WIDE];
  vst1q_f32(some, value);
  memcpy(numbers, some, count * sizeof *some);
}

TCK_INLINE wide wide_splat(float value) { return vdupq_n_f32(value); }

TCK_INLINE wide wide_add(wide a, wide b) { return vaddq_f32(a, b); }

TCK_INLINE wide wide_subtract(wide a, wide b) { return vsubq_f32(a, b); }

TCK_INLINE wide wide_multiply(wide a, wide b) { return vmulq_f32(a, b); }

TCK_INLINE wide wide_of_codes(const int16_t *codes) { return vcvtq_f32_s32(vmovl_s16(vld1_s16(codes))); }

TCK_INLINE uint32_t wide_codes_not_zero(const int16_t *codes) {
  static const uint16_t bits[WIDE] = {1, 2, 4, 8};
  int16x4_t all = vld1_s16(codes);
  return vaddv_u16(vand_u16(vtst_s16(all, all), vld1_u16(bits)));
}

TCK_INLINE void wide_store_codes(int16_t *codes, wide value) { vst1_s16(codes, vqmovn_s32(vcvtnq_s32_f32(value))); }

TCK_INLINE bool wide_are_below(wide value, float limit) {
  return vminvq_u32(vcaltq_f32(value, vdupq_n_f32(limit))) != 0;
}

#include "vector_archive.h"

void tck_neon_encode_symbols(tck_symbol_encoder *encoder, unsigned table, const int16_t *symbols, size_t count) {
  tck_scalar_encode_symbols(encoder, table, symbols, count);
}

void tck_neon_decode_symbols(const tck_symbol_call *calls, size_t call_count, size_t count) {
  tck_scalar_decode_symbols(calls, call_count, count);
}

#endif

// The last step of restoring an archive: from sums over components to rows of keys or values.

#pragma STDC FP_CONTRACT OFF

#include "instruction_sets.h"

void tck_store_restored_rows(const tck_kernels *kernels, const tck_restored_rows *restored, size_t count) {
  static const float no_means[TCK_MAX_HEAD_DIMENSION];
  float row[TCK_MAX_HEAD_DIMENSION];
  for (size_t r = 0; r < count; r++) {
    const float *sums = restored->sums + r * restored->sum_stride;
    const size_t place = restored->places[r];
    if (place >= restored->place_count) continue;
    const float step = restored->steps[r];
    for (size_t c = 0; c < restored->dimension; c++) row[c] = sums[c] * step + restored->means[c];
    if (restored->pairs > 0) {
      kernels->rotate_pairs(row, 1, restored->dimension, restored->pairs, restored->cosines + place * restored->pairs,
                            restored->sines + place * restored->pairs, false);
    }
    tck_mutable_rows destination = restored->destination;
    destination.bytes = (uint8_t *)destination.bytes + place * destination.token_stride;
    // Without means it bounds the numbers and stores them.
    kernels->add_means(row, 1, restored->dimension, no_means, destination);
  }
}

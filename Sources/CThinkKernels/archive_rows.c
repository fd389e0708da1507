// The first step of archiving and the last of restoring: from rows of keys or values to columns of their channels, and
// from sums over components to rows.

#pragma STDC FP_CONTRACT OFF

#include "instruction_sets.h"

void tck_center_columns(const float *rows, const uint32_t *places, size_t count, size_t dimension, const float *means,
                        float *columns, size_t column_stride) {
  // So many columns are written at a time that their lines stay in the first-level cache.
  enum { BLOCK = 8 };
  for (size_t first = 0; first < dimension; first += BLOCK) {
    const size_t width = dimension - first < BLOCK ? dimension - first : BLOCK;
    float *block = columns + first * column_stride;
    for (size_t r = 0; r < count; r++) {
      if (places[r] == UINT32_MAX) continue;
      const float *row = rows + r * dimension + first;
      if (width == BLOCK) {
        for (size_t c = 0; c < BLOCK; c++) block[c * column_stride + places[r]] = row[c] - means[first + c];
      } else {
        for (size_t c = 0; c < width; c++) block[c * column_stride + places[r]] = row[c] - means[first + c];
      }
    }
  }
}

/// Numbers that are restored together: they stay in the first-level cache.
enum { TILE_NUMBERS = 4096 };

void tck_store_restored_rows(const tck_kernels *kernels, const tck_restored_rows *restored, size_t count) {
  static const float zeros[TCK_MAX_HEAD_DIMENSION];
  float rows[TILE_NUMBERS];
  const size_t dimension = restored->dimension, most_rows = TILE_NUMBERS / dimension;
  for (size_t first = 0; first < count;) {
    const size_t place = restored->places[first];
    if (place >= restored->place_count) {
      first++;
      continue;
    }
    // Rows of places that follow each other lie side by side where they are stored.
    const size_t left = restored->place_count - place;
    size_t run = 1;
    while (first + run < count && run < most_rows && run < left && restored->places[first + run] == place + run) run++;
    const size_t pairs = restored->pairs, angle = place * pairs;
    const float *cosines = pairs > 0 ? restored->cosines + angle : zeros;
    const float *sines = pairs > 0 ? restored->sines + angle : zeros;
    kernels->restore_rows(restored->sums + first * restored->sum_stride, restored->sum_stride, run, dimension,
                          restored->steps + first, restored->means, pairs, cosines, sines, rows);
    tck_mutable_rows destination = restored->destination;
    destination.bytes = (uint8_t *)destination.bytes + place * destination.token_stride;
    // Without means it bounds the numbers and stores them.
    kernels->add_means(rows, run, dimension, zeros, destination);
    first += run;
  }
}

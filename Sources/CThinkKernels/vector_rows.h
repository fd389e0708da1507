// Vector kernels over plain rows: conversion and statistics. Part of vector_kernels.h.

#ifndef THINK_KERNELS_VECTOR_ROWS_H
#define THINK_KERNELS_VECTOR_ROWS_H

#include "instruction_sets.h"
#include "vector_support.h"

// MARK: - Conversion

TCK_INLINE void convert(tck_element_type from, tck_element_type to, const void *source, size_t count,
                        void *destination) {
  for (size_t i = 0; i < count; i += LANES) {
    lanes_store(to, offset_mutable(destination, i * tck_element_bytes(to)),
                lanes_load(from, offset(source, i * tck_element_bytes(from))));
  }
}

TCK_TARGET static void widen(tck_element_type type, const void *source, size_t count, float *destination) {
  size_t whole = count / LANES * LANES;
  FOR_TYPE(type, convert(TYPE, TCK_FLOAT32, source, whole, destination));
  tck_scalar_kernels.widen(type, offset(source, whole * tck_element_bytes(type)), count - whole, destination + whole);
}

TCK_TARGET static void narrow(tck_element_type type, const float *source, size_t count, void *destination) {
  size_t whole = count / LANES * LANES;
  FOR_TYPE(type, convert(TCK_FLOAT32, TYPE, source, whole, destination));
  tck_scalar_kernels.narrow(type, source + whole, count - whole,
                            offset_mutable(destination, whole * tck_element_bytes(type)));
}

// MARK: - Statistics

/// Adds `count` lanes of channels over at most 32 rows.
TCK_INLINE void add_strip(tck_element_type type, const void *rows, size_t stride, size_t tokens, size_t count,
                          double *sums, double *squares) {
  lanes sum[TCK_SUM_LANES], square[TCK_SUM_LANES];
  for (size_t i = 0; i < count; i++) sum[i] = square[i] = lanes_splat(0);
  for (size_t token = 0; token < tokens; token++) {
    for (size_t at = 0; at < count * LANES * tck_element_bytes(type); at += 64) {
      __builtin_prefetch(offset(rows, (token + PREFETCH_TOKENS) * stride + at), 0, PREFETCH_LEVEL);
    }
    for (size_t i = 0; i < count; i++) {
      lanes value = lanes_load(type, offset(rows, token * stride + i * LANES * tck_element_bytes(type)));
      sum[i] = lanes_add(sum[i], value);
      square[i] = lanes_add(square[i], lanes_multiply(value, value));
    }
  }
  for (size_t i = 0; i < count; i++) {
    lanes_add_to(sums + i * LANES, sum[i]);
    lanes_add_to(squares + i * LANES, square[i]);
  }
}

TCK_INLINE void add_whole_lanes(tck_element_type type, tck_rows source, size_t tokens, size_t head_dimension,
                                double *sums, double *squares) {
  const size_t wide = TCK_SUM_LANES * LANES;
  for (size_t start = 0; start < tokens; start += TCK_SUBBLOCK_TOKENS) {
    size_t count = smaller(tokens - start, TCK_SUBBLOCK_TOKENS);
    const void *rows = offset(source.bytes, start * source.token_stride);
    size_t channel = 0;
    for (; channel + wide <= head_dimension; channel += wide) {
      add_strip(type, offset(rows, channel * tck_element_bytes(type)), source.token_stride, count, TCK_SUM_LANES,
                sums + channel, squares + channel);
    }
    for (; channel + LANES <= head_dimension; channel += LANES) {
      add_strip(type, offset(rows, channel * tck_element_bytes(type)), source.token_stride, count, 1, sums + channel,
                squares + channel);
    }
  }
}

TCK_TARGET static void add_channel_sums(tck_rows source, size_t tokens, size_t head_dimension, double *sums,
                                        double *squares) {
  size_t whole = head_dimension / LANES * LANES;
  FOR_TYPE(source.type, add_whole_lanes(TYPE, source, tokens, whole, sums, squares));
  source.bytes = offset(source.bytes, whole * tck_element_bytes(source.type));
  tck_scalar_kernels.add_channel_sums(source, tokens, head_dimension - whole, sums + whole, squares + whole);
}

TCK_INLINE bool subtract_from_lanes(tck_element_type type, const void *row, size_t count, const float *means,
                                    float *destination, prefetcher *ahead) {
  bool are_within = true;
  prefetch_lines(ahead, (count * tck_element_bytes(type) + 63) / 64, false);
  for (size_t i = 0; i < count; i += LANES) {
    lanes value = lanes_load(type, offset(row, i * tck_element_bytes(type)));
    are_within &= lanes_are_within(value, TCK_MAX_QUANTIZED_MAGNITUDE);
    lanes_store(TCK_FLOAT32, destination + i, lanes_subtract(value, lanes_load(TCK_FLOAT32, means + i)));
  }
  return are_within;
}

TCK_TARGET static bool subtract_means(tck_rows source, size_t count, size_t dimension, const float *means,
                                      float *destination) {
  const size_t whole = dimension / LANES * LANES;
  bool are_within = true;
  // Of the next block: packing leaves time meanwhile.
  prefetcher ahead = prefetch_after(source.bytes, count, whole * tck_element_bytes(source.type), source.token_stride);
  for (size_t i = 0; i < count; i++, destination += dimension) {
    const void *row = offset(source.bytes, i * source.token_stride);
    FOR_TYPE(source.type, are_within &= subtract_from_lanes(TYPE, row, whole, means, destination, &ahead));
    if (whole == dimension) continue;
    tck_rows rest = {offset(row, whole * tck_element_bytes(source.type)), 0, source.type};
    are_within &= tck_scalar_kernels.subtract_means(rest, 1, dimension - whole, means + whole, destination + whole);
  }
  return are_within;
}

TCK_INLINE void add_to_lanes(tck_element_type type, const float *row, size_t count, const float *means,
                             void *destination) {
  const float limit = TCK_MAX_QUANTIZED_MAGNITUDE;
  for (size_t i = 0; i < count; i += LANES) {
    lanes sum = lanes_add(lanes_load(TCK_FLOAT32, row + i), lanes_load(TCK_FLOAT32, means + i));
    sum = lanes_larger(lanes_cap(sum, limit), lanes_splat(-limit));
    lanes_store(type, offset_mutable(destination, i * tck_element_bytes(type)), sum);
  }
}

TCK_TARGET static void add_means(const float *source, size_t count, size_t dimension, const float *means,
                                 tck_mutable_rows destination) {
  const size_t whole = dimension / LANES * LANES, row_bytes = whole * tck_element_bytes(destination.type);
  // Of the next block, as subtract_means.
  prefetcher ahead = prefetch_after(destination.bytes, count, row_bytes, destination.token_stride);
  for (size_t i = 0; i < count; i++, source += dimension) {
    void *row = offset_mutable(destination.bytes, i * destination.token_stride);
    prefetch_lines(&ahead, (row_bytes + 63) / 64, true);
    FOR_TYPE(destination.type, add_to_lanes(TYPE, source, whole, means, row));
    if (whole == dimension) continue;
    tck_mutable_rows rest = {offset_mutable(row, row_bytes), 0, destination.type};
    tck_scalar_kernels.add_means(source + whole, 1, dimension - whole, means + whole, rest);
  }
}

#endif

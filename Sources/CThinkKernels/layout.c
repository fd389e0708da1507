// Where everything lies in a block.

#include "think_kernels.h"

static size_t aligned(size_t byte_count) {
  return (byte_count + TCK_LINE_BYTES - 1) / TCK_LINE_BYTES * TCK_LINE_BYTES;
}

/// Places a run's codes, or its channels in full precision, at `end`; returns where they end.
static size_t place_codes(const tck_block_plan *plan, tck_key_run *run, size_t end) {
  run->codes = end;
  return end + (run->coding.width == 0 ? run->count * plan->tokens * tck_element_bytes(plan->full_type)
                                       : tck_key_code_bytes(plan->tokens, run->count, run->coding.width));
}

/// Places the scales of all runs at `end`, and then their minima; returns where they end.
static size_t place_scales(tck_key_run *runs, size_t count, size_t end) {
  for (size_t i = 0; i < count; i++) {
    runs[i].scales = end;
    end += tck_padded_channels(runs[i].count) * tck_scale_bytes(runs[i].coding);
  }
  for (size_t i = 0; i < count; i++) {
    runs[i].minima = end;
    end += tck_padded_channels(runs[i].count) * tck_scale_bytes(runs[i].coding);
  }
  return end;
}

/// Places runs of components: codes of keys and of values, then the scales and minima of both.
static void place_value_runs(const tck_block_plan *plan, tck_block_format *format) {
  size_t end = 0;
  format->value_run_count = plan->value_run_count;
  for (size_t i = 0; i < plan->key_run_count; i++) end = place_codes(plan, &format->key_runs[i], end);
  for (size_t i = 0; i < plan->value_run_count; i++) {
    format->value_runs[i].count = plan->value_runs[i].count;
    format->value_runs[i].coding = plan->value_runs[i].coding;
    end = place_codes(plan, &format->value_runs[i], end);
  }
  end = place_scales(format->key_runs, plan->key_run_count, end);
  end = place_scales(format->value_runs, plan->value_run_count, end);
  format->byte_count = aligned(end);
}

tck_block_format tck_layout(const tck_block_plan *plan) {
  tck_block_format format = {
      .tokens = plan->tokens,
      .key_dimension = plan->key_dimension,
      .value_dimension = plan->value_dimension,
      .full_type = plan->full_type,
      .key_run_count = plan->key_run_count,
      .value_coding = plan->values,
      .value_group = plan->values.scales == TCK_COMPACT_SCALES ? TCK_COMPACT_VALUE_GROUP : plan->tokens,
  };
  tck_key_run *runs = format.key_runs;
  size_t end = 0;
  for (size_t i = 0; i < plan->key_run_count; i++) {
    runs[i].count = plan->key_runs[i].count;
    runs[i].coding = plan->key_runs[i].coding;
    end = place_codes(plan, &runs[i], end);
  }
  end = place_scales(runs, plan->key_run_count, end);
  if (plan->value_run_count > 0) {
    place_value_runs(plan, &format);
    return format;
  }
  format.value_codes = end = aligned(end);
  end += plan->values.width == 0
             ? plan->tokens * plan->value_dimension * tck_element_bytes(plan->full_type)
             : tck_value_code_bytes(plan->tokens, plan->value_dimension, plan->values.width);
  size_t groups = plan->tokens * tck_value_groups(plan->value_dimension, format.value_group);
  format.value_scales = end;
  format.value_minima = end += groups * tck_scale_bytes(plan->values);
  format.byte_count = aligned(end + groups * tck_scale_bytes(plan->values));
  return format;
}

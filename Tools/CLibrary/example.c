/* Takes a cache the whole way through the C library: compresses one of random numbers, attends, appends, saves, opens,
 * verifies and restores it, and compares what comes back. Exit status 0 if all agrees.
 *
 *   cc example.c $(pkg-config --cflags --libs think_compress) -lm && ./a.out prompt.tkv */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <think_compress.h>

enum { LAYERS = 2, QUERY_HEADS = 4, KV_HEADS = 2, DIMENSION = 64, TOKENS = 690, NEW_TOKENS = 5, QUERIES = 32 };
enum { ALL_TOKENS = TOKENS + NEW_TOKENS };

/* Keys and values of a layer as an engine may have them: keys [tokens, heads, dim], values [heads, dim, tokens]. */
typedef struct layer_numbers {
  float keys[ALL_TOKENS * KV_HEADS * DIMENSION];
  float values[KV_HEADS * DIMENSION * ALL_TOKENS];
  float queries[QUERY_HEADS * QUERIES * DIMENSION];
} layer_numbers;

static void check(tc_status status, const char *what) {
  if (status == TC_OK) return;
  fprintf(stderr, "%s: %s: %s\n", what, tc_status_name(status), tc_last_error());
  exit(1);
}

static void expect(int condition, const char *what) {
  if (condition) return;
  fprintf(stderr, "not so: %s\n", what);
  exit(1);
}

static float random_number(void) {
  static uint32_t state = 1;
  state = state * 1664525u + 1013904223u;
  return (float)(state >> 8) / 8388608.0f - 1.0f;
}

static void fill(float *numbers, size_t count) {
  for (size_t i = 0; i < count; i++) numbers[i] = random_number();
}

/* The tokens from `first` on, where they lie. */
static tc_layer tokens_of(const layer_numbers *numbers, size_t first, size_t count) {
  tc_layer layer = {.size = sizeof layer, .tokens = count};
  layer.keys = (tc_tensor){numbers->keys + first * KV_HEADS * DIMENSION, TC_FLOAT32, DIMENSION, KV_HEADS * DIMENSION, 1};
  layer.values = (tc_tensor){numbers->values + first, TC_FLOAT32, DIMENSION * ALL_TOKENS, 1, ALL_TOKENS};
  return layer;
}

static int report(void *context, double fraction) {
  *(double *)context = fraction;
  return 0; /* anything else ends the call with TC_CANCELLED */
}

/* The relative error of a layer's keys, from the first token on. */
static double error_of_keys(const tc_cache *cache, size_t layer, const layer_numbers *numbers, size_t tokens) {
  size_t count = tokens * KV_HEADS * DIMENSION;
  float *restored = malloc(count * sizeof *restored);
  expect(restored != NULL, "there is memory");
  tc_mutable_tensor keys = {restored, TC_FLOAT32, DIMENSION, KV_HEADS * DIMENSION, 1};
  check(tc_cache_restore(cache, layer, 0, tokens, &keys, NULL, NULL), "restore");
  double error = 0, norm = 0;
  for (size_t i = 0; i < count; i++) {
    error += pow(restored[i] - numbers->keys[i], 2);
    norm += pow(numbers->keys[i], 2);
  }
  free(restored);
  return sqrt(error / norm);
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s FILE\n", argv[0]);
    return 2;
  }
  printf("think_compress %s, %s\n", tc_version(), tc_kernels());
  layer_numbers *numbers = calloc(LAYERS, sizeof *numbers);
  expect(numbers != NULL, "there is memory");
  int32_t ids[ALL_TOKENS];
  for (int i = 0; i < ALL_TOKENS; i++) ids[i] = i * 7 % 1000;
  for (int i = 0; i < LAYERS; i++) {
    fill(numbers[i].keys, ALL_TOKENS * KV_HEADS * DIMENSION);
    fill(numbers[i].values, KV_HEADS * DIMENSION * ALL_TOKENS);
    fill(numbers[i].queries, QUERY_HEADS * QUERIES * DIMENSION);
  }

  /* Compress. */
  tc_recipe *recipe;
  check(tc_recipe_parse("think(keys=0.25)+kivi(bits=4)", &recipe), "recipe");
  tc_layer_shape shapes[LAYERS];
  for (int i = 0; i < LAYERS; i++) shapes[i] = (tc_layer_shape){QUERY_HEADS, KV_HEADS, DIMENSION, DIMENSION};
  tc_compressor *compressor;
  check(tc_compressor_create(recipe, shapes, LAYERS, TOKENS, TC_FLOAT32, NULL, &compressor), "compressor");
  double fraction = 0;
  tc_run_options run = {.size = sizeof run, .threads = 2, .progress = report, .context = &fraction};
  for (int i = 0; i < LAYERS; i++) {
    tc_layer layer = tokens_of(&numbers[i], 0, TOKENS);
    layer.queries = (tc_tensor){.data = numbers[i].queries, .type = TC_FLOAT32};
    layer.query_count = QUERIES;
    check(tc_compressor_add_layer(compressor, &layer, &run), "layer");
  }
  tc_metadata metadata[] = {{"model.id", "random numbers"}};
  tc_cache *cache;
  check(tc_compressor_finish(compressor, ids, metadata, 1, &run, &cache), "finish");
  tc_compressor_free(compressor);
  tc_cache_info info = {.size = sizeof info};
  check(tc_cache_get_info(cache, &info), "info");
  printf("%s: %zu tokens at %.2f bits per value\n", tc_recipe_text(recipe), info.tokens, info.bits_per_value);
  tc_recipe_free(recipe);

  /* A step of an engine: attention to the cache and to new tokens, which are then appended. */
  tc_workers *workers;
  check(tc_workers_create(2, &workers), "workers");
  float query[QUERY_HEADS * DIMENSION], output[QUERY_HEADS * DIMENSION], again[QUERY_HEADS * DIMENSION];
  fill(query, QUERY_HEADS * DIMENSION);
  tc_tensor queries = {.data = query, .type = TC_FLOAT32};
  tc_layer appended[LAYERS];
  for (int i = 0; i < LAYERS; i++) appended[i] = tokens_of(&numbers[i], TOKENS, NEW_TOKENS);
  tc_attention_options attention = {.size = sizeof attention, .newer = &appended[0]};
  check(tc_cache_attend(cache, 0, &queries, QUERY_HEADS, 1, &attention, workers, output, QUERY_HEADS * DIMENSION),
        "attention with new tokens");
  tc_cache *prompt;
  check(tc_cache_fork(cache, &prompt), "fork");
  check(tc_cache_append(cache, appended, LAYERS, NEW_TOKENS, ids + TOKENS), "append");
  check(tc_cache_attend(cache, 0, &queries, QUERY_HEADS, 1, NULL, workers, again, QUERY_HEADS * DIMENSION),
        "attention after appending");
  for (int i = 0; i < QUERY_HEADS * DIMENSION; i++)
    expect(fabsf(output[i] - again[i]) < 1e-3f, "new tokens give the same attention before and after they are appended");
  double error = error_of_keys(cache, 1, &numbers[1], ALL_TOKENS);
  printf("relative error of keys: %.4f\n", error);
  expect(error > 0.01 && error < 0.6, "a lossy recipe loses a little");

  /* A file, and back. */
  tc_save_options save = {.size = sizeof save, .replace = 1};
  check(tc_cache_save(cache, argv[1], &save, &run), "save");
  expect(fraction == 1, "progress was told");
  tc_snapshot *snapshot;
  check(tc_snapshot_open(argv[1], &snapshot), "open");
  check(tc_snapshot_verify(snapshot, NULL), "verify");
  expect(strcmp(tc_snapshot_metadata(snapshot, "model.id"), "random numbers") == 0, "metadata comes back");
  tc_snapshot_info content = {.size = sizeof content};
  check(tc_snapshot_get_info(snapshot, &content), "info");
  expect(content.tokens == ALL_TOKENS, "all tokens come back");
  tc_cache *loaded, *prefix;
  check(tc_snapshot_load(snapshot, SIZE_MAX, NULL, &loaded), "load");
  check(tc_snapshot_load(snapshot, 256, NULL, &prefix), "load a prefix");
  tc_snapshot_free(snapshot);
  expect(error_of_keys(loaded, 1, &numbers[1], ALL_TOKENS) == error, "the file has the same keys");
  check(tc_cache_attend(loaded, 0, &queries, QUERY_HEADS, 1, NULL, NULL, output, QUERY_HEADS * DIMENSION), "attention");
  for (int i = 0; i < QUERY_HEADS * DIMENSION; i++)
    expect(fabsf(output[i] - again[i]) < 1e-6f, "the file gives the same attention");
  int32_t first_ids[256];
  check(tc_cache_get_token_ids(prefix, first_ids, 256), "token ids");
  expect(memcmp(first_ids, ids, sizeof first_ids) == 0, "token ids come back");
  check(tc_cache_truncate(prompt, 100), "truncate");

  /* What is wrong is told, not fatal. */
  expect(tc_cache_truncate(prompt, 101) == TC_INVALID_ARGUMENT, "a cache is cut to tokens that it has");
  printf("as it should be: %s\n", tc_last_error());

  tc_cache_free(prefix);
  tc_cache_free(loaded);
  tc_cache_free(prompt);
  tc_cache_free(cache);
  tc_workers_free(workers);
  free(numbers);
  return 0;
}

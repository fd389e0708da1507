/* Uses the C library from eight threads at the same time: each takes a cache of its own the whole way, and all read one
 * that they share. Each must get what the same calls give afterwards, on one thread. Exit status 0 if all do.
 *
 *   cc threads.c $(pkg-config --cflags --libs think_compress) -lpthread && ./a.out FOLDER */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <think_compress.h>

enum { THREADS = 8, ROUNDS = 10, LAYERS = 2, QUERY_HEADS = 4, KV_HEADS = 2, DIMENSION = 64 };
enum { TOKENS = 600, NEW_TOKENS = 70, ALL_TOKENS = TOKENS + NEW_TOKENS, PREFIX = 300 };
enum { ROW = KV_HEADS * DIMENSION, OUTPUT = QUERY_HEADS * DIMENSION };

/* Read by all threads. */
static float keys[LAYERS][ALL_TOKENS * ROW], values[LAYERS][ALL_TOKENS * ROW], query[OUTPUT];
static int32_t ids[ALL_TOKENS];
static tc_cache *shared;
static tc_workers *workers;
static const char *folder;

/* All that a thread gets to see. */
typedef struct results {
  float own[OUTPUT], appended[OUTPUT], prefix[OUTPUT], loaded[OUTPUT], shared[OUTPUT], forked[OUTPUT];
  float own_keys[ALL_TOKENS * ROW], shared_values[TOKENS * ROW];
  int32_t ids[ALL_TOKENS];
  size_t block_bytes, shared_block_bytes;
} results;

static results seen_by[THREADS][ROUNDS], expected;

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

static tc_layer tokens_of(int layer, size_t first, size_t count) {
  tc_tensor some_keys = {keys[layer] + first * ROW, TC_FLOAT32, DIMENSION, ROW, 1};
  tc_tensor some_values = {values[layer] + first * ROW, TC_FLOAT32, DIMENSION, ROW, 1};
  return (tc_layer){.size = sizeof(tc_layer), .keys = some_keys, .values = some_values, .tokens = count};
}

static tc_cache *compressed(const char *text) {
  tc_recipe *recipe;
  check(tc_recipe_parse(text, &recipe), "recipe");
  tc_layer_shape shapes[LAYERS];
  for (int i = 0; i < LAYERS; i++) shapes[i] = (tc_layer_shape){QUERY_HEADS, KV_HEADS, DIMENSION, DIMENSION};
  tc_compressor *compressor;
  check(tc_compressor_create(recipe, shapes, LAYERS, TOKENS, TC_FLOAT32, NULL, &compressor), "compressor");
  tc_recipe_free(recipe);
  tc_run_options run = {.size = sizeof run, .threads = 2};
  for (int i = 0; i < LAYERS; i++) {
    tc_layer layer = tokens_of(i, 0, TOKENS);
    layer.queries = (tc_tensor){.data = query, .type = TC_FLOAT32};
    layer.query_count = 1;
    check(tc_compressor_add_layer(compressor, &layer, &run), "layer");
  }
  tc_cache *cache;
  check(tc_compressor_finish(compressor, ids, NULL, 0, &run, &cache), "finish");
  tc_compressor_free(compressor);
  return cache;
}

static void attend(const tc_cache *cache, tc_workers *team, float *output) {
  tc_tensor queries = {.data = query, .type = TC_FLOAT32};
  check(tc_cache_attend(cache, 1, &queries, QUERY_HEADS, 1, NULL, team, output, OUTPUT), "attend");
}

static size_t block_bytes(const tc_cache *cache) {
  tc_cache_info info = {.size = sizeof info};
  check(tc_cache_get_info(cache, &info), "info");
  return info.block_bytes;
}

/* What one thread does. `number` is its own. */
static void work(int number, results *seen) {
  /* A cache of its own. */
  tc_cache *cache = compressed("think(keys=0.25)+kivi(bits=4)"), *prefix;
  attend(cache, NULL, seen->own);
  check(tc_cache_fork(cache, &prefix), "fork");
  tc_layer added[LAYERS];
  for (int i = 0; i < LAYERS; i++) added[i] = tokens_of(i, TOKENS, NEW_TOKENS);
  check(tc_cache_append(cache, added, LAYERS, NEW_TOKENS, ids + TOKENS), "append");
  attend(cache, NULL, seen->appended);
  check(tc_cache_truncate(prefix, PREFIX), "truncate");
  attend(prefix, workers, seen->prefix);
  seen->block_bytes = block_bytes(cache);

  /* A file of its own. */
  char path[1000];
  snprintf(path, sizeof path, "%s/thread-%d.tkv", folder, number);
  tc_save_options save = {.size = sizeof save, .replace = 1, .zstd_level = 1};
  check(tc_cache_save(cache, path, &save, NULL), "save");
  tc_snapshot *snapshot;
  check(tc_snapshot_open(path, &snapshot), "open");
  tc_cache *loaded;
  check(tc_snapshot_load(snapshot, SIZE_MAX, NULL, &loaded), "load");
  tc_snapshot_free(snapshot);
  attend(loaded, NULL, seen->loaded);
  check(tc_cache_get_token_ids(loaded, seen->ids, ALL_TOKENS), "token ids");
  tc_mutable_tensor restored = {seen->own_keys, TC_FLOAT32, 0, 0, 0};
  check(tc_cache_restore(loaded, 0, 0, ALL_TOKENS, &restored, NULL, NULL), "restore");

  /* The cache of all. */
  attend(shared, workers, seen->shared);
  restored.data = seen->shared_values;
  check(tc_cache_restore(shared, 0, 0, TOKENS, NULL, &restored, NULL), "restore the shared cache");
  seen->shared_block_bytes = block_bytes(shared);
  tc_cache *fork;
  check(tc_cache_fork(shared, &fork), "fork the shared cache");
  check(tc_cache_append(fork, added, LAYERS, NEW_TOKENS, NULL), "append to the fork");
  attend(fork, NULL, seen->forked);

  /* A message of its own. */
  char message[20];
  snprintf(message, sizeof message, "%d", 5000 + number);
  expect(tc_cache_truncate(fork, 5000 + (size_t)number) == TC_INVALID_ARGUMENT, "no cache has so many tokens");
  expect(strstr(tc_last_error(), message) != NULL, "the error is that of this thread");

  tc_cache_free(fork);
  tc_cache_free(loaded);
  tc_cache_free(prefix);
  tc_cache_free(cache);
}

static void *run(void *number) {
  for (int round = 0; round < ROUNDS; round++) work((int)(size_t)number, &seen_by[(size_t)number][round]);
  return NULL;
}

static void fill(float *numbers, size_t count) {
  static uint32_t state = 1;
  for (size_t i = 0; i < count; i++) {
    state = state * 1664525u + 1013904223u;
    numbers[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
  }
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  folder = argv[1];
  for (int i = 0; i < LAYERS; i++) {
    fill(keys[i], ALL_TOKENS * ROW);
    fill(values[i], ALL_TOKENS * ROW);
  }
  fill(query, OUTPUT);
  for (int i = 0; i < ALL_TOKENS; i++) ids[i] = i * 7 % 1000;
  check(tc_workers_create(2, &workers), "workers");
  shared = compressed("kivi(bits=2)");

  pthread_t threads[THREADS];
  for (size_t i = 0; i < THREADS; i++) expect(pthread_create(&threads[i], NULL, run, (void *)i) == 0, "threads start");
  for (size_t i = 0; i < THREADS; i++) expect(pthread_join(threads[i], NULL) == 0, "threads end");
  work(THREADS, &expected);
  expect(memcmp(expected.appended, expected.loaded, sizeof expected.loaded) == 0, "the file gives the same attention");
  for (int i = 0; i < THREADS; i++)
    for (int round = 0; round < ROUNDS; round++)
      expect(memcmp(&seen_by[i][round], &expected, sizeof expected) == 0, "all threads get the same numbers");
  tc_cache_free(shared);
  tc_workers_free(workers);
  printf("%d threads got the same numbers\n", THREADS);
  return 0;
}

// Measures llama.cpp as a peer of think-compress: attention on its KV cache, and loading a saved cache.
//
// A driver starts this program and steers it through standard input and output, so that peers and think-compress take
// turns in one run. USAGE below has the commands. The shape is a layer of Llama-3-8B, decoding one token: 32 query
// heads, 8 KV heads, dimension 128.
//
// Operations, tensor layouts, and buffers are those that llama.cpp makes for such a layer, computed through its CPU
// backend. Two things that it does besides are left out, in its favour: it rotates queries and outputs when the cache
// is quantized, and it stores the new token's key and value.

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"
#include "gguf.h"
#include "llama_peer.h"

enum {
  QUERY_HEADS = 32,
  KV_HEADS = 8,
  HEAD_DIMENSION = 128,
  ROW = KV_HEADS * HEAD_DIMENSION,
  CELL_MULTIPLE = 256,  // llama.cpp attends to a multiple of this many cells and masks those without a token
  MOST_LAYERS = 1024,
};

static const char USAGE[] =
    "Usage: ggml-peer [--threads N]\n"
    "\n"
    "Measures llama.cpp; reads commands from standard input, one a line, and answers each with one line: \"ok ...\"\n"
    "or \"error TEXT\". Ends with its input.\n"
    "\n"
    "  load CASE TOKENS  prepares a case and frees the one before: ok\n"
    "  run               measures one round: ok MICROSECONDS for each layer, or ok MICROSECONDS BYTES for a state\n"
    "  check             compares the output with attention in float64 over the same cache: ok RELATIVE_ERROR;\n"
    "                    for a state, compares the restored cache with the saved one: ok 0, or an error\n"
    "  version           ok NAME, VERSION, AND COMPILER\n"
    "\n"
    "Cases:\n"
    "  flash-f16, flash-q8_0, flash-q4_0  attention with the operation FLASH_ATTN_EXT, the cache in that type\n"
    "  matmul-f16                         attention by matrix products, as with flash attention switched off\n"
    "  state-f16, state-q8_0, state-q4_0  loading a saved cache of 32 layers from a file that was just read\n";

// A round lasts at least this long, and layers take at least this much memory, so that a cache comes from DRAM.
static const double ROUND_SECONDS = 0.06;
static const size_t ROTATING_BYTES = (size_t)256 << 20;


static uint64_t random_state = 0x9E3779B97F4A7C15;

/// About normally distributed: the sum of four uniform numbers.
static float random_normal(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  uint64_t bits = random_state;
  int sum = (int)(bits & 0xFFFF) + (int)(bits >> 16 & 0xFFFF) + (int)(bits >> 32 & 0xFFFF) + (int)(bits >> 48);
  return (float)(sum - 2 * 0xFFFF) * (1.7320508f / 0xFFFF);
}

static void fill_random(struct ggml_tensor *tensor) {
  float row[ROW];
  size_t row_bytes = ggml_row_size(tensor->type, ROW);
  for (size_t offset = 0; offset < ggml_nbytes(tensor); offset += row_bytes) {
    for (int i = 0; i < ROW; i++) row[i] = random_normal();
    ggml_quantize_chunk(tensor->type, row, (char *)tensor->data + offset, 0, 1, ROW, NULL);
  }
}

// Attention.

static struct {
  bool loaded;
  bool flash;
  int tokens, cells, layers;
  struct ggml_context *stored, *computed;
  ggml_backend_buffer_t buffer;
  ggml_gallocr_t allocator;
  struct ggml_cgraph *all_layers, *last_layer;
  struct ggml_tensor *mask, *keys[MOST_LAYERS], *values[MOST_LAYERS], *queries[MOST_LAYERS], *outputs[MOST_LAYERS];
} attention;

static ggml_backend_t backend;
static struct ggml_threadpool *pool;

static void free_attention(void) {
  ggml_gallocr_free(attention.allocator);
  ggml_backend_buffer_free(attention.buffer);
  ggml_free(attention.computed);
  ggml_free(attention.stored);
  memset(&attention, 0, sizeof attention);
}

/// Adds a layer's operations to the graph, on views as llama.cpp makes them of its cache.
static void add_layer(int layer) {
  struct ggml_context *context = attention.computed;
  struct ggml_tensor *keys = attention.keys[layer], *values = attention.values[layer];
  size_t key_head = ggml_row_size(keys->type, HEAD_DIMENSION), value_head = ggml_row_size(values->type, HEAD_DIMENSION);
  int64_t cells = attention.cells;
  float scale = 1 / sqrtf(HEAD_DIMENSION);

  // A row of the cache is a token with all its heads; the views are [dimension, head, token], then permuted.
  struct ggml_tensor *q = ggml_permute(context, attention.queries[layer], 0, 2, 1, 3);
  struct ggml_tensor *k = ggml_permute(
      context, ggml_view_3d(context, keys, HEAD_DIMENSION, KV_HEADS, cells, key_head, keys->nb[1], 0), 0, 2, 1, 3);
  struct ggml_tensor *output;
  if (attention.flash) {
    struct ggml_tensor *v = ggml_permute(
        context, ggml_view_3d(context, values, HEAD_DIMENSION, KV_HEADS, cells, value_head, values->nb[1], 0), 0, 2, 1,
        3);
    output = ggml_flash_attn_ext(context, q, k, v, attention.mask, scale, 0, 0);
    ggml_prec_set_acc(output, GGML_PREC_F32);
    output = ggml_reshape_2d(context, output, HEAD_DIMENSION * QUERY_HEADS, 1);
  } else {
    // Without flash attention values are stored transposed: a row is a channel with all its tokens.
    struct ggml_tensor *v = ggml_permute(context,
                                         ggml_view_3d(context, values, cells, KV_HEADS, HEAD_DIMENSION,
                                                      HEAD_DIMENSION * values->nb[1], values->nb[1], 0),
                                         0, 2, 1, 3);
    struct ggml_tensor *scores = ggml_mul_mat(context, k, q);
    ggml_prec_set_acc(scores, GGML_PREC_F32);
    scores = ggml_soft_max_ext(context, scores, attention.mask, scale, 0);
    output = ggml_permute(context, ggml_mul_mat(context, v, scores), 0, 2, 1, 3);
    output = ggml_cont_2d(context, output, HEAD_DIMENSION * QUERY_HEADS, 1);
  }
  ggml_set_output(output);  // keeps its memory from being reused, for `check`
  ggml_build_forward_expand(attention.all_layers, output);
  attention.outputs[layer] = output;
}

static bool attend(struct ggml_cgraph *layers) {
  return ggml_backend_graph_compute(backend, layers) == GGML_STATUS_SUCCESS || fail("computing failed");
}

/// Workers spin for some milliseconds before they sleep, and would take time from whoever is measured next. Pausing
/// ends that for ggml's own threads, waiting for those of OpenMP.
static void let_workers_sleep(void) {
  ggml_threadpool_pause(pool);
  nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
}

static bool load_attention(bool flash, enum ggml_type type, int tokens) {
  int cells = (tokens + CELL_MULTIPLE - 1) / CELL_MULTIPLE * CELL_MULTIPLE;
  size_t layer_bytes = 2 * (size_t)cells * ggml_row_size(type, ROW);
  int layers = (int)((ROTATING_BYTES + layer_bytes - 1) / layer_bytes);
  if (layers < 2) layers = 2;
  if (layers > MOST_LAYERS) layers = MOST_LAYERS;

  if (backend == NULL) {
    backend = ggml_backend_cpu_init();
    struct ggml_threadpool_params parameters = ggml_threadpool_params_default(threads);
    pool = ggml_threadpool_new(&parameters);
    if (backend == NULL || pool == NULL) return fail("the CPU backend does not start");
    ggml_backend_cpu_set_n_threads(backend, threads);
    ggml_backend_cpu_set_threadpool(backend, pool);
  }

  attention.loaded = true;
  attention.flash = flash;
  attention.tokens = tokens;
  attention.cells = cells;
  attention.layers = layers;

  size_t tensors = 3 * (size_t)layers + 1;
  struct ggml_init_params descriptors = {.mem_size = ggml_tensor_overhead() * tensors, .no_alloc = true};
  attention.stored = ggml_init(descriptors);
  attention.mask = ggml_new_tensor_4d(attention.stored, flash ? GGML_TYPE_F16 : GGML_TYPE_F32, cells, 1, 1, 1);
  for (int i = 0; i < layers; i++) {
    attention.keys[i] = ggml_new_tensor_2d(attention.stored, type, ROW, cells);
    attention.values[i] = flash ? ggml_new_tensor_2d(attention.stored, type, ROW, cells)
                                : ggml_new_tensor_2d(attention.stored, type, cells, ROW);
    attention.queries[i] = ggml_new_tensor_3d(attention.stored, GGML_TYPE_F32, HEAD_DIMENSION, QUERY_HEADS, 1);
  }
  attention.buffer = ggml_backend_alloc_ctx_tensors_from_buft(attention.stored, ggml_backend_cpu_buffer_type());
  if (attention.buffer == NULL) return fail("not enough memory for %d layers of %d tokens", layers, tokens);

  for (int i = 0; i < cells; i++) {
    float value = i < tokens ? 0 : -INFINITY;
    if (flash) {
      ((ggml_fp16_t *)attention.mask->data)[i] = ggml_fp32_to_fp16(value);
    } else {
      ((float *)attention.mask->data)[i] = value;
    }
  }
  // Layers differ in their queries; that they have equal caches, in distinct memory, saves time here.
  for (int i = 0; i < layers; i++) {
    fill_random(attention.queries[i]);
    if (i == 0) {
      fill_random(attention.keys[i]);
      fill_random(attention.values[i]);
    } else {
      memcpy(attention.keys[i]->data, attention.keys[0]->data, ggml_nbytes(attention.keys[0]));
      memcpy(attention.values[i]->data, attention.values[0]->data, ggml_nbytes(attention.values[0]));
    }
  }

  size_t nodes = (size_t)layers * 16;
  descriptors.mem_size = ggml_tensor_overhead() * nodes + 2 * ggml_graph_overhead_custom(nodes, false);
  attention.computed = ggml_init(descriptors);
  attention.all_layers = ggml_new_graph_custom(attention.computed, nodes, false);
  attention.last_layer = ggml_new_graph_custom(attention.computed, nodes, false);
  for (int i = 0; i < layers; i++) add_layer(i);
  ggml_build_forward_expand(attention.last_layer, attention.outputs[layers - 1]);
  attention.allocator = ggml_gallocr_new(ggml_backend_cpu_buffer_type());
  if (!ggml_gallocr_alloc_graph(attention.allocator, attention.all_layers)) return fail("not enough memory to compute");

  // Once now, so that nothing is allocated or touched for the first time in a measured round.
  bool attended = attend(attention.all_layers);
  let_workers_sleep();
  return attended;
}

static bool run_attention(double *microseconds) {
  // Not measured: waking the workers. The last layer's cache is out of the processor's caches when its turn comes.
  ggml_threadpool_resume(pool);
  bool attended = attend(attention.last_layer);
  int passes = 0;
  double start = seconds(), elapsed = 0;
  while (attended && elapsed < ROUND_SECONDS) {
    attended = attend(attention.all_layers);
    passes++;
    elapsed = seconds() - start;
  }
  let_workers_sleep();
  *microseconds = elapsed * 1e6 / passes / attention.layers;
  return attended;
}

/// Tokens as rows of float32, whatever their type and order.
static void read_rows(float *rows, const struct ggml_tensor *tensor, bool transposed) {
  const struct ggml_type_traits *traits = ggml_get_type_traits(tensor->type);
  if (!transposed) {
    for (int t = 0; t < attention.tokens; t++) {
      traits->to_float((const char *)tensor->data + (size_t)t * tensor->nb[1], rows + (size_t)t * ROW, ROW);
    }
    return;
  }
  for (int channel = 0; channel < ROW; channel++) {
    const ggml_fp16_t *column = (const ggml_fp16_t *)((const char *)tensor->data + (size_t)channel * tensor->nb[1]);
    for (int t = 0; t < attention.tokens; t++) rows[(size_t)t * ROW + channel] = ggml_fp16_to_fp32(column[t]);
  }
}

/// Adds one layer's squared difference from attention in float64, and the squares of the latter.
static void compare_layer(int layer, const float *keys, const float *values, double *weights, double *difference,
                          double *norm) {
  const float *queries = attention.queries[layer]->data, *outputs = attention.outputs[layer]->data;
  for (int head = 0; head < QUERY_HEADS; head++) {
    const float *query = queries + head * HEAD_DIMENSION;
    int kv_head = head / (QUERY_HEADS / KV_HEADS);
    double most = -INFINITY, sum = 0, expected[HEAD_DIMENSION] = {0};
    for (int t = 0; t < attention.tokens; t++) {
      const float *key = keys + (size_t)t * ROW + kv_head * HEAD_DIMENSION;
      double score = 0;
      for (int i = 0; i < HEAD_DIMENSION; i++) score += (double)query[i] * key[i];
      weights[t] = score / sqrt(HEAD_DIMENSION);
      most = fmax(most, weights[t]);
    }
    for (int t = 0; t < attention.tokens; t++) {
      const float *value = values + (size_t)t * ROW + kv_head * HEAD_DIMENSION;
      double weight = exp(weights[t] - most);
      sum += weight;
      for (int i = 0; i < HEAD_DIMENSION; i++) expected[i] += weight * value[i];
    }
    for (int i = 0; i < HEAD_DIMENSION; i++) {
      double truth = expected[i] / sum, error = outputs[head * HEAD_DIMENSION + i] - truth;
      *difference += error * error;
      *norm += truth * truth;
    }
  }
}

static bool check_attention(double *relative_error) {
  size_t bytes = (size_t)attention.tokens * ROW * sizeof(float);
  float *keys = malloc(bytes), *values = malloc(bytes);
  double *weights = malloc((size_t)attention.tokens * sizeof(double));
  bool allocated = keys && values && weights;
  if (allocated) {
    double difference = 0, norm = 0;
    for (int i = 0; i < attention.layers; i++) {
      read_rows(keys, attention.keys[i], false);
      read_rows(values, attention.values[i], !attention.flash);
      compare_layer(i, keys, values, weights, &difference, &norm);
    }
    *relative_error = sqrt(difference / norm);
  }
  free(keys);
  free(values);
  free(weights);
  return allocated || fail("not enough memory to check");
}

// State: a model with random weights fills a cache of Llama-3-8B's shape. What costs time but leaves the cache's shape
// alone is small: vocabulary, embedding, feed-forward, and the number of query heads.

enum {
  STATE_LAYERS = 32,
  VOCABULARY = 32,
  EMBEDDING = 32,
  FEED_FORWARD = 32,
  BATCH = 256,
  MOST_STATE_TOKENS = BATCH * 256,  // llama.cpp has at most 256 sequences
};

static struct {
  bool loaded;
  int tokens;
  long long bytes;  // of the file
  llama_token *prompt;
  struct llama_model *model;
  struct llama_context *context;
} state;

/// Paths of temporary files, empty while there are none.
static char folder[512], model_path[600], state_path[600];

static void remove_file(char *path) {
  if (path[0] != 0) unlink(path);
  path[0] = 0;
}

static void remove_files(void) {
  remove_file(model_path);
  remove_file(state_path);
  if (folder[0] != 0) rmdir(folder);
  folder[0] = 0;
}

static void remove_files_and_die(int signal_number) {
  remove_files();
  _exit(128 + signal_number);
}

static void free_state(void) {
  llama_free(state.context);
  llama_model_free(state.model);
  free(state.prompt);
  memset(&state, 0, sizeof state);
  remove_files();
}

static void add_weights(struct gguf_context *file, struct ggml_context *context, const char *name, int layer,
                        int columns, int rows) {
  struct ggml_tensor *tensor = rows == 0 ? ggml_new_tensor_1d(context, GGML_TYPE_F32, columns)
                                         : ggml_new_tensor_2d(context, GGML_TYPE_F32, columns, rows);
  if (layer < 0) {
    ggml_format_name(tensor, "%s.weight", name);
  } else {
    ggml_format_name(tensor, "blk.%d.%s.weight", layer, name);
  }
  float scale = rows == 0 ? 1 : 1 / sqrtf((float)columns);
  for (int64_t i = 0; i < ggml_nelements(tensor); i++) ((float *)tensor->data)[i] = random_normal() * scale;
  gguf_add_tensor(file, tensor);
}

static bool write_model(int tokens) {
  struct gguf_context *file = gguf_init_empty();
  struct ggml_init_params memory = {.mem_size = (size_t)64 << 20};
  struct ggml_context *context = ggml_init(memory);
  gguf_set_val_str(file, "general.architecture", "llama");
  gguf_set_val_str(file, "tokenizer.ggml.model", "no_vocab");
  gguf_set_val_u32(file, "llama.vocab_size", VOCABULARY);
  gguf_set_val_u32(file, "llama.context_length", (uint32_t)tokens);
  gguf_set_val_u32(file, "llama.block_count", STATE_LAYERS);
  gguf_set_val_u32(file, "llama.embedding_length", EMBEDDING);
  gguf_set_val_u32(file, "llama.feed_forward_length", FEED_FORWARD);
  gguf_set_val_u32(file, "llama.attention.head_count", KV_HEADS);
  gguf_set_val_u32(file, "llama.attention.head_count_kv", KV_HEADS);
  gguf_set_val_u32(file, "llama.attention.key_length", HEAD_DIMENSION);
  gguf_set_val_u32(file, "llama.attention.value_length", HEAD_DIMENSION);
  gguf_set_val_u32(file, "llama.rope.dimension_count", HEAD_DIMENSION);
  gguf_set_val_f32(file, "llama.attention.layer_norm_rms_epsilon", 1e-5f);

  add_weights(file, context, "token_embd", -1, EMBEDDING, VOCABULARY);
  add_weights(file, context, "output_norm", -1, EMBEDDING, 0);
  for (int i = 0; i < STATE_LAYERS; i++) {
    add_weights(file, context, "attn_norm", i, EMBEDDING, 0);
    add_weights(file, context, "attn_q", i, EMBEDDING, ROW);
    add_weights(file, context, "attn_k", i, EMBEDDING, ROW);
    add_weights(file, context, "attn_v", i, EMBEDDING, ROW);
    add_weights(file, context, "attn_output", i, ROW, EMBEDDING);
    add_weights(file, context, "ffn_norm", i, EMBEDDING, 0);
    add_weights(file, context, "ffn_gate", i, EMBEDDING, FEED_FORWARD);
    add_weights(file, context, "ffn_up", i, EMBEDDING, FEED_FORWARD);
    add_weights(file, context, "ffn_down", i, FEED_FORWARD, EMBEDDING);
  }
  bool written = gguf_write_to_file(file, model_path, false);
  ggml_free(context);
  gguf_free(file);
  return written || fail("cannot write %s: %s", model_path, strerror(errno));
}

static bool make_folder(void) {
  _Static_assert(sizeof folder + sizeof "/model.gguf" <= sizeof model_path, "paths fit");
  const char *parent = getenv("TMPDIR");
  int length = snprintf(folder, sizeof folder, "%s/ggml-peer-XXXXXX", parent && parent[0] ? parent : "/tmp");
  bool too_long = length >= (int)sizeof folder;
  if (too_long || mkdtemp(folder) == NULL) {
    folder[0] = 0;
    return fail("cannot make a temporary folder: %s", too_long ? "TMPDIR is too long" : strerror(errno));
  }
  snprintf(model_path, sizeof model_path, "%s/model.gguf", folder);
  snprintf(state_path, sizeof state_path, "%s/state", folder);
  return true;
}

/// Waits until the file is on the disk, so that nothing is written while others are measured, and takes its size.
static bool settle_file(void) {
  FILE *file = fopen(state_path, "rb");
  struct stat status;
  bool settled = file && fsync(fileno(file)) == 0 && fstat(fileno(file), &status) == 0;
  if (settled) state.bytes = (long long)status.st_size;
  if (file) fclose(file);
  return settled || fail("cannot read %s: %s", state_path, strerror(errno));
}

/// The whole context's state is also to be had, but restoring that first fills the cache with zeros: this is faster.
static bool restore_state(void) {
  size_t count = 0;
  size_t read = llama_state_seq_load_file(state.context, state_path, 0, state.prompt, (size_t)state.tokens, &count);
  return (read > 0 && count == (size_t)state.tokens) || fail("llama.cpp does not load its state");
}

/// Fills the cache with one sequence. While it is computed every batch is a sequence of its own, so that tokens attend
/// to few others, which takes a second where all of them would take ten.
static bool fill_cache(void) {
  struct llama_batch batch = llama_batch_init(BATCH, 0, 1);
  llama_memory_t memory = llama_get_memory(state.context);
  int status = 0;
  for (int start = 0, sequence = 0; start < state.tokens && status == 0; start += BATCH, sequence++) {
    batch.n_tokens = state.tokens - start < BATCH ? state.tokens - start : BATCH;
    for (int i = 0; i < batch.n_tokens; i++) {
      batch.token[i] = state.prompt[start + i];
      batch.pos[i] = start + i;
      batch.n_seq_id[i] = 1;
      batch.seq_id[i][0] = sequence;
      batch.logits[i] = false;
    }
    status = llama_decode(state.context, batch);
    if (sequence == 0) continue;
    llama_memory_seq_cp(memory, sequence, 0, -1, -1);
    llama_memory_seq_rm(memory, sequence, -1, -1);
  }
  llama_batch_free(batch);
  return status == 0 || fail("llama.cpp does not run the model");
}

static bool load_state(enum ggml_type type, int tokens) {
  if (tokens > MOST_STATE_TOKENS) return fail("a state has at most %d tokens", MOST_STATE_TOKENS);
  state.loaded = true;
  state.tokens = tokens;
  state.prompt = malloc((size_t)tokens * sizeof *state.prompt);
  if (state.prompt == NULL) return fail("not enough memory");
  for (int i = 0; i < tokens; i++) state.prompt[i] = (int)(fabsf(random_normal()) * 1000) % VOCABULARY;
  if (!make_folder() || !write_model(tokens)) return false;

  state.model = llama_model_load_from_file(model_path, llama_model_default_params());
  if (state.model == NULL) return fail("llama.cpp does not load the model");
  struct llama_context_params parameters = llama_context_default_params();
  parameters.n_ctx = (uint32_t)tokens;
  parameters.n_batch = parameters.n_ubatch = BATCH;
  parameters.n_seq_max = (uint32_t)((tokens + BATCH - 1) / BATCH);
  parameters.kv_unified = true;  // one cache for all sequences
  parameters.n_threads = parameters.n_threads_batch = threads;
  parameters.type_k = parameters.type_v = type;
  parameters.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;  // quantized values need it, and float16 loads faster
  state.context = llama_init_from_model(state.model, parameters);
  if (state.context == NULL) return fail("not enough memory for a cache of %d tokens", tokens);

  if (!fill_cache()) return false;
  if (llama_state_seq_save_file(state.context, state_path, 0, state.prompt, (size_t)tokens) == 0) {
    return fail("llama.cpp does not save its state");
  }
  return settle_file() && restore_state();
}

static bool run_state(double *microseconds) {
  double start = seconds();
  bool restored = restore_state();
  *microseconds = (seconds() - start) * 1e6;
  return restored;
}

static bool check_state(void) {
  size_t size = llama_state_seq_get_size(state.context, 0);
  uint8_t *before = malloc(size), *after = malloc(size);
  bool equal = false;
  if (before == NULL || after == NULL) {
    fail("not enough memory to check");
  } else {
    llama_state_seq_get_data(state.context, before, size, 0);
    llama_memory_clear(llama_get_memory(state.context), true);
    equal = restore_state() && llama_state_seq_get_data(state.context, after, size, 0) == size &&
            (memcmp(before, after, size) == 0 || fail("the restored cache differs from the saved one"));
  }
  free(before);
  free(after);
  return equal;
}

// Commands.

static void free_all(void) {
  if (attention.loaded) free_attention();
  if (state.loaded) free_state();
}

static bool load(const char *name, const char *count) {
  static const struct {
    const char *name;
    bool state, flash;
    enum ggml_type type;
  } cases[] = {
      {"flash-f16", false, true, GGML_TYPE_F16},   {"flash-q8_0", false, true, GGML_TYPE_Q8_0},
      {"flash-q4_0", false, true, GGML_TYPE_Q4_0}, {"matmul-f16", false, false, GGML_TYPE_F16},
      {"state-f16", true, true, GGML_TYPE_F16},    {"state-q8_0", true, true, GGML_TYPE_Q8_0},
      {"state-q4_0", true, true, GGML_TYPE_Q4_0},
  };
  if (name == NULL || count == NULL) return fail("usage: load CASE TOKENS");
  long tokens;
  if (!number(count, MOST_TOKENS, &tokens)) return fail("TOKENS is a number from 1 to %d", MOST_TOKENS);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    if (strcmp(name, cases[i].name) != 0) continue;
    free_all();
    bool loaded = cases[i].state ? load_state(cases[i].type, (int)tokens)
                                 : load_attention(cases[i].flash, cases[i].type, (int)tokens);
    if (!loaded) free_all();
    return loaded;
  }
  return fail("unknown case: %s", name);
}

static void answer(char *line) {
  const char *separators = " \t\r\n";
  const char *command = strtok(line, separators), *first = strtok(NULL, separators), *second = strtok(NULL, separators);
  bool more = strtok(NULL, separators) != NULL;
  double value = 0;
  bool done;
  if (command == NULL) {
    done = fail("no command");
  } else if (strcmp(command, "load") == 0) {
    done = more ? fail("usage: load CASE TOKENS") : load(first, second);
    if (done) puts("ok");
  } else if (strcmp(command, "run") != 0 && strcmp(command, "check") != 0 && strcmp(command, "version") != 0) {
    done = fail("unknown command: %s", command);
  } else if (first != NULL) {
    done = fail("%s takes no arguments", command);
  } else if (strcmp(command, "version") == 0) {
    done = true;
    answer_version();
  } else if (!attention.loaded && !state.loaded) {
    done = fail("load a case first");
  } else if (strcmp(command, "run") == 0) {
    done = attention.loaded ? run_attention(&value) : run_state(&value);
    if (done && attention.loaded) printf("ok %.3f\n", value);
    if (done && state.loaded) printf("ok %.3f %lld\n", value, state.bytes);
  } else {
    done = attention.loaded ? check_attention(&value) : check_state();
    if (done) printf("ok %.3g\n", value);
  }
  if (!done) printf("error %s\n", failure);
  fflush(stdout);
}

int main(int count, char **arguments) {
  for (int i = 1; i < count; i++) {
    if (strcmp(arguments[i], "--help") == 0 || strcmp(arguments[i], "-h") == 0) {
      fputs(USAGE, stdout);
      return 0;
    }
    bool is_threads = strcmp(arguments[i], "--threads") == 0 && i + 1 < count;
    long value;
    if (!is_threads || !number(arguments[++i], MOST_THREADS, &value)) {
      fprintf(stderr, "ggml-peer: --threads N is the only option, N from 1 to %d\n\n%s", MOST_THREADS, USAGE);
      return 2;
    }
    threads = (int)value;
  }

  const int deaths[] = {SIGHUP, SIGINT, SIGPIPE, SIGTERM};
  for (size_t i = 0; i < sizeof deaths / sizeof *deaths; i++) signal(deaths[i], remove_files_and_die);
  llama_log_set(ignore_log, NULL);
  llama_backend_init();

  char line[4096];
  while (fgets(line, sizeof line, stdin)) answer(line);
  free_all();
  return 0;
}

// Measures llama.cpp as a peer of think-compress on a whole model: reading a prompt, and the tokens that follow it.
//
// A driver starts this program and steers it through standard input and output, so that llama.cpp and think-compress
// take turns in one run. USAGE below has the commands.

#include <unistd.h>

#include "ggml-cpu.h"
#include "llama_peer.h"

enum {
  MOST_STEPS = 1024,
  MOST_BATCH = 1 << 16,
};

static const char USAGE[] =
    "Usage: llama-model-peer [--threads N] MODEL TOKENS\n"
    "\n"
    "Measures llama.cpp on a GGUF file; reads commands from standard input, one a line, and answers each with one line:\n"
    "\"ok ...\" or \"error TEXT\". Ends with its input. TOKENS is a file of token ids, as decimal numbers.\n"
    "\n"
    "  load CASE N  prepares a case with the first N tokens and frees the one before: ok\n"
    "  run          measures one round: ok MICROSECONDS BYTES, with the bytes of a cache of the case's tokens\n"
    "  memory       ok BYTES, the most that the process has had in memory\n"
    "  version      ok NAME, VERSION, AND COMPILER\n"
    "\n"
    "Cases; the cache is in float16, and ATTENTION is flash or plain (flash attention switched on or off):\n"
    "  prefill:ATTENTION:BATCH  reading the tokens in batches of BATCH, with the last one's logits; time for all\n"
    "  decode:ATTENTION:STEPS   after one token more, STEPS tokens one by one, each with its logits; time for each\n";

static const char *model_path;
static llama_token *tokens;
static int token_count;

static struct {
  struct llama_model *model;
  struct llama_context *context;
  struct ggml_threadpool *pool;
  int prompt;
  /// Tokens that are decoded after the prompt; 0 where reading the prompt is what is measured.
  int steps;
} loaded;

static void unload(void) {
  if (loaded.context != NULL) llama_free(loaded.context);
  if (loaded.pool != NULL) ggml_threadpool_free(loaded.pool);
  if (loaded.model != NULL) llama_model_free(loaded.model);
  memset(&loaded, 0, sizeof loaded);
}

/// Computes tokens from `first` on in batches, with the logits of the last one.
static bool decode(int first, int count) {
  for (int batch = (int)llama_n_batch(loaded.context); count > 0; first += batch, count -= batch) {
    int size = count < batch ? count : batch;
    if (llama_decode(loaded.context, llama_batch_get_one(tokens + first, size)) != 0) {
      return fail("llama.cpp does not compute the tokens");
    }
  }
  return llama_get_logits_ith(loaded.context, -1) != NULL || fail("llama.cpp has no logits");
}

/// Forgets all tokens from `first` on.
static bool forget(int first) {
  return llama_memory_seq_rm(llama_get_memory(loaded.context), 0, first, -1) || fail("llama.cpp keeps its tokens");
}

/// Workers spin for some milliseconds before they sleep, and would take time from whoever is measured next. Pausing
/// ends that for ggml's own threads, waiting for those of OpenMP.
static void let_workers_sleep(void) {
  ggml_threadpool_pause(loaded.pool);
  nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
}

static bool load(char *name, const char *count) {
  long prompt, size;
  if (name == NULL || !number(count, token_count, &prompt)) {
    return fail("usage: load CASE N, with N from 1 to the %d tokens of the file", token_count);
  }
  const char *kind = strtok(name, ":"), *attention = strtok(NULL, ":"), *last = strtok(NULL, ":");
  bool prefills = kind != NULL && strcmp(kind, "prefill") == 0, decodes = kind != NULL && strcmp(kind, "decode") == 0;
  bool flash = attention != NULL && strcmp(attention, "flash") == 0;
  bool plain = attention != NULL && strcmp(attention, "plain") == 0;
  if ((!prefills && !decodes) || (!flash && !plain) || !number(last, decodes ? MOST_STEPS : MOST_BATCH, &size)) {
    return fail("unknown case; see --help");
  }
  if (decodes && prompt + size + 1 > token_count) return fail("the file has only %d tokens", token_count);

  unload();
  loaded.prompt = (int)prompt;
  loaded.steps = decodes ? (int)size : 0;
  struct llama_model_params model = llama_model_default_params();
  loaded.model = llama_model_load_from_file(model_path, model);
  if (loaded.model == NULL) return fail("llama.cpp does not load %s", model_path);
  int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(loaded.model));
  for (int i = 0; i < token_count; i++) {
    if (tokens[i] >= vocabulary) return fail("token id %d is not of the model", tokens[i]);
  }
  struct llama_context_params parameters = llama_context_default_params();
  parameters.n_ctx = (uint32_t)(loaded.prompt + (decodes ? loaded.steps + 1 : 0));
  if (prefills) parameters.n_batch = parameters.n_ubatch = (uint32_t)size;
  // A prompt that only prepares is read by all processors.
  int readers = prefills ? threads : (int)sysconf(_SC_NPROCESSORS_ONLN);
  parameters.n_threads = threads;
  parameters.n_threads_batch = readers;
  parameters.flash_attn_type = flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  loaded.context = llama_init_from_model(loaded.model, parameters);
  if (loaded.context == NULL) return fail("not enough memory for a cache of %ld tokens", prompt);
  struct ggml_threadpool_params pool = ggml_threadpool_params_default(readers > threads ? readers : threads);
  loaded.pool = ggml_threadpool_new(&pool);
  if (loaded.pool == NULL) return fail("threads do not start");
  llama_attach_threadpool(loaded.context, loaded.pool, loaded.pool);

  // A prompt to be measured is read once now, too: nothing is touched for the first time in a measured round.
  bool done = decode(0, loaded.prompt);
  let_workers_sleep();
  return done;
}

static bool run(double *microseconds) {
  // Not measured: waking the workers, and a first token.
  ggml_threadpool_resume(loaded.pool);
  bool done = loaded.steps > 0 ? forget(loaded.prompt) && decode(loaded.prompt, 1) : forget(0);
  double start = seconds();
  if (loaded.steps == 0) {
    done = done && decode(0, loaded.prompt);
  } else {
    for (int step = 0; done && step < loaded.steps; step++) done = decode(loaded.prompt + 1 + step, 1);
  }
  *microseconds = (seconds() - start) * 1e6 / (loaded.steps > 0 ? loaded.steps : 1);
  let_workers_sleep();
  return done;
}

/// Bytes of the cache: keys and values in float16.
static long long cache_bytes(void) {
  const struct llama_model *model = loaded.model;
  long long row = llama_model_n_embd(model) / llama_model_n_head(model) * llama_model_n_head_kv(model);
  return (long long)loaded.prompt * llama_model_n_layer(model) * row * 2 * 2;
}

/// The most that the process has had in memory: what `getrusage` tells includes the process that started this one.
static bool peak_bytes(long long *bytes) {
  FILE *file = fopen("/proc/self/status", "r");
  long long kilobytes = 0;
  char line[256];
  while (file != NULL && kilobytes == 0 && fgets(line, sizeof line, file)) sscanf(line, "VmHWM: %lld", &kilobytes);
  if (file != NULL) fclose(file);
  *bytes = kilobytes * 1024;
  return kilobytes > 0 || fail("the system does not tell the peak memory");
}

static void answer(char *line) {
  const char *separators = " \t\r\n";
  char *command = strtok(line, separators), *first = strtok(NULL, separators), *second = strtok(NULL, separators);
  bool more = strtok(NULL, separators) != NULL;
  bool done;
  if (command == NULL) {
    done = fail("no command");
  } else if (strcmp(command, "load") == 0) {
    done = more ? fail("usage: load CASE N") : load(first, second);
    if (!done) unload();
    if (done) puts("ok");
  } else if (first != NULL) {
    done = fail("%s takes no arguments", command);
  } else if (strcmp(command, "version") == 0) {
    done = true;
    answer_version();
  } else if (strcmp(command, "memory") == 0) {
    long long bytes;
    done = peak_bytes(&bytes);
    if (done) printf("ok %lld\n", bytes);
  } else if (strcmp(command, "run") == 0) {
    double microseconds = 0;
    done = loaded.context == NULL ? fail("load a case first") : run(&microseconds);
    if (done) printf("ok %.3f %lld\n", microseconds, cache_bytes());
  } else {
    done = fail("unknown command: %s", command);
  }
  if (!done) printf("error %s\n", failure);
  fflush(stdout);
}

static bool read_tokens(const char *path) {
  FILE *file = fopen(path, "r");
  if (file == NULL) return fail("%s can't be opened", path);
  tokens = malloc(MOST_TOKENS * sizeof *tokens);
  bool done = tokens != NULL || fail("not enough memory");
  int token;
  while (done && fscanf(file, "%d", &token) == 1) {
    done = token_count < MOST_TOKENS ? token >= 0 || fail("%s: token id %d", path, token) : fail("too many tokens");
    if (done) tokens[token_count++] = token;
  }
  done = done && (feof(file) || fail("%s: not a list of numbers", path));
  fclose(file);
  return done;
}

int main(int count, char **arguments) {
  const char *names[2] = {NULL, NULL};
  int named = 0;
  bool valid = true;
  for (int i = 1; i < count; i++) {
    long value = 0;
    if (strcmp(arguments[i], "--help") == 0 || strcmp(arguments[i], "-h") == 0) {
      fputs(USAGE, stdout);
      return 0;
    }
    if (strcmp(arguments[i], "--threads") == 0) {
      valid = valid && i + 1 < count && number(arguments[++i], MOST_THREADS, &value);
      threads = (int)value;
    } else {
      valid = valid && named < 2;
      if (valid) names[named++] = arguments[i];
    }
  }
  if (!valid || named < 2) {
    fprintf(stderr, "llama-model-peer: wrong arguments\n\n%s", USAGE);
    return 2;
  }
  model_path = names[0];
  if (!read_tokens(names[1])) {
    fprintf(stderr, "llama-model-peer: %s\n", failure);
    return 1;
  }
  llama_log_set(ignore_log, NULL);
  llama_backend_init();

  char line[4096];
  while (fgets(line, sizeof line, stdin)) answer(line);
  unload();
  return 0;
}

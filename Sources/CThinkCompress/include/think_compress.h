/* think_compress.h: compresses a language model's KV cache, computes attention on the compressed cache, and keeps it as
 * a file that is checked, mapped and used in place. Library.md takes a cache the whole way.
 *
 * Errors. Functions that can fail return a tc_status; tc_last_error() then says what is wrong, naming the argument, and
 * where. Bad arguments, numbers and files are never more than that: nothing aborts, and what a failed call was to change
 * is as it was. The exceptions are pointers to memory that isn't there and handles that were freed, as ever in C.
 *
 * Ownership. What a function hands out by its last argument, `tc_x **`, is the caller's, to be freed by `tc_x_free`,
 * which takes NULL, too. It is set to NULL when the function fails. Arguments are read during the call and not kept;
 * results are written to the caller's memory. Text that a function returns is the library's: it says for how long.
 *
 * Threads. All functions may be called by any threads at the same time, also on the same handle. Who reads a cache sees
 * it as it was before or after a change, never between. Only freeing a handle must be the last use of it, and a compressor
 * is one thread's at a time: calls of others are refused. While matrices are multiplied, in attention of many queries and
 * where errors are measured, OpenBLAS has one thread per caller, in all of the process.
 *
 * Sized structs begin with `size`, which the caller sets to `sizeof` the struct; all other members may be 0. Later
 * versions add members at the end, whose 0 means what earlier versions did. All other structs stay as they are.
 *
 * Numbers are little-endian in memory, as the machine's. Tensors are described by strides, in elements. */
#ifndef THINK_COMPRESS_H
#define THINK_COMPRESS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* -- Version and errors ------------------------------------------------------------------------------------------- */

#define TC_VERSION "0.3.0"
#define TC_VERSION_MAJOR 0
#define TC_VERSION_MINOR 3
#define TC_VERSION_PATCH 0

/* The version of the library that is linked, such as "0.3.0"; for ever. */
const char *tc_version(void);

/* The instruction set of the kernels in use, such as "avx512"; for ever. The environment variable
 * THINK_COMPRESS_KERNELS chooses another; NULL if it names one that this machine lacks, and then nothing works. */
const char *tc_kernels(void);

typedef enum tc_status {
  TC_OK = 0,
  TC_INVALID_ARGUMENT = 1,  /* a null pointer, a size, a stride or a shape that doesn't fit: the message names it */
  TC_INVALID_RECIPE = 2,    /* text that is no recipe: the message has the nearest right form */
  TC_UNSUPPORTED = 3,       /* a cache that the recipe or the file can't have, such as one without queries; an archive */
  TC_UNSUPPORTED_VALUE = 4, /* a number of a cache that is infinite, not a number, or too large to be quantized */
  TC_WHOLE_ONLY = 5,        /* the cache lacks tokens in some layer: it can't be cut */
  TC_OUT_OF_MEMORY = 6,
  TC_CANCELLED = 7,         /* the progress callback said so */
  TC_FILE_ERROR = 8,        /* the file can't be read or written */
  TC_FILE_EXISTS = 9,       /* the file exists already and was not to be replaced */
  TC_DAMAGED = 10,          /* the file is no snapshot, or damaged, or of another version */
  TC_NOT_FOUND = 11,        /* the cache has no such thing, such as token ids */
  TC_INTERNAL = 12,         /* a fault of the library: please report it */
  TC_OTHER_MODEL = 13,      /* the file is of another model, or of caches of another shape or type */
  TC_FILE_NOT_FOUND = 14    /* there is no such file, or no such folder to write to */
} tc_status;

/* The name of a status, such as "TC_OK"; for ever. NULL for other numbers. */
const char *tc_status_name(tc_status status);

/* What was wrong with the last call of this thread that failed; "" if none did. Valid until the next call that fails on
 * this thread; 1,023 bytes at the most, without the rest. */
const char *tc_last_error(void);

/* -- How long calls run ------------------------------------------------------------------------------------------- */

/* Called on the thread that made the call, between pieces of work, with the fraction done, 0 to 1. The call ends with
 * TC_CANCELLED if it returns anything but 0, unless the work is done already. It must return: no C++ exception or
 * longjmp leaves it. It may call the library, but not with the compressor that is at work. */
typedef int (*tc_progress)(void *context, double fraction);

typedef struct tc_run_options {
  size_t size;
  size_t threads;       /* threads that work, the caller's included; 0 for one per processor */
  tc_progress progress; /* may be NULL */
  void *context;        /* passed to progress */
} tc_run_options;

/* Threads that attention runs on, to be kept from call to call. Calls that use the same ones at the same time take
 * turns. */
typedef struct tc_workers tc_workers;

/* Starts threads; 0 for one per processor. The caller's thread counts as one of them. To be freed by tc_workers_free. */
tc_status tc_workers_create(size_t threads, tc_workers **workers);

/* Ends the threads, when no call uses them any more. */
void tc_workers_free(tc_workers *workers);

/* The type of the numbers of a tensor. */
typedef enum tc_type { TC_FLOAT16 = 1, TC_BFLOAT16 = 2, TC_FLOAT32 = 3 } tc_type;

/* -- Recipes ------------------------------------------------------------------------------------------------------ */

/* How a cache is compressed, such as "think(keys=0.4)+kivi(bits=2)", or the name of a preset, such as "balanced". */
typedef struct tc_recipe tc_recipe;

/* Reads a recipe, to be freed by tc_recipe_free. It never changes: any threads may use it. */
tc_status tc_recipe_parse(const char *text, tc_recipe **recipe);

/* The recipe in canonical text, valid until it is freed; NULL for NULL. */
const char *tc_recipe_text(const tc_recipe *recipe);

/* What a recipe asks for, and what stays as it came. */
typedef struct tc_recipe_info {
  size_t size;
  size_t observation_window; /* the prompt's last queries that it looks at; 0 for none, SIZE_MAX for all there are */
  size_t residual_window;    /* newest tokens in full precision, at least */
  size_t sinks;              /* first tokens in full precision */
  int selects_tokens;        /* whether it drops some: then caches are used whole */
  int needs_all_layers;      /* whether it looks at all layers before it compresses the first */
  tc_type type;              /* that of the only caches that it takes; 0 for any */
} tc_recipe_info;

/* Writes to as much of `info` as its `size` says. */
tc_status tc_recipe_get_info(const tc_recipe *recipe, tc_recipe_info *info);

/* Lines for people: what each stage does, and what the recipe needs of a layer. Valid until the recipe is freed; NULL
 * for NULL. */
const char *tc_recipe_advice(const tc_recipe *recipe);

/* Frees a recipe and its texts. */
void tc_recipe_free(tc_recipe *recipe);

/* -- Tensors ------------------------------------------------------------------------------------------------------ */

/* Numbers by head, token and channel, where they lie. Strides count elements. All three 0: [heads, tokens, channels]
 * without gaps. [tokens, heads, channels] has strides channels, heads * channels, 1; transposed values, [heads,
 * channels, tokens], have strides channels * tokens, 1, tokens. Data is aligned to its elements, and no two of them
 * overlap. */
typedef struct tc_tensor {
  const void *data;
  tc_type type;
  size_t head_stride, token_stride, channel_stride;
} tc_tensor;

/* The same to be written to. */
typedef struct tc_mutable_tensor {
  void *data;
  tc_type type;
  size_t head_stride, token_stride, channel_stride;
} tc_mutable_tensor;

/* The shape of one layer. All 0 for a layer without keys and values. A value_dimension of 0 alone is that of a layer
 * that has keys without values, as latent attention keeps them: it can't be attended to. */
typedef struct tc_layer_shape {
  size_t query_heads; /* a multiple of kv_heads; 0 if not known */
  size_t kv_heads;
  size_t key_dimension;
  size_t value_dimension;
} tc_layer_shape;

/* Where the tokens of paged keys and values are: token t is row (first_row + t) % block_tokens of block
 * blocks[(first_row + t) / block_tokens]. A tensor's data is then where block 0 of its pool begins, and its
 * token_stride leads from row to row within a block. All its strides 0: blocks of [heads, block_tokens, channels]
 * without gaps. */
typedef struct tc_block_table {
  size_t size;
  const int32_t *blocks;
  size_t block_count;        /* of the table */
  size_t block_tokens;       /* rows of a block */
  size_t first_row;          /* of the first token, counted from the table's begin */
  size_t pool_blocks;        /* blocks that there are: each of the table must be less */
  size_t key_block_stride;   /* in elements, from one block to the next; 0 for heads * block_tokens * channels */
  size_t value_block_stride; /* the same of values */
} tc_block_table;

/* Keys, after rotary embedding, and values of a layer's tokens. */
typedef struct tc_layer {
  size_t size;
  tc_tensor keys;     /* [kv_heads, tokens, key_dimension], of the cache's type */
  tc_tensor values;   /* [kv_heads, tokens, value_dimension], of the cache's type */
  size_t tokens;      /* the layer's; 0 for as many as the cache has, or gets. Fewer are the last ones (sliding window) */
  tc_tensor queries;  /* the prompt's last, after rotary embedding: [query_heads, query_count, key_dimension] */
  size_t query_count; /* 0 where there are none; ThinK, SnapKV and their like need some, or a profile */
  const tc_block_table *blocks;       /* of keys and values; NULL where they are not paged */
  const float *accumulated_attention; /* [kv_heads, tokens]: the sum of the softmax weights that each token got, over all
                                         queries and the query heads of the group. For h2o; NULL if not known */
  const float *output_weights;        /* [kv_heads, value_dimension]: the squared norm of the output projection's column
                                         of each value channel, the mean over the query heads of the group. For
                                         think(values=...); NULL if not known */
} tc_layer;

/* Estimates the bits per number of a layer by compressing one of this shape of random numbers, or a part of it where it is
 * large. `options` may be NULL. */
tc_status tc_recipe_estimate_bits(const tc_recipe *recipe, const tc_layer_shape *shape, size_t tokens, tc_type type,
                                  const tc_run_options *options, double *bits_per_value);

/* Text that travels with a cache, in UTF-8. Formats/snapshot.md lists keys in use, such as model.id. */
typedef struct tc_metadata {
  const char *key;
  const char *value;
} tc_metadata;

/* -- Compressing -------------------------------------------------------------------------------------------------- */

/* What was measured of a model by `think-compress profile`: recipes then need no queries, and lose less. */
typedef struct tc_profile tc_profile;

/* Reads a profile, to be freed by tc_profile_free; any threads may use it. `model` is what caches of the model say of
 * it, such as model.id; it may be NULL. TC_OTHER_MODEL if the profile is of another one. The file must not be
 * overwritten in place as long as the profile is used. */
tc_status tc_profile_open(const char *path, const tc_metadata *model, size_t model_count, tc_profile **profile);

/* Frees a profile; compressors that were made with it need it no more. */
void tc_profile_free(tc_profile *profile);

typedef struct tc_cache tc_cache;

/* Compresses a cache layer by layer, so that only one at a time need be in full precision. */
typedef struct tc_compressor tc_compressor;

typedef struct tc_compressor_options {
  size_t size;
  const tc_profile *profile; /* NULL for none; else layers' own queries are not looked at, but by selections of tokens */
} tc_compressor_options;

/* A compressor of a cache of `tokens` tokens and `layer_count` layers, in order, whose keys and values are of one
 * type. `options` may be NULL. Recipe and profile may be freed at once. To be freed by tc_compressor_free, and to be
 * used by one thread at a time. */
tc_status tc_compressor_create(const tc_recipe *recipe, const tc_layer_shape *layers, size_t layer_count,
                               size_t tokens, tc_type type, const tc_compressor_options *options,
                               tc_compressor **compressor);

/* Compresses the next layer. Recipes that decide about all layers together (`needs_all_layers`) keep a copy until
 * tc_compressor_finish. On failure the layer may be added again. `options` may be NULL. */
tc_status tc_compressor_add_layer(tc_compressor *compressor, const tc_layer *layer, const tc_run_options *options);

/* Hands out the cache when all layers were added; the compressor then has none. Where the recipe looked at no layer
 * before, numbers that it can't compress are found now, and it takes another compressor to compress others.
 * `token_ids`, one per token, may be NULL; `options` too. */
tc_status tc_compressor_finish(tc_compressor *compressor, const int32_t *token_ids, const tc_metadata *metadata,
                               size_t metadata_count, const tc_run_options *options, tc_cache **cache);

/* Frees a compressor and all that was added to it; a cache that it handed out stays. */
void tc_compressor_free(tc_compressor *compressor);

/* -- A cache ------------------------------------------------------------------------------------------------------ */

/* What there is to know about a cache. */
typedef struct tc_cache_info {
  size_t size;
  size_t tokens;
  size_t layers;
  tc_type type;
  size_t block_bytes;          /* of what is packed */
  size_t full_precision_bytes; /* of sinks and residual windows */
  double bits_per_value;       /* of both, per number that the layers hold; 0 where they hold none */
} tc_cache_info;

/* Writes to as much of `info` as its `size` says. */
tc_status tc_cache_get_info(const tc_cache *cache, tc_cache_info *info);

/* The shape of a layer, and how many rows each of its KV heads has: as many as tokens, unless it holds only some. */
tc_status tc_cache_get_layer(const tc_cache *cache, size_t layer, tc_layer_shape *shape, size_t *rows);

/* Copies the token ids. `count` is that of the cache's tokens. TC_NOT_FOUND if they are not known. */
tc_status tc_cache_get_token_ids(const tc_cache *cache, int32_t *token_ids, size_t count);

/* Appends new tokens to all layers: `layers` has one for each of the cache's, layers[0].size bytes apart, in which
 * `tokens` may be 0 and queries are not looked at; those of layers without keys have no data. `token_ids` may be NULL:
 * then the cache has none from here on. On failure nothing is appended. Other threads that use the cache meanwhile see
 * it as it was before. */
tc_status tc_cache_append(tc_cache *cache, const tc_layer *layers, size_t layer_count, size_t tokens,
                          const int32_t *token_ids);

/* Keeps the first `tokens` tokens. TC_WHOLE_ONLY if a layer lacks tokens. Other threads see the cache before or after. */
tc_status tc_cache_truncate(tc_cache *cache, size_t tokens);

/* Drops the oldest rows of a layer, which no sliding window reaches any more, in whole pages of 256: the newest `kept`
 * stay, and some before them. Where rows were dropped the cache can't be cut any more. Rows of a layer that a
 * selection of tokens has chosen stay. */
tc_status tc_cache_drop_rows(tc_cache *cache, size_t layer, size_t kept);

/* Another cache of the same content. They share memory until one of them changes, so this costs next to nothing. To be
 * freed by tc_cache_free, in any order. */
tc_status tc_cache_fork(const tc_cache *cache, tc_cache **fork);

/* Restores rows of a layer to the caller's memory, in any type and layout; `keys` or `values` may be NULL, and
 * `blocks` where they are not paged. The cache's own type restores what is in full precision bit for bit; numbers
 * above 65504 are infinite in float16. */
tc_status tc_cache_restore(const tc_cache *cache, size_t layer, size_t first_row, size_t row_count,
                           const tc_mutable_tensor *keys, const tc_mutable_tensor *values,
                           const tc_block_table *blocks);

/* How exactly queries and probabilities meet quantized keys and values. */
typedef enum tc_precision {
  TC_PRECISION_AUTOMATIC = 0, /* fast where the codes hide what that adds, by an error ten times as large */
  TC_PRECISION_FAST = 1,      /* 8 bits each: the output's relative error is some 2 % */
  TC_PRECISION_PRECISE = 2    /* 15 and 16 bits: below 5e-4 */
} tc_precision;

typedef struct tc_attention_options {
  size_t size;
  float scale;           /* what q * k is multiplied by; 0 for 1 / sqrt(key_dimension) */
  float soft_cap;        /* scores are bent to cap * tanh(score / cap); 0 for none */
  size_t sliding_window; /* tokens that a query sees, its own included; 0 for all */
  const tc_layer *newer; /* keys and values of `tokens` tokens after the cache's, in full precision; NULL for none */
  const float *sink_logits; /* [query_heads]: a score that takes its part of the softmax and has no value, as models with
                               learned attention sinks have it; -INFINITY for a head without. NULL for none */
  tc_precision precision;
} tc_attention_options;

/* Attention of queries over a layer, without decompressing it as a whole: softmax(q K^T) V. The queries belong to the
 * newest tokens, and each sees the tokens up to its own. `options` may be NULL, and `workers`, for the calling thread
 * alone; then the library keeps the memory that it worked in for the next such call, one per processor at the most.
 * Queries and newer tokens are not looked through: those that are not finite give an output that is not finite, or
 * with TC_PRECISION_FAST any.
 * queries: [query_heads, query_count, key_dimension], after rotary embedding, of any type.
 * output:  receives [query_count, query_heads, value_dimension] without gaps, `output_count` numbers. It may lie where
 *          the queries do, but not where the newer tokens do. */
tc_status tc_cache_attend(const tc_cache *cache, size_t layer, const tc_tensor *queries, size_t query_heads,
                          size_t query_count, const tc_attention_options *options, tc_workers *workers, float *output,
                          size_t output_count);

/* What compression cost in a layer: relative errors, the norm of the difference over that of the original. */
typedef struct tc_errors {
  size_t size;
  double keys;
  double values;
  double scores;    /* of q * k; not a number without queries */
  double attention; /* of the attention output; not a number without queries */
} tc_errors;

/* Compares a layer with its original in full precision, whose queries, if it has any, measure scores and attention.
 * Writes to as much of `errors` as its `size` says.
 * sliding_window: tokens that a query sees, its own included; 0 for all.
 * options: may be NULL. */
tc_status tc_cache_measure_errors(const tc_cache *cache, size_t layer, const tc_layer *original, size_t sliding_window,
                                  const tc_run_options *options, tc_errors *errors);

/* Frees a cache; its forks, and a snapshot that it was loaded from, stay. */
void tc_cache_free(tc_cache *cache);

/* -- Snapshots ---------------------------------------------------------------------------------------------------- */

typedef struct tc_save_options {
  size_t size;
  int replace;    /* whether a file of the same name may be replaced */
  int zstd_level; /* 1 to 19 for archives; 0 to store pages as they are, to be used in place */
} tc_save_options;

/* Writes the cache to a file, whole or not at all, that its owner alone may read. Both options may be NULL. */
tc_status tc_cache_save(const tc_cache *cache, const char *path, const tc_save_options *save,
                        const tc_run_options *options);

/* A snapshot in a mapped file. The file may be replaced by renaming meanwhile, and must not be overwritten in place. */
typedef struct tc_snapshot tc_snapshot;

/* Opens a file and checks all but its pages, which are not touched. To be freed by tc_snapshot_free; any threads may
 * use it. */
tc_status tc_snapshot_open(const char *path, tc_snapshot **snapshot);

/* Checks every byte of the file. `options` may be NULL. */
tc_status tc_snapshot_verify(const tc_snapshot *snapshot, const tc_run_options *options);

/* The cache of the first `tokens` tokens, or of all where `tokens` is SIZE_MAX. Its pages lie in the mapped file, which
 * stays mapped as long as a cache needs it, also when the snapshot is freed; they are checked now. A file of the prefix
 * alone is made by tc_cache_save. `options` may be NULL. To be freed by tc_cache_free. */
tc_status tc_snapshot_load(const tc_snapshot *snapshot, size_t tokens, const tc_run_options *options,
                           tc_cache **cache);

typedef struct tc_snapshot_info {
  size_t size;
  size_t tokens;
  size_t layers;
  tc_type type; /* of the keys and values that were compressed */
} tc_snapshot_info;

/* Writes to as much of `info` as its `size` says. */
tc_status tc_snapshot_get_info(const tc_snapshot *snapshot, tc_snapshot_info *info);

/* The shape of a layer. */
tc_status tc_snapshot_get_layer(const tc_snapshot *snapshot, size_t layer, tc_layer_shape *shape);

/* Checks that the cache is one of a model: TC_OTHER_MODEL if its layers, its type or its metadata are others. Keys of
 * metadata count that name models, rotary embeddings or tokenizers and are there on both sides.
 * metadata: what caches of the model say of it, such as model.id; may be NULL. */
tc_status tc_snapshot_check_model(const tc_snapshot *snapshot, const tc_layer_shape *layers, size_t layer_count,
                                  tc_type type, const tc_metadata *metadata, size_t metadata_count);

/* The recipe that compressed the cache, in canonical text, valid until the snapshot is freed; NULL if it is not known. */
const char *tc_snapshot_recipe(const tc_snapshot *snapshot);

/* Copies the token ids. `count` is that of the cache's tokens. TC_NOT_FOUND if they are not known. */
tc_status tc_snapshot_get_token_ids(const tc_snapshot *snapshot, int32_t *token_ids, size_t count);

/* Names of prefixes: a digest of 32 bytes for every whole 256 tokens, equal for equal tokens of one model
 * (Formats/snapshot.md, "CHAIN"). `digest_count` is tokens / 256. TC_NOT_FOUND if the token ids are not known. */
tc_status tc_snapshot_get_digests(const tc_snapshot *snapshot, uint8_t *digests, size_t digest_count);

/* The same of the token ids of a prompt that has no cache yet: what its snapshot's prefixes would be called.
 * layers, type: of the model's caches.
 * metadata: what they say of the model, such as model.id; may be NULL. */
tc_status tc_prefix_digests(const tc_layer_shape *layers, size_t layer_count, tc_type type, const tc_metadata *metadata,
                            size_t metadata_count, const int32_t *token_ids, size_t token_count, uint8_t *digests,
                            size_t digest_count);

/* The text of a key of metadata, or NULL if there is none; valid until the snapshot is freed. */
const char *tc_snapshot_metadata(const tc_snapshot *snapshot, const char *key);

/* Entries of metadata; 0 for NULL. */
size_t tc_snapshot_metadata_count(const tc_snapshot *snapshot);

/* An entry, by the order of their keys; its texts are valid until the snapshot is freed. */
tc_status tc_snapshot_get_metadata(const tc_snapshot *snapshot, size_t index, tc_metadata *entry);

/* Closes a snapshot and frees its texts; caches that were loaded from it stay. */
void tc_snapshot_free(tc_snapshot *snapshot);

#ifdef __cplusplus
}
#endif

#endif

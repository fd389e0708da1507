// A small engine that keeps its paged cache compressed: prompts are prefilled into blocks of a pool and compressed, and
// the blocks used by others; new tokens lie in a tail of blocks until they are appended. One sequence is forked, and
// restored to blocks. Compares every attention with that over the original numbers. Exit status 0 if all agrees.
//
//   c++ -std=c++17 paged.cpp $(pkg-config --cflags --libs think_compress) && OPENBLAS_NUM_THREADS=1 ./a.out
#include <think_compress.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

constexpr std::size_t layers = 2, queryHeads = 4, kvHeads = 2, dimension = 64, blockTokens = 16, poolBlocks = 60;
constexpr std::size_t tailTokens = 24, promptQueries = 32, rowLength = kvHeads * dimension;
constexpr std::size_t queryLength = queryHeads * dimension, originalLength = 2 * rowLength + queryLength;
constexpr std::size_t layerLength = poolBlocks * blockTokens * rowLength;
constexpr double errorBound = 0.1;  // relative, of the attention output: kivi(bits=4) costs random numbers some 0.07
using Numbers = std::vector<float>;

void check(tc_status status) {
  if (status != TC_OK) throw std::runtime_error(std::string(tc_status_name(status)) + ": " + tc_last_error());
}
template <auto free> struct Free {
  template <typename Object> void operator()(Object *object) const { free(object); }
};
using Recipe = std::unique_ptr<tc_recipe, Free<tc_recipe_free>>;
using Compressor = std::unique_ptr<tc_compressor, Free<tc_compressor_free>>;
using Cache = std::unique_ptr<tc_cache, Free<tc_cache_free>>;
template <typename Handle, typename Call> Handle made(Call call) {
  typename Handle::pointer object = nullptr;
  check(call(&object));
  return Handle(object);
}

// Attention as engines have it, to tokens whose keys and values `find` says.
template <typename Find> Numbers plainAttention(const float *query, std::size_t tokens, Find find) {
  Numbers output(queryLength), sums(queryHeads);
  for (std::size_t token = 0; token < tokens; token++) {
    const auto [keys, values] = find(token);
    for (std::size_t head = 0; head < queryHeads; head++) {
      const std::size_t first = head * dimension, kvFirst = head / (queryHeads / kvHeads) * dimension;
      const float score = std::inner_product(query + first, query + first + dimension, keys + kvFirst, 0.0f);
      const float weight = std::exp(score / std::sqrt(float{dimension}));
      sums[head] += weight;
      for (std::size_t i = 0; i < dimension; i++) output[first + i] += weight * values[kvFirst + i];
    }
  }
  for (std::size_t i = 0; i < queryLength; i++) output[i] /= sums[i / dimension];
  return output;
}

struct Pool {
  Numbers keys = Numbers(layers * layerLength), values = keys;  // [layer, block, token, KV head, dimension]
  std::vector<std::int32_t> free;
  Pool() { while (free.size() < poolBlocks) free.push_back(static_cast<std::int32_t>(free.size())); }
};

// A sequence: first in blocks alone; once compressed, in a cache with a tail of the newest tokens in blocks.
class Sequence {
 public:
  double largestError = 0;
  explicit Sequence(Pool &pool) : pool(pool) {}
  Sequence(const Sequence &) = delete;
  ~Sequence() { freeBlocks(); }

  // What a model computes of a token goes to a block. Here it is random numbers, kept to compare with.
  void add(std::int32_t id) {
    grow(1);
    for (std::size_t layer = 0; layer < layers; layer++) {
      std::seed_seq seed{static_cast<std::size_t>(id), ids.size(), layer};
      std::mt19937 random(seed);
      auto number = [&] { return static_cast<float>(random()) / 2147483648.0f - 1; };
      std::generate_n(std::back_inserter(originals[layer]), originalLength, number);
      std::copy_n(original(layer, ids.size()), rowLength, &pool.keys[place(layer, tokens - 1)]);
      std::copy_n(original(layer, ids.size()) + rowLength, rowLength, &pool.values[place(layer, tokens - 1)]);
    }
    ids.push_back(id);
  }
  void compress(const tc_recipe *recipe) {
    std::array<tc_layer_shape, layers> shapes;
    shapes.fill({queryHeads, kvHeads, dimension, dimension});
    const auto compressor = made<Compressor>([&](tc_compressor **compressor) {
      return tc_compressor_create(recipe, shapes.data(), layers, tokens, TC_FLOAT32, nullptr, compressor);
    });
    for (std::size_t layer = 0; layer < layers; layer++) {
      tc_layer added = inBlocks()[layer];
      const float *queries = original(layer, tokens - promptQueries) + 2 * rowLength;  // kivi alone would need none
      added.queries = {queries, TC_FLOAT32, dimension, originalLength, 1};
      added.query_count = promptQueries;
      check(tc_compressor_add_layer(compressor.get(), &added, nullptr));
    }
    cache = made<Cache>([&](tc_cache **cache) {
      return tc_compressor_finish(compressor.get(), ids.data(), nullptr, 0, nullptr, cache);
    });
    freeBlocks();
  }
  void decode(std::int32_t id) {
    add(id);
    for (std::size_t layer = 0; layer < layers; layer++) {
      const float *query = original(layer, ids.size() - 1) + 2 * rowLength;
      const Numbers output = attention(layer, query);
      const Numbers expected = plainAttention(query, ids.size(), [&](std::size_t token) {
        return std::make_pair(original(layer, token), original(layer, token) + rowLength);
      });
      double difference = 0, norm = 0;
      for (std::size_t i = 0; i < queryLength; i++) {
        difference += std::pow(output[i] - expected[i], 2);
        norm += std::pow(expected[i], 2);
      }
      largestError = std::max(largestError, std::sqrt(difference / norm));
      if (!(difference < norm * errorBound * errorBound)) throw std::runtime_error("attention is wrong");
    }
    if (cache && tokens == tailTokens) append();
  }
  // Packs the tail.
  void append() {
    if (tokens > 0) check(tc_cache_append(cache.get(), inBlocks().data(), layers, tokens, &ids[ids.size() - tokens]));
    freeBlocks();
  }
  // Gives an empty sequence the tokens of another, whose tail was appended. Both caches use the same memory.
  void continueFrom(const Sequence &other) {
    cache = made<Cache>([&](tc_cache **cache) { return tc_cache_fork(other.cache.get(), cache); });
    ids = other.ids;
    originals = other.originals;
  }
  // Back to blocks alone, when the tail was appended: the engine goes on as if nothing had been compressed.
  void restore() {
    grow(ids.size());
    for (std::size_t layer = 0; layer < layers; layer++) {
      const tc_mutable_tensor keys{&pool.keys[layer * layerLength], TC_FLOAT32, dimension, rowLength, 1};
      const tc_mutable_tensor values{&pool.values[layer * layerLength], TC_FLOAT32, dimension, rowLength, 1};
      check(tc_cache_restore(cache.get(), layer, 0, tokens, &keys, &values, inBlocks()[layer].blocks));
    }
    cache.reset();
  }
  void report(const char *what) const {
    tc_cache_info info{sizeof info, 0, 0, TC_FLOAT32, 0, 0, 0};
    if (cache) check(tc_cache_get_info(cache.get(), &info));
    const std::size_t used = poolBlocks - pool.free.size();
    std::printf("%s: %zu bytes compressed; the pool: %zu of %zu blocks, %zu bytes\n", what,
                info.block_bytes + info.full_precision_bytes, used, poolBlocks,
                used * blockTokens * rowLength * layers * 2 * sizeof(float));
  }

 private:
  Pool &pool;
  Cache cache;
  std::array<Numbers, layers> originals;  // [token, rows of keys and values, query]
  std::vector<std::int32_t> ids, blocks;
  std::size_t tokens = 0;  // in blocks
  tc_block_table table{};

  const float *original(std::size_t layer, std::size_t token) const {
    return &originals[layer][token * originalLength];
  }
  std::size_t place(std::size_t layer, std::size_t token) const {
    const std::size_t row = static_cast<std::size_t>(blocks[token / blockTokens]) * blockTokens + token % blockTokens;
    return layer * layerLength + row * rowLength;
  }
  void grow(std::size_t count) {
    for (tokens += count; blocks.size() * blockTokens < tokens; pool.free.pop_back()) {
      if (pool.free.empty()) throw std::runtime_error("no block is free");
      blocks.push_back(pool.free.back());
    }
  }
  void freeBlocks() {
    pool.free.insert(pool.free.end(), blocks.begin(), blocks.end());
    blocks.clear();
    tokens = 0;
  }
  // What is in blocks, as the library reads it. Valid until the next call.
  std::array<tc_layer, layers> inBlocks() {
    std::array<tc_layer, layers> result{};
    table = {sizeof table, blocks.data(), blocks.size(), blockTokens, 0, poolBlocks, 0, 0};
    for (std::size_t layer = 0; layer < layers; layer++) {
      const tc_tensor keys{&pool.keys[layer * layerLength], TC_FLOAT32, dimension, rowLength, 1};
      const tc_tensor values{&pool.values[layer * layerLength], TC_FLOAT32, dimension, rowLength, 1};
      result[layer] = {sizeof(tc_layer), keys, values, tokens, {}, 0, &table, nullptr, nullptr};
    }
    return result;
  }
  Numbers attention(std::size_t layer, const float *query) {
    if (!cache) return plainAttention(query, tokens, [&](std::size_t token) {
      return std::make_pair(&pool.keys[place(layer, token)], &pool.values[place(layer, token)]);
    });
    const tc_layer newer = inBlocks()[layer];
    const tc_attention_options options{sizeof options, 0, 0, 0, &newer, nullptr, TC_PRECISION_AUTOMATIC};
    const tc_tensor queries{query, TC_FLOAT32, 0, 0, 0};
    Numbers output(queryLength);
    check(tc_cache_attend(cache.get(), layer, &queries, queryHeads, 1, &options, nullptr, output.data(), queryLength));
    return output;
  }
};

int main() try {
  const auto recipe = made<Recipe>([](tc_recipe **recipe) { return tc_recipe_parse("kivi(bits=4)", recipe); });
  Pool pool;
  Sequence first(pool), second(pool), branch(pool);
  for (int id = 0; id < 700; id++) first.add(id);
  first.report("a prompt");
  first.compress(recipe.get());
  first.report("compressed");
  for (int id = 0; id < 600; id++) second.add(id * 3);  // beside the first prompt's blocks there would be none for it
  second.compress(recipe.get());
  for (int id = 0; id < 60; id++) first.decode(id), second.decode(id);
  first.append();
  branch.continueFrom(first);
  for (int id = 0; id < 30; id++) first.decode(id), branch.decode(id + 500);
  first.append();
  first.restore();
  first.report("restored");
  for (int id = 0; id < 10; id++) first.decode(id);
  std::printf("relative errors: %.3f, %.3f, %.3f\n", first.largestError, second.largestError, branch.largestError);
} catch (const std::exception &error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}

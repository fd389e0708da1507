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
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

constexpr std::size_t layers = 2, queryHeads = 4, kvHeads = 2, dimension = 64, blockTokens = 16;
constexpr std::size_t poolBlocks = 60, tailTokens = 24, rowLength = kvHeads * dimension;
constexpr std::size_t layerLength = poolBlocks * blockTokens * rowLength;
constexpr double errorBound = 0.1;  // relative, of the attention output: kivi(bits=4) costs random numbers some 0.07
using Query = std::array<float, queryHeads * dimension>;  // and what attention gives for it

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

// Stands for the model: what it computes of a token in a layer, here random numbers.
struct Row {
  std::array<float, rowLength> keys, values;  // [KV head, dimension]
  Query query;
  Row(std::int32_t id, std::size_t position, std::size_t layer) {
    std::mt19937 random(static_cast<std::uint32_t>((static_cast<std::size_t>(id) * 8191 + position) * layers + layer));
    auto number = [&] { return static_cast<float>(random()) / 2147483648.0f - 1; };
    std::generate(keys.begin(), keys.end(), number);
    std::generate(values.begin(), values.end(), number);
    std::generate(query.begin(), query.end(), number);
  }
};

// Attention as engines have it, to tokens whose keys and values `find` says.
template <typename Find> Query plainAttention(const Query &query, std::size_t tokens, Find find) {
  Query output{};
  std::array<float, queryHeads> sums{};
  for (std::size_t token = 0; token < tokens; token++) {
    const auto [keys, values] = find(token);
    for (std::size_t head = 0; head < queryHeads; head++) {
      const std::size_t first = head * dimension, kvFirst = head / (queryHeads / kvHeads) * dimension;
      const float score = std::inner_product(&query[first], &query[first] + dimension, &keys[kvFirst], 0.0f);
      const float weight = std::exp(score / std::sqrt(float{dimension}));
      sums[head] += weight;
      for (std::size_t i = 0; i < dimension; i++) output[first + i] += weight * values[kvFirst + i];
    }
  }
  for (std::size_t i = 0; i < output.size(); i++) output[i] /= sums[i / dimension];
  return output;
}

struct Pool {
  std::vector<float> keys, values;  // [layer, block, token, KV head, dimension]
  std::vector<std::int32_t> free;
  Pool() : keys(layers * layerLength), values(layers * layerLength), free(poolBlocks) {
    std::iota(free.begin(), free.end(), 0);
  }
};

// A sequence: first in blocks alone; once compressed, in a cache with a tail of the newest tokens in blocks.
class Sequence {
 public:
  double largestError = 0;
  explicit Sequence(Pool &pool) : pool(pool) {}
  Sequence(const Sequence &) = delete;
  ~Sequence() { freeBlocks(); }

  void add(std::int32_t id) {
    grow(1);
    ids.push_back(id);
    for (std::size_t layer = 0; layer < layers; layer++) {
      const Row row(id, ids.size() - 1, layer);
      std::copy(row.keys.begin(), row.keys.end(), &pool.keys[place(layer, tokens - 1)]);
      std::copy(row.values.begin(), row.values.end(), &pool.values[place(layer, tokens - 1)]);
    }
  }
  // The recipe is one that needs no queries; for others, each layer has the prompt's last in `queries`.
  void compress(const tc_recipe *recipe) {
    std::array<tc_layer_shape, layers> shapes;
    shapes.fill({queryHeads, kvHeads, dimension, dimension});
    const auto compressor = made<Compressor>([&](tc_compressor **compressor) {
      return tc_compressor_create(recipe, shapes.data(), layers, tokens, TC_FLOAT32, nullptr, compressor);
    });
    for (const tc_layer &layer : inBlocks()) check(tc_compressor_add_layer(compressor.get(), &layer, nullptr));
    cache = made<Cache>([&](tc_cache **cache) {
      return tc_compressor_finish(compressor.get(), ids.data(), nullptr, 0, nullptr, cache);
    });
    freeBlocks();
  }
  // One more token, whose attention is compared.
  void decode(std::int32_t id) {
    add(id);
    for (std::size_t layer = 0; layer < layers; layer++) {
      const Query query = Row(id, ids.size() - 1, layer).query, output = attention(layer, query);
      const Query expected = plainAttention(query, ids.size(), [&](std::size_t token) {
        const Row row(ids[token], token, layer);
        return std::make_pair(row.keys, row.values);
      });
      double difference = 0, norm = 0;
      for (std::size_t i = 0; i < output.size(); i++) {
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
  // Gives an empty sequence the tokens of another, whose tail was appended. Both use the same memory.
  void continueFrom(const Sequence &other) {
    cache = made<Cache>([&](tc_cache **cache) { return tc_cache_fork(other.cache.get(), cache); });
    ids = other.ids;
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
    tc_cache_info info{};
    info.size = sizeof info;
    if (cache) check(tc_cache_get_info(cache.get(), &info));
    const std::size_t used = poolBlocks - pool.free.size();
    const std::size_t bytes = used * blockTokens * rowLength * layers * 2 * sizeof(float);
    std::printf("%s: %zu tokens, %zu bytes compressed; the pool: %zu of %zu blocks, %zu bytes\n", what, ids.size(),
                info.block_bytes + info.full_precision_bytes, used, poolBlocks, bytes);
  }

 private:
  Pool &pool;
  Cache cache;
  std::vector<std::int32_t> ids, blocks;
  std::size_t tokens = 0;  // in blocks
  tc_block_table table{};

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
      result[layer].size = sizeof result[layer];
      result[layer].keys = {&pool.keys[layer * layerLength], TC_FLOAT32, dimension, rowLength, 1};
      result[layer].values = {&pool.values[layer * layerLength], TC_FLOAT32, dimension, rowLength, 1};
      result[layer].tokens = tokens;
      result[layer].blocks = &table;
    }
    return result;
  }
  Query attention(std::size_t layer, const Query &query) {
    if (!cache) return plainAttention(query, tokens, [&](std::size_t token) {
      return std::make_pair(&pool.keys[place(layer, token)], &pool.values[place(layer, token)]);
    });
    const tc_layer newer = inBlocks()[layer];
    tc_attention_options options{};
    options.size = sizeof options;
    options.newer = &newer;
    const tc_tensor queries{query.data(), TC_FLOAT32, 0, 0, 0};
    Query output;
    float *result = output.data();
    check(tc_cache_attend(cache.get(), layer, &queries, queryHeads, 1, &options, nullptr, result, output.size()));
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
  first.report("continued");
  first.restore();
  first.report("restored");
  for (int id = 0; id < 10; id++) first.decode(id);
  std::printf("relative errors of attention: at most %.3f\n",
              std::max({first.largestError, second.largestError, branch.largestError}));
} catch (const std::exception &error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}

import CThinkCompress
import Foundation
import TestSupport
import Testing
import ThinkCompress

/// What recipes look at beside keys, values and queries.
@Suite struct ModelStatisticsTests {
    /// A profile of a cache's shape, and its file.
    private func makeProfile(of cache: KVCache, in folder: TemporaryFolder) throws -> ([LayerProfile], String) {
        var generator = SplitMix64(seed: 5)
        func numbers(_ count: Int) -> [Float] { (0..<count).map { _ in Float(generator.nextFraction()) + 0.1 } }
        let layers = cache.geometry.layers.map { layer in
            let (keys, values) = (layer.kvHeads * layer.keyDimension, layer.kvHeads * layer.valueDimension)
            return LayerProfile(
                meanSquaredQueries: numbers(keys),
                sensitivity: LayerSensitivity(
                    keys: numbers(keys),
                    values: numbers(values),
                    valueVariances: numbers(values)
                ),
                outputWeights: numbers(values)
            )
        }
        let path = folder.file("model.profile")
        try ModelProfile.write(
            layers,
            geometry: cache.geometry,
            metadata: ["model.id": "test"],
            to: path,
            replacingExisting: false
        )
        return (layers, path)
    }

    @Test("a profile stands in for queries", arguments: ["balanced", "think(keys=0.4,values=0.4)+kivi(bits=2)"])
    func profile(recipe: String) async throws {
        let source = try TestCache.small()
        let folder = try TemporaryFolder()
        let (layers, path) = try makeProfile(of: source, in: folder)
        var compressor = CacheCompressor(
            geometry: source.geometry,
            tokenCount: source.tokenCount,
            elementType: source.elementType,
            recipe: try Recipe(recipe),
            profile: layers
        )
        try await compressor.add(source.layers)
        let expected = compressor.finish(tokens: source.tokens, metadata: source.metadata)
        let profile = try EngineText.withMetadata(source.metadata) { model in
            try Owned(free: tc_profile_free) { tc_profile_open(path, model, model.count, $0) }
        }
        try await expectSameFile(try Owned.cache(source, recipe: recipe, profile: profile), expected)
    }

    @Test("profiles of other models, of other shapes, and files that are none")
    func badProfiles() throws {
        let source = try TestCache.small()
        let folder = try TemporaryFolder()
        let (_, path) = try makeProfile(of: source, in: folder)
        var handle: OpaquePointer?
        expect(tc_profile_open(folder.file("none"), nil, 0, &handle), is: TC_FILE_NOT_FOUND, says: "none")
        EngineText.withMetadata(["model.id": "another"]) { model in
            expect(tc_profile_open(path, model, 1, &handle), is: TC_OTHER_MODEL, says: "another model.id")
            expect(tc_profile_open(path, nil, 1, &handle), is: TC_INVALID_ARGUMENT, says: "model is NULL")
            expect(tc_profile_open(path, model, -1, &handle), is: TC_INVALID_ARGUMENT, says: "model_count")
        }
        let bytes = try fileBytes(path)
        for (name, content) in [("short", Array(bytes.prefix(100))), ("text", Array("no profile at all".utf8))] {
            try Data(content).write(to: URL(filePath: folder.file(name)))
            expect(tc_profile_open(folder.file(name), nil, 0, &handle), is: TC_DAMAGED, says: name)
        }
        let profile = try Owned(free: tc_profile_free) { tc_profile_open(path, nil, 0, $0) }
        let recipe = try Owned.recipe("balanced")
        var options = tc_compressor_options(size: MemoryLayout<tc_compressor_options>.size, profile: profile.pointer)
        var shapes = source.shapeArguments
        shapes[1].key_dimension = 64
        expect(
            tc_compressor_create(recipe.pointer, shapes, 2, 300, TC_FLOAT16, &options, &handle),
            is: TC_OTHER_MODEL,
            says: "options.profile"
        )
        options.size = 1
        expect(
            tc_compressor_create(recipe.pointer, shapes, 2, 300, TC_FLOAT16, &options, &handle),
            is: TC_INVALID_ARGUMENT,
            says: "options.size is 1"
        )
    }

    @Test("accumulated attention and output weights are what a layer says they are")
    func layerStatistics() async throws {
        let source = try TestCache.small()
        var generator = SplitMix64(seed: 6)
        let attention = (0..<2).map { _ in
            (0..<2).map { _ in (0..<300).map { _ in Double(Float(generator.nextFraction())) } }
        }
        let weights = (0..<2).map { _ in (0..<64).map { _ in Float(generator.nextFraction()) } }
        let layers = source.layers.enumerated().map { index, layer in
            KVCacheLayer(
                keys: layer.keys,
                values: layer.values,
                queries: layer.queries,
                accumulatedAttention: attention[index],
                outputWeights: weights[index]
            )
        }
        let recipe = "h2o(keep=0.5)+think(keys=0.4,values=0.5)"
        let expected = try await CompressedCache(
            compressing: KVCache(layers: layers, tokens: source.tokens, metadata: source.metadata),
            recipe: Recipe(recipe)
        )
        let compressor = try Owned.compressor(source, recipe: recipe)
        for (index, layer) in source.layers.enumerated() {
            let memory = EngineLayer(layer)
            var argument = memory.argument
            var sums = attention[index].flatMap { $0.map(Float.init) }
            try withExtendedLifetime(memory) {
                try weights[index].withUnsafeBufferPointer { weights in
                    argument.output_weights = weights.baseAddress
                    sums[7] = -1
                    sums.withUnsafeBufferPointer {
                        argument.accumulated_attention = $0.baseAddress
                        expect(
                            tc_compressor_add_layer(compressor.pointer, &argument, nil),
                            is: TC_INVALID_ARGUMENT,
                            says: "layer.accumulated_attention"
                        )
                    }
                    sums[7] = Float(attention[index][0][7])
                    try sums.withUnsafeBufferPointer {
                        argument.accumulated_attention = $0.baseAddress
                        try check(tc_compressor_add_layer(compressor.pointer, &argument, nil))
                    }
                }
            }
        }
        try await expectSameFile(try Owned.finish(compressor, of: source), expected)
    }

    @Test("learned sinks and the precision of attention are Swift's")
    func attention() async throws {
        let source = try TestCache.small()
        let expected = try await CompressedCache(compressing: source, recipe: Recipe("kivi(bits=2)"))
        let cache = try Owned.cache(source, recipe: "kivi(bits=2)")
        let queries = try #require(source.layers[0].queries)
        let memory = EngineTensor(queries)
        let sinks: [Float] = [1, -2, -.infinity, 3]
        for (argument, precision) in [
            (TC_PRECISION_AUTOMATIC, Attention.Precision.automatic), (TC_PRECISION_FAST, .fast),
            (TC_PRECISION_PRECISE, .precise),
        ] {
            var result = [Float](repeating: 0, count: 32 * 4 * 32)
            var span = result.mutableSpan
            try Attention(sinkLogits: sinks, precision: precision).attend(
                queries,
                over: expected.layers[0],
                using: WorkerThreads(threadCount: 1),
                into: &span
            )
            var output = [Float](repeating: 0, count: result.count)
            var tensor = memory.argument
            try sinks.withUnsafeBufferPointer { sinks in
                var options = tc_attention_options()
                options.size = MemoryLayout<tc_attention_options>.size
                (options.sink_logits, options.precision) = (sinks.baseAddress, argument)
                try check(
                    tc_cache_attend(cache.pointer, 0, &tensor, 4, 32, &options, nil, &output, output.count)
                )
            }
            #expect(output == result)
        }
        withExtendedLifetime(memory) {}
    }
}

import CThinkCompress
import Foundation
import TestSupport
import Testing
import ThinkCompress

@testable import ThinkCompressABI

/// Every status is reached, and what is wrong is told and not fatal.
@Suite struct StatusTests {
    @Test("statuses have the names of the header")
    func names() {
        #expect(String(cString: tc_status_name(TC_OK)) == "TC_OK")
        #expect(String(cString: tc_status_name(TC_WHOLE_ONLY)) == "TC_WHOLE_ONLY")
        #expect(String(cString: tc_status_name(TC_INTERNAL)) == "TC_INTERNAL")
        #expect(String(cString: tc_status_name(TC_OTHER_MODEL)) == "TC_OTHER_MODEL")
        #expect(tc_status_name(tc_status(rawValue: 15)) == nil)
    }

    @Test("an error that nobody knows is the library's fault")
    func internalError() { #expect(Failure(CallFailed()).status == TC_INTERNAL) }

    @Test("a recipe that can't be read has the nearest right form")
    func invalidRecipe() {
        var recipe: OpaquePointer?
        expect(tc_recipe_parse("kivy(bits=2)", &recipe), is: TC_INVALID_RECIPE, says: "kivi")
        #expect(recipe == nil)
    }

    @Test("layers that don't fit are refused, and the compressor goes on")
    func badLayers() throws {
        let source = try TestCache.small()
        let compressor = try Owned.compressor(source, recipe: "think(keys=0.4)+kivi(bits=2)")
        func expectRefused(
            _ status: tc_status = TC_INVALID_ARGUMENT,
            says text: String,
            _ change: (inout tc_layer) -> Void
        ) {
            let memory = EngineLayer(source.layers[0])
            var layer = memory.argument
            change(&layer)
            withExtendedLifetime(memory) {
                expect(tc_compressor_add_layer(compressor.pointer, &layer, nil), is: status, says: text)
            }
        }
        expectRefused(says: "layer.size is 0") { $0.size = 0 }
        expectRefused(says: "layer.size") { $0.size = .max }
        expectRefused(says: "layer.keys.data is NULL") { $0.keys.data = nil }
        expectRefused(says: "layer.values.type is 7") { $0.values.type = tc_type(rawValue: 7) }
        expectRefused(says: "F32") {
            $0.keys.type = TC_FLOAT32
            $0.tokens = 150
        }
        expectRefused(says: "layer.keys.token_stride is 31: numbers would overlap") {
            ($0.keys.head_stride, $0.keys.token_stride, $0.keys.channel_stride) = (32 * 300, 31, 1)
        }
        expectRefused(says: "more than can be addressed") {
            ($0.keys.head_stride, $0.keys.token_stride, $0.keys.channel_stride) = (.max / 2, 32, 1)
        }
        expectRefused(says: "layer.values.head_stride") {
            ($0.values.head_stride, $0.values.token_stride, $0.values.channel_stride) = (-1, 32, 1)
        }
        expectRefused(says: "layer.tokens is 301, must be 0 to 300") { $0.tokens = 301 }
        expectRefused(says: "layer.queries.data is NULL") { $0.queries.data = nil }
        expectRefused(TC_UNSUPPORTED, says: "queries") { $0.query_count = 0 }
        var options = tc_run_options(
            size: MemoryLayout<tc_run_options>.size,
            threads: -1,
            progress: nil,
            context: nil
        )
        let memory = EngineLayer(source.layers[0])
        var layer = memory.argument
        expect(
            tc_compressor_add_layer(compressor.pointer, &layer, &options),
            is: TC_INVALID_ARGUMENT,
            says: "options.threads is 18446744073709551615"
        )
        var cache: OpaquePointer?
        expect(
            tc_compressor_finish(compressor.pointer, nil, nil, 0, nil, &cache),
            is: TC_INVALID_ARGUMENT,
            says: "0 layers of 2"
        )
        for _ in 0..<2 { try check(tc_compressor_add_layer(compressor.pointer, &layer, nil)) }
        expect(tc_compressor_add_layer(compressor.pointer, &layer, nil), is: TC_INVALID_ARGUMENT, says: "one too many")
        let finished = try Owned.finish(compressor, of: source)
        expect(
            tc_compressor_finish(compressor.pointer, nil, nil, 0, nil, &cache),
            is: TC_INVALID_ARGUMENT,
            says: "has handed out its cache"
        )
        withExtendedLifetime((memory, finished)) {}
    }

    @Test(
        "numbers that can't be quantized are named, and full precision takes them",
        arguments: [Float.nan, .infinity]
    )
    func unsupportedValues(number: Float) throws {
        let source = try TestCache.small(elementType: .float32)
        for (recipe, expected) in [("kivi(bits=2)", TC_UNSUPPORTED_VALUE), ("exact", TC_OK)] {
            let compressor = try Owned.compressor(source, recipe: recipe)
            let memory = EngineLayer(source.layers[0])
            memory.keys.memory.start.storeBytes(of: number, toByteOffset: 4 * (32 * 10 + 5), as: Float.self)
            var layer = memory.argument
            let status = tc_compressor_add_layer(compressor.pointer, &layer, nil)
            #expect(status == expected)
            if expected != TC_OK { #expect(lastError.contains("token 10, channel 5"), "\(lastError)") }
            withExtendedLifetime(memory) {}
        }
    }

    @Test("attention refuses what doesn't fit, and takes queries that are no numbers")
    func badAttention() throws {
        let source = try TestCache.small()
        let cache = try Owned.cache(source, recipe: "kivi(bits=2)")
        let queries = EngineTensor(try #require(source.layers[0].queries))
        var argument = queries.argument
        var output = [Float](repeating: 0, count: 32 * 4 * 32)
        func expectRefused(
            says text: String,
            layer: Int = 0,
            heads: Int = 4,
            count: Int = 32,
            outputCount: Int = 32 * 4 * 32,
            _ change: (inout tc_attention_options) -> Void = { _ in }
        ) {
            var options = tc_attention_options()
            options.size = MemoryLayout<tc_attention_options>.size
            change(&options)
            expect(
                tc_cache_attend(cache.pointer, layer, &argument, heads, count, &options, nil, &output, outputCount),
                is: TC_INVALID_ARGUMENT,
                says: text
            )
        }
        expectRefused(says: "layer is 2, must be 0 to 1", layer: 2)
        expectRefused(says: "3 query heads", heads: 3, outputCount: 32 * 3 * 32)
        expectRefused(says: "query_heads", heads: -1)
        expectRefused(says: "query_count is 0", count: 0)
        expectRefused(says: "output_count is 5", outputCount: 5)
        expectRefused(says: "scale") { $0.scale = .nan }
        expectRefused(says: "soft cap") { $0.soft_cap = -1 }
        expectRefused(says: "options.sliding_window") { $0.sliding_window = -1 }
        expectRefused(says: "options.size") { $0.size = 3 }
        expectRefused(says: "options.precision is 3") { $0.precision = tc_precision(rawValue: 3) }
        let sinks = [Float](repeating: .nan, count: 4)
        sinks.withUnsafeBufferPointer { sinks in
            expectRefused(says: "sink logit") { $0.sink_logits = sinks.baseAddress }
        }
        var newer = tc_layer()
        newer.size = MemoryLayout<tc_layer>.size
        withUnsafePointer(to: &newer) { newer in
            expectRefused(says: "options.newer.tokens is 0") { $0.newer = newer }
        }
        for place in 0..<32 * 4 * 32 {
            queries.memory.start.storeBytes(of: UInt16(0x7E00), toByteOffset: 2 * place, as: UInt16.self)
        }
        var options = tc_attention_options()
        (options.size, options.precision) = (MemoryLayout<tc_attention_options>.size, TC_PRECISION_PRECISE)
        try check(tc_cache_attend(cache.pointer, 0, &argument, 4, 32, &options, nil, &output, output.count))
        #expect(output.allSatisfy { !$0.isFinite })
        options.precision = TC_PRECISION_FAST
        try check(tc_cache_attend(cache.pointer, 0, &argument, 4, 32, &options, nil, &output, output.count))
    }

    @Test("a layer that doesn't fit is refused at once also where all are compressed at the end")
    func badLayerOfAll() throws {
        let source = try TestCache.small()
        let compressor = try Owned.compressor(source, recipe: "auto(error=20%)")
        let other = EngineLayer(try TestCache.small(elementType: .float32).layers[0])
        var layer = other.argument
        expect(tc_compressor_add_layer(compressor.pointer, &layer, nil), is: TC_INVALID_ARGUMENT, says: "F32")
        let memory = source.layers.map { EngineLayer($0) }
        layer = memory[0].argument
        var options = tc_run_options()
        (options.size, options.threads) = (MemoryLayout<tc_run_options>.size, -1)
        expect(tc_compressor_add_layer(compressor.pointer, &layer, &options), is: TC_INVALID_ARGUMENT, says: "threads")
        for layer in memory {
            var layer = layer.argument
            try check(tc_compressor_add_layer(compressor.pointer, &layer, nil))
        }
        _ = try Owned.finish(compressor, of: source)
        withExtendedLifetime((other, memory)) {}
    }

    @Test("restoring refuses rows that aren't there and layouts that overlap")
    func badRestoring() throws {
        let cache = try Owned.cache(TestCache.small(), recipe: "kivi(bits=2)")
        var tensor = EngineTensor(type: .float16, heads: 2, tokens: 300, channels: 32, layout: .dense).mutableArgument
        expect(
            tc_cache_restore(cache.pointer, 0, 301, 0, nil, nil, nil),
            is: TC_INVALID_ARGUMENT,
            says: "first_row is 301"
        )
        expect(
            tc_cache_restore(cache.pointer, 0, 100, 201, nil, nil, nil),
            is: TC_INVALID_ARGUMENT,
            says: "row_count is 201"
        )
        expect(tc_cache_restore(cache.pointer, 5, 0, 1, nil, nil, nil), is: TC_INVALID_ARGUMENT, says: "layer is 5")
        (tensor.head_stride, tensor.token_stride, tensor.channel_stride) = (1, 1, 1)
        expect(tc_cache_restore(cache.pointer, 0, 0, 9, &tensor, nil, nil), is: TC_INVALID_ARGUMENT, says: "overlap")
        tensor.data = nil
        (tensor.head_stride, tensor.token_stride, tensor.channel_stride) = (0, 0, 0)
        expect(
            tc_cache_restore(cache.pointer, 0, 0, 9, nil, &tensor, nil),
            is: TC_INVALID_ARGUMENT,
            says: "values.data"
        )
        // Nothing is written before all is known to be right.
        let keys = EngineTensor(type: .float16, heads: 2, tokens: 9, channels: 32, layout: .dense)
        var target = keys.mutableArgument
        expect(
            tc_cache_restore(cache.pointer, 0, 0, 9, &target, &tensor, nil),
            is: TC_INVALID_ARGUMENT,
            says: "values.data"
        )
        #expect(keys.memory.bytes.allSatisfy { $0 == 0xAB })
    }

    @Test("what was appended in vain leaves the cache as it was")
    func badAppending() throws {
        let source = try TestCache.small()
        let cache = try Owned.cache(source, recipe: "kivi(bits=2)")
        let memory = source.layers(tokens: 0..<10).map { EngineLayer($0) }
        var layers = memory.map(\.argument)
        func append(count: Int = 2, tokens: Int = 10) -> tc_status {
            tc_cache_append(cache.pointer, layers, count, tokens, nil)
        }
        expect(append(count: 1), is: TC_INVALID_ARGUMENT, says: "layer_count is 1")
        expect(append(tokens: 11), is: TC_INVALID_ARGUMENT, says: "layers[0].tokens is 10")
        layers[1].size = 8
        expect(append(), is: TC_INVALID_ARGUMENT, says: "layers[1].size")
        layers[0].size = 9
        expect(append(), is: TC_INVALID_ARGUMENT, says: "layers[0].size is 9")
        layers[0] = memory[0].argument
        layers[1] = memory[1].argument
        memory[1].values.memory.start.storeBytes(of: UInt16(0x7C00), toByteOffset: 0, as: UInt16.self)
        expect(append(), is: TC_UNSUPPORTED_VALUE, says: "layer 1")
        var tokens = [Int32](repeating: 0, count: 300)
        try check(tc_cache_get_token_ids(cache.pointer, &tokens, 300))
        memory[1].values.memory.start.storeBytes(of: UInt16(0), toByteOffset: 0, as: UInt16.self)
        try check(append())
        expect(tc_cache_get_token_ids(cache.pointer, &tokens, 300), is: TC_NOT_FOUND, says: "token ids")
    }

    @Test("a cache that lacks tokens can't be cut")
    func wholeOnly() throws {
        let cache = try Owned.cache(TestCache.small(), recipe: "snapkv(keep=0.5)+kivi(bits=2)")
        expect(tc_cache_truncate(cache.pointer, 100), is: TC_WHOLE_ONLY, says: "reused whole only")
        expect(tc_cache_truncate(cache.pointer, 301), is: TC_INVALID_ARGUMENT, says: "tokens is 301")
    }

    @Test("memory that can't be had is told")
    func outOfMemory() throws {
        let recipe = try Owned.recipe("exact")
        var shape = tc_layer_shape(query_heads: 0, kv_heads: 1024, key_dimension: 1024, value_dimension: 1024)
        let compressor = try Owned(free: tc_compressor_free) {
            tc_compressor_create(recipe.pointer, &shape, 1, Int(Int32.max), TC_FLOAT32, nil, $0)
        }
        let memory = EngineMemory(byteCount: 4)
        var layer = tc_layer()
        layer.size = MemoryLayout<tc_layer>.size
        // Memory is asked for before any of this, which isn't there, is read.
        layer.keys = tc_tensor(data: memory.start, type: TC_FLOAT32, head_stride: 0, token_stride: 0, channel_stride: 0)
        layer.values = layer.keys
        expect(tc_compressor_add_layer(compressor.pointer, &layer, nil), is: TC_OUT_OF_MEMORY, says: "memory")
        withExtendedLifetime(memory) {}
    }

    @Test("the progress callback is called on the caller's thread, and ends the work")
    func cancelling() throws {
        final class Seen {
            let thread = pthread_self()
            var isElsewhere = false
            var last = 0.0
            var answer: Int32 = 0
        }
        let seen = Seen()
        let cache = try Owned.cache(TestCache.small(tokens: 2000), recipe: "kivi(bits=2)")
        var options = tc_run_options(
            size: MemoryLayout<tc_run_options>.size,
            threads: 2,
            progress: { context, fraction in
                guard let context else { return 1 }
                let seen = Unmanaged<Seen>.fromOpaque(context).takeUnretainedValue()
                if pthread_equal(seen.thread, pthread_self()) == 0 { seen.isElsewhere = true }
                seen.last = fraction
                return seen.answer
            },
            context: Unmanaged.passUnretained(seen).toOpaque()
        )
        let folder = try TemporaryFolder()
        try check(tc_cache_save(cache.pointer, folder.file("a.tkv"), nil, &options))
        #expect(!seen.isElsewhere && seen.last == 1)
        seen.answer = 1
        expect(
            tc_cache_save(cache.pointer, folder.file("b.tkv"), nil, &options),
            is: TC_CANCELLED,
            says: "progress callback"
        )
        #expect(folder.content == ["a.tkv"])
        withExtendedLifetime(seen) {}
    }

    @Test("files that aren't there, are there already, or are damaged")
    func files() throws {
        let folder = try TemporaryFolder()
        let cache = try Owned.cache(TestCache.small(), recipe: "kivi(bits=2)")
        let path = folder.file("a.tkv")
        expect(tc_cache_save(cache.pointer, folder.file("no/a.tkv"), nil, nil), is: TC_FILE_NOT_FOUND, says: "no/a.tkv")
        try check(tc_cache_save(cache.pointer, path, nil, nil))
        expect(tc_cache_save(cache.pointer, path, nil, nil), is: TC_FILE_EXISTS, says: "replace")
        var save = tc_save_options(size: MemoryLayout<tc_save_options>.size, replace: 1, zstd_level: 20)
        expect(tc_cache_save(cache.pointer, path, &save, nil), is: TC_INVALID_ARGUMENT, says: "save.zstd_level is 20")
        save.zstd_level = 3
        try check(tc_cache_save(cache.pointer, path, &save, nil))

        var snapshot: OpaquePointer?
        expect(tc_snapshot_open(folder.file("none"), &snapshot), is: TC_FILE_NOT_FOUND, says: "none")
        expect(tc_snapshot_open(folder.file(""), &snapshot), is: TC_FILE_ERROR, says: "directory")
        var bytes = try fileBytes(path)
        bytes[bytes.count - 1] ^= 1
        try Data(bytes).write(to: URL(filePath: folder.file("damaged.tkv")))
        let damaged = try Owned.snapshot(folder.file("damaged.tkv"))
        expect(tc_snapshot_verify(damaged.pointer, nil), is: TC_DAMAGED, says: "checksum")
        try Data(bytes.prefix(200)).write(to: URL(filePath: folder.file("short.tkv")))
        expect(tc_snapshot_open(folder.file("short.tkv"), &snapshot), is: TC_DAMAGED, says: "")
        try Data("text".utf8).write(to: URL(filePath: folder.file("text.tkv")))
        expect(tc_snapshot_open(folder.file("text.tkv"), &snapshot), is: TC_DAMAGED, says: "")
    }

    /// Files that the format's vectors say are right, or damaged.
    private static func vectors(_ folder: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: ProjectFiles.vector(folder)).filter { $0.hasSuffix(".tkv") }
    }

    @Test("the format's vectors of damaged files are refused, and the others are read")
    func vectors() throws {
        for name in try Self.vectors("invalid") {
            var (snapshot, cache): (OpaquePointer?, OpaquePointer?) = (nil, nil)
            var status = tc_snapshot_open(ProjectFiles.vector("invalid/\(name)"), &snapshot)
            // What only the pages' readers see.
            if status == TC_OK { status = tc_snapshot_verify(snapshot, nil) }
            #expect(status == TC_DAMAGED, "\(name): \(lastError)")
            if snapshot != nil, tc_snapshot_load(snapshot, -1, nil, &cache) == TC_OK { tc_cache_free(cache) }
            tc_snapshot_free(snapshot)
        }
        for name in try Self.vectors("valid") {
            let snapshot = try Owned.snapshot(ProjectFiles.vector("valid/\(name)"))
            try check(tc_snapshot_verify(snapshot.pointer, nil))
            let cache = try Owned(free: tc_cache_free) { tc_snapshot_load(snapshot.pointer, -1, nil, $0) }
            var info = tc_cache_info()
            info.size = MemoryLayout<tc_cache_info>.size
            try check(tc_cache_get_info(cache.pointer, &info))
            for layer in 0..<info.layers { try check(tc_cache_restore(cache.pointer, layer, 0, 0, nil, nil, nil)) }
        }
    }

    @Test("structs of newer versions are taken where they say nothing new")
    func newerStructs() throws {
        let cache = try Owned.cache(TestCache.small(), recipe: "kivi(bits=2)")
        let folder = try TemporaryFolder()
        var words = [16 + 8, 0, 0]
        let status = words.withUnsafeMutableBytes {
            tc_cache_save(
                cache.pointer,
                folder.file("a.tkv"),
                $0.baseAddress?.assumingMemoryBound(to: tc_save_options.self),
                nil
            )
        }
        try check(status)
        words[2] = 1
        let refused = words.withUnsafeMutableBytes {
            tc_cache_save(
                cache.pointer,
                folder.file("b.tkv"),
                $0.baseAddress?.assumingMemoryBound(to: tc_save_options.self),
                nil
            )
        }
        expect(refused, is: TC_INVALID_ARGUMENT, says: "save has members that this version doesn't know")
    }

    #if DEBUG
        @Test("in debug builds handles that were freed, or are of another kind, are refused")
        func freedHandles() throws {
            var recipe: OpaquePointer?
            try check(tc_recipe_parse("exact", &recipe))
            expect(tc_cache_truncate(recipe, 0), is: TC_INVALID_ARGUMENT, says: "cache was freed, or never made")
            tc_recipe_free(recipe)
            tc_recipe_free(recipe)
            #expect(tc_recipe_text(recipe) == nil)
        }
    #endif
}

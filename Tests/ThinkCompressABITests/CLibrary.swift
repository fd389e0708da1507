import CThinkCompress
import TestSupport
import Testing
import ThinkCompress

/// What `tc_last_error` tells on this thread.
var lastError: String { String(cString: tc_last_error()) }

/// A call that must not fail.
func check(_ status: tc_status, sourceLocation: SourceLocation = #_sourceLocation) throws {
    guard status != TC_OK else { return }
    Issue.record("\(String(cString: tc_status_name(status))): \(lastError)", sourceLocation: sourceLocation)
    throw CallFailed()
}

/// A call that must fail, with a message that has a text in it.
func expect(
    _ status: tc_status,
    is expected: tc_status,
    says text: String,
    sourceLocation: SourceLocation = #_sourceLocation
) {
    #expect(status == expected, sourceLocation: sourceLocation)
    #expect(lastError.contains(text), "\(lastError)", sourceLocation: sourceLocation)
}

struct CallFailed: Error {}

/// A cache of the C library's gives the file that one of Swift's gives.
func expectSameFile(
    _ cache: Owned,
    _ expected: CompressedCache,
    sourceLocation: SourceLocation = #_sourceLocation
) async throws {
    let folder = try TemporaryFolder()
    try check(tc_cache_save(cache.pointer, folder.file("c.tkv"), nil, nil), sourceLocation: sourceLocation)
    try await SnapshotWriter().write(expected, to: folder.file("swift.tkv"))
    #expect(
        try fileBytes(folder.file("c.tkv")) == fileBytes(folder.file("swift.tkv")),
        sourceLocation: sourceLocation
    )
}

/// An object of the library, freed with this one.
final class Owned: @unchecked Sendable {
    let pointer: OpaquePointer
    private let free: (OpaquePointer?) -> Void

    /// - Parameter make: a call that hands the object out.
    init(free: @escaping (OpaquePointer?) -> Void, _ make: (UnsafeMutablePointer<OpaquePointer?>) -> tc_status) throws {
        var result: OpaquePointer?
        try check(make(&result))
        pointer = try #require(result)
        self.free = free
    }

    deinit { free(pointer) }

    static func recipe(_ text: String) throws -> Owned {
        try Owned(free: tc_recipe_free) { tc_recipe_parse(text, $0) }
    }

    static func compressor(_ cache: KVCache, recipe: String, profile: Owned? = nil) throws -> Owned {
        let recipe = try Owned.recipe(recipe)
        let shapes = cache.shapeArguments
        var options = tc_compressor_options(size: MemoryLayout<tc_compressor_options>.size, profile: profile?.pointer)
        let type = tc_type(rawValue: cache.elementType.rawValue)
        return try Owned(free: tc_compressor_free) {
            tc_compressor_create(recipe.pointer, shapes, shapes.count, cache.tokenCount, type, &options, $0)
        }
    }

    /// A cache that the C library compressed.
    static func cache(
        _ cache: KVCache,
        recipe: String,
        layout: Layout = .dense,
        profile: Owned? = nil
    ) throws -> Owned {
        let compressor = try Owned.compressor(cache, recipe: recipe, profile: profile)
        for layer in cache.layers {
            let source = EngineLayer(layer, layout: layout)
            var argument = source.argument
            try withExtendedLifetime(source) {
                try check(tc_compressor_add_layer(compressor.pointer, &argument, nil))
            }
        }
        return try finish(compressor, of: cache)
    }

    static func finish(_ compressor: Owned, of cache: KVCache) throws -> Owned {
        try EngineText.withMetadata(cache.metadata) { metadata in
            try Owned(free: tc_cache_free) {
                tc_compressor_finish(compressor.pointer, cache.tokens, metadata, metadata.count, nil, $0)
            }
        }
    }

    static func snapshot(_ path: String) throws -> Owned {
        try Owned(free: tc_snapshot_free) { tc_snapshot_open(path, $0) }
    }
}

/// Text in memory of an engine's.
final class EngineText {
    let pointer: UnsafePointer<CChar>

    init(_ text: String) {
        let copy = UnsafeMutablePointer<CChar>.allocate(capacity: text.utf8.count + 1)
        for (index, byte) in text.utf8CString.enumerated() { copy[index] = byte }
        pointer = UnsafePointer(copy)
    }

    deinit { pointer.deallocate() }

    /// Metadata as C takes it.
    static func withMetadata<Result>(
        _ metadata: [String: String],
        _ body: ([tc_metadata]) throws -> Result
    ) rethrows -> Result {
        let texts = metadata.map { (EngineText($0.key), EngineText($0.value)) }
        return try withExtendedLifetime(texts) {
            try body(texts.map { tc_metadata(key: $0.0.pointer, value: $0.1.pointer) })
        }
    }
}

extension KVCache {
    /// The shapes of the layers as C takes them.
    var shapeArguments: [tc_layer_shape] {
        zip(geometry.layers, layers).map { geometry, layer in
            tc_layer_shape(
                query_heads: layer.queries?.heads ?? 0,
                kv_heads: geometry.kvHeads,
                key_dimension: geometry.keyDimension,
                value_dimension: geometry.valueDimension
            )
        }
    }
}

extension TestCache {
    /// A small cache with queries.
    static func small(tokens: Int = 300, elementType: ElementType = .float16) throws -> KVCache {
        var model = TestCache()
        model.headDimension = 32
        model.tokens = tokens
        model.elementType = elementType
        return try model.make()
    }
}

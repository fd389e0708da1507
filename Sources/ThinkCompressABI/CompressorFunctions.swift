// Functions are named as the header names them.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

public import CThinkCompress
internal import KVCacheCodecs
internal import KVCacheModel
internal import Synchronization

final class CompressorHandle: Handle {
    struct Content: Sendable {
        var compressor: CacheCompressor
        let elementType: ElementType
        /// Layers that are compressed when all are there.
        var waiting: [KVCacheLayer] = []

        var layerCount: Int { compressor.layers.count + waiting.count }
    }

    private enum State: Sendable {
        case ready(Content)
        /// Another call works on it.
        case inUse
        case finished
    }

    private let state: Mutex<State>

    init(_ content: Content) { state = Mutex(.ready(content)) }

    /// Lends the content to one call at a time.
    ///
    /// - Parameter body: returns what the content then is, nil for none. Where it throws, the content stays.
    func withContent(_ body: (Content) throws -> Content?) throws {
        let content = try state.withLock { state in
            guard case .ready(let content) = state else {
                if case .finished = state { throw Failure.invalid("compressor has handed out its cache; make another") }
                throw Failure.invalid("compressor is in use by another thread")
            }
            state = .inUse
            return content
        }
        var result: Content? = content
        defer { state.withLock { $0 = result.map { .ready($0) } ?? .finished } }
        result = try body(content)
    }
}

extension LayerGeometry {
    init(_ shape: tc_layer_shape) throws {
        if shape.query_heads == 0, shape.kv_heads == 0, shape.key_dimension == 0, shape.value_dimension == 0 {
            self = .none
        } else {
            try self.init(
                queryHeads: shape.query_heads,
                kvHeads: shape.kv_heads,
                keyDimension: shape.key_dimension,
                valueDimension: shape.value_dimension
            )
        }
    }
}

@c @implementation
public func tc_compressor_create(
    _ recipe: OpaquePointer?,
    _ layers: UnsafePointer<tc_layer_shape>?,
    _ layerCount: Int,
    _ tokens: Int,
    _ type: tc_type,
    _ compressor: UnsafeMutablePointer<OpaquePointer?>?
) -> tc_status {
    unsafe statusOf(handingOut: compressor, "compressor") {
        let recipe = unsafe try RecipeHandle.borrow(recipe, "recipe").recipe
        try CacheGeometry.Limits.layers.check(layerCount, "layer_count")
        try CacheGeometry.Limits.tokens.check(tokens, "tokens")
        guard let elementType = ElementType(rawValue: type.rawValue) else {
            throw Failure.invalid("type is \(type.rawValue), must be 1 to 3")
        }
        guard let shapes = unsafe array(layers, count: layerCount) else { throw Failure.null("layers") }
        let geometry = try CacheGeometry(
            shapes.enumerated().map { index, shape in
                do {
                    return try LayerGeometry(shape)
                } catch {
                    throw Failure.invalid("layers[\(index)]: \(error)")
                }
            }
        )
        return CompressorHandle(
            CompressorHandle.Content(
                compressor: CacheCompressor(
                    geometry: geometry,
                    tokenCount: tokens,
                    elementType: elementType,
                    recipe: recipe
                ),
                elementType: elementType
            )
        )
    }
}

@c @implementation
public func tc_compressor_add_layer(
    _ compressor: OpaquePointer?,
    _ layer: UnsafePointer<tc_layer>?,
    _ options: UnsafePointer<tc_run_options>?
) -> tc_status {
    statusOf {
        let handle = unsafe try CompressorHandle.borrow(compressor, "compressor")
        guard unsafe layer != nil else { throw Failure.null("layer") }
        let source = unsafe try sized(layer, "layer", absent: tc_layer())
        try handle.withContent { content in
            var content = content
            let (index, geometry) = (content.layerCount, content.compressor.geometry)
            guard index < geometry.layers.count else {
                throw Failure.invalid("layer is one too many: the cache has \(geometry.layers.count)")
            }
            let copy = unsafe try KVCacheLayer(
                copying: source,
                geometry: geometry.layers[index],
                elementType: content.elementType,
                tokens: content.compressor.tokenCount,
                takesQueries: true,
                name: "layer"
            )
            if content.compressor.recipe.needsWholeCache {
                content.waiting.append(copy)
            } else {
                let compressor = content.compressor
                content.compressor = unsafe try runBlocking(options) { progress in
                    var compressor = compressor
                    try await compressor.add([copy], progress: progress)
                    return compressor
                }
            }
            return content
        }
    }
}

@c @implementation
public func tc_compressor_finish(
    _ compressor: OpaquePointer?,
    _ tokenIds: UnsafePointer<Int32>?,
    _ metadata: UnsafePointer<tc_metadata>?,
    _ metadataCount: Int,
    _ options: UnsafePointer<tc_run_options>?,
    _ cache: UnsafeMutablePointer<OpaquePointer?>?
) -> tc_status {
    unsafe statusOf(handingOut: cache, "cache") {
        let handle = unsafe try CompressorHandle.borrow(compressor, "compressor")
        let entries = unsafe try dictionary(metadata, count: metadataCount)
        var result: CacheHandle?
        try handle.withContent { content in
            let layerCount = content.compressor.geometry.layers.count
            guard content.layerCount == layerCount else {
                throw Failure.invalid(
                    "compressor has \(content.layerCount) layers of \(layerCount): add the others first"
                )
            }
            let tokens = unsafe array(tokenIds, count: content.compressor.tokenCount)
            result = unsafe try runBlocking(options) { progress in
                var compressor = content.compressor
                if !content.waiting.isEmpty { try await compressor.add(content.waiting, progress: progress) }
                return CacheHandle(compressor.finish(tokens: tokens, metadata: entries))
            }
            return nil
        }
        guard let result else { throw Failure(TC_INTERNAL, "no cache was made") }
        return result
    }
}

@c @implementation
public func tc_compressor_free(_ compressor: OpaquePointer?) { unsafe CompressorHandle.release(compressor) }

private func dictionary(_ metadata: UnsafePointer<tc_metadata>?, count: Int) throws -> [String: String] {
    try (0...KVCache.maximumMetadataEntries).check(count, "metadata_count")
    guard count > 0 else { return [:] }
    guard let metadata = unsafe metadata else { throw Failure.null("metadata") }
    var result: [String: String] = [:]
    for index in 0..<count {
        let key = unsafe try text(metadata[index].key, "metadata[\(index)].key")
        guard result[key] == nil else { throw Failure.invalid("metadata[\(index)].key is there twice: '\(key)'") }
        result[key] = unsafe try text(metadata[index].value, "metadata[\(index)].value")
    }
    return result
}

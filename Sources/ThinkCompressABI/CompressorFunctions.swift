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

extension CacheGeometry {
    /// The shapes of layers of the caller's.
    init(_ layers: UnsafePointer<tc_layer_shape>?, count: Int) throws {
        try Limits.layers.check(count, "layer_count")
        guard let shapes = unsafe array(layers, count: count) else { throw Failure.null("layers") }
        try self.init(
            shapes.enumerated().map { index, shape in
                do {
                    return try LayerGeometry(shape)
                } catch {
                    throw Failure.invalid("layers[\(index)]: \(error)")
                }
            }
        )
    }
}

@c @implementation
public func tc_compressor_create(
    _ recipe: OpaquePointer?,
    _ layers: UnsafePointer<tc_layer_shape>?,
    _ layerCount: Int,
    _ tokens: Int,
    _ type: tc_type,
    _ options: UnsafePointer<tc_compressor_options>?,
    _ compressor: UnsafeMutablePointer<OpaquePointer?>?
) -> tc_status {
    unsafe statusOf(handingOut: compressor, "compressor") {
        let recipe = unsafe try RecipeHandle.borrow(recipe, "recipe").recipe
        let geometry = unsafe try CacheGeometry(layers, count: layerCount)
        try CacheGeometry.Limits.tokens.check(tokens, "tokens")
        let elementType = try ElementType(type, "type")
        let options = unsafe try sized(options, "options", absent: tc_compressor_options())
        let profile = unsafe try options.profile.map { profile in
            unsafe try ProfileHandle.borrow(profile, "options.profile").layers(of: geometry)
        }
        return CompressorHandle(
            CompressorHandle.Content(
                compressor: CacheCompressor(
                    geometry: geometry,
                    tokenCount: tokens,
                    elementType: elementType,
                    recipe: recipe,
                    profile: profile
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
                .kept,
                source,
                geometry: geometry.layers[index],
                elementType: content.elementType,
                tokens: content.compressor.tokenCount,
                takesQueries: true,
                name: "layer"
            )
            if content.compressor.recipe.needsWholeCache {
                // What is wrong with it is said now, when another may take its place.
                _ = unsafe try RunOptions(options)
                _ = try content.compressor.checked(copy, index: index)
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
        let entries = unsafe try dictionary(metadata, count: metadataCount, "metadata")
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

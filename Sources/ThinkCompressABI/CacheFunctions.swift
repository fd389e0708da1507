// Functions are named as the header names them.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

internal import ByteStorage
public import CThinkCompress
internal import CachePacking
internal import CompressedAttention
internal import ComputeRuntime
internal import KVCacheModel
internal import KVCacheQuality
internal import Synchronization

/// A cache that any threads read and change: who reads it works on a copy, which shares its memory.
final class CacheHandle: Handle {
    private let content: Mutex<CompressedCache>

    init(_ cache: CompressedCache) { content = Mutex(cache) }

    var cache: CompressedCache { content.withLock { $0 } }

    func change(_ body: (inout CompressedCache) throws -> Void) throws {
        try content.withLock { try body(&$0) }
    }

    /// A layer of the cache behind an argument. It alone is copied: a copy of the cache would go to many places in memory
    /// to count its references, for every step of attention.
    static func layer(_ index: Int, of cache: OpaquePointer?) throws -> CompressedLayer {
        unsafe try borrow(cache, "cache").content.withLock { cache in
            try (0...cache.layers.count - 1).check(index, "layer")
            return cache.layers[index]
        }
    }
}

// MARK: - What it is

@c @implementation
public func tc_cache_get_info(_ cache: OpaquePointer?, _ info: UnsafeMutablePointer<tc_cache_info>?) -> tc_status {
    statusOf {
        let cache = unsafe try CacheHandle.borrow(cache, "cache").cache
        guard let info = unsafe info else { throw Failure.null("info") }
        let size = unsafe try checkedSize(of: UnsafeRawPointer(info), "info")
        let bytes = cache.blockByteCount + cache.fullPrecisionByteCount
        let values = cache.valueCount
        let result = tc_cache_info(
            size: size,
            tokens: cache.tokenCount,
            layers: cache.layers.count,
            type: tc_type(cache.shape.elementType),
            block_bytes: cache.blockByteCount,
            full_precision_bytes: cache.fullPrecisionByteCount,
            bits_per_value: values > 0 ? Double(bytes) * 8 / Double(values) : 0
        )
        unsafe write(result, to: info, size: size)
    }
}

@c @implementation
public func tc_cache_get_layer(
    _ cache: OpaquePointer?,
    _ layer: Int,
    _ shape: UnsafeMutablePointer<tc_layer_shape>?,
    _ rows: UnsafeMutablePointer<Int>?
) -> tc_status {
    statusOf {
        let cache = unsafe try CacheHandle.borrow(cache, "cache").cache
        try (0...cache.layers.count - 1).check(layer, "layer")
        guard let shape = unsafe shape else { throw Failure.null("shape") }
        guard let rows = unsafe rows else { throw Failure.null("rows") }
        unsafe shape.pointee = tc_layer_shape(cache.geometry.layers[layer])
        unsafe rows.pointee = cache.layers[layer].rowCount
    }
}

@c @implementation
public func tc_cache_get_token_ids(
    _ cache: OpaquePointer?,
    _ tokenIds: UnsafeMutablePointer<Int32>?,
    _ count: Int
) -> tc_status {
    statusOf {
        let cache = unsafe try CacheHandle.borrow(cache, "cache").cache
        unsafe try copyTokens(cache.tokens, of: cache.tokenCount, to: tokenIds, count: count)
    }
}

/// Copies token ids to the caller.
func copyTokens(_ tokens: [Int32]?, of tokenCount: Int, to destination: UnsafeMutablePointer<Int32>?, count: Int) throws
{
    guard let tokens else { throw Failure(TC_NOT_FOUND, "the cache's token ids are not known") }
    guard let destination = unsafe destination else { throw Failure.null("token_ids") }
    try (tokenCount...tokenCount).check(count, "count")
    for (index, token) in tokens.enumerated() { unsafe destination[index] = token }
}

// MARK: - Changing it

@c @implementation
public func tc_cache_append(
    _ cache: OpaquePointer?,
    _ layers: UnsafePointer<tc_layer>?,
    _ layerCount: Int,
    _ tokens: Int,
    _ tokenIds: UnsafePointer<Int32>?
) -> tc_status {
    statusOf {
        let handle = unsafe try CacheHandle.borrow(cache, "cache")
        guard let layers = unsafe layers else { throw Failure.null("layers") }
        let (geometry, elementType) = (handle.cache.geometry, handle.cache.shape.elementType)
        try (geometry.layers.count...geometry.layers.count).check(layerCount, "layer_count")
        try CacheGeometry.Limits.tokens.check(tokens, "tokens")
        let stride = unsafe try checkedSize(of: UnsafeRawPointer(layers), "layers[0]")
        let sources = try geometry.layers.enumerated().map { index, geometry in
            let name = "layers[\(index)]"
            let pointer = unsafe UnsafeRawPointer(layers) + index * stride
            let layer = unsafe try sized(pointer.assumingMemoryBound(to: tc_layer.self), name, absent: tc_layer())
            guard unsafe layer.size == stride else {
                throw Failure.invalid(unsafe "\(name).size is \(layer.size), and not \(stride)")
            }
            guard unsafe layer.tokens == 0 || layer.tokens == tokens else {
                throw Failure.invalid(unsafe "\(name).tokens is \(layer.tokens), and \(tokens) are appended")
            }
            return unsafe try KVCacheLayer(
                .kept,
                layer,
                geometry: geometry,
                elementType: elementType,
                tokens: tokens,
                takesQueries: false,
                name: name
            )
        }
        let ids = unsafe array(tokenIds, count: tokens)
        try handle.change { try $0.append(sources, tokens: ids) }
    }
}

@c @implementation
public func tc_cache_truncate(_ cache: OpaquePointer?, _ tokens: Int) -> tc_status {
    statusOf {
        unsafe try CacheHandle.borrow(cache, "cache").change { cache in
            try (0...cache.tokenCount).check(tokens, "tokens")
            try cache.truncate(to: tokens)
        }
    }
}

@c @implementation
public func tc_cache_drop_rows(_ cache: OpaquePointer?, _ layer: Int, _ kept: Int) -> tc_status {
    statusOf {
        unsafe try CacheHandle.borrow(cache, "cache").change { cache in
            try (0...cache.layers.count - 1).check(layer, "layer")
            // SIZE_MAX and the like keep all.
            cache.dropRows(ofLayer: layer, keeping: kept < 0 ? .max : kept)
        }
    }
}

@c @implementation
public func tc_cache_fork(_ cache: OpaquePointer?, _ fork: UnsafeMutablePointer<OpaquePointer?>?) -> tc_status {
    unsafe statusOf(handingOut: fork, "fork") { unsafe CacheHandle(try CacheHandle.borrow(cache, "cache").cache) }
}

@c @implementation
public func tc_cache_free(_ cache: OpaquePointer?) { unsafe CacheHandle.release(cache) }

// MARK: - Using it

@c @implementation
public func tc_cache_restore(
    _ cache: OpaquePointer?,
    _ layer: Int,
    _ firstRow: Int,
    _ rowCount: Int,
    _ keys: UnsafePointer<tc_mutable_tensor>?,
    _ values: UnsafePointer<tc_mutable_tensor>?,
    _ blocks: UnsafePointer<tc_block_table>?
) -> tc_status {
    statusOf {
        let layer = unsafe try CacheHandle.layer(layer, of: cache)
        try (0...layer.rowCount).check(firstRow, "first_row")
        try (0...layer.rowCount - firstRow).check(rowCount, "row_count")
        let rows = firstRow..<firstRow + rowCount
        let table = unsafe try blocks.map {
            unsafe try BlockTable($0, tokens: rowCount, isWritten: true, name: "blocks")
        }
        // All is checked, and memory there, before anything is written.
        let targets = unsafe try [(CachePart.keys, keys), (.values, values)].compactMap { part, tensor in
            unsafe try tensor.map {
                unsafe try RestoreTarget($0.pointee, part: part, rows: rows, of: layer, blocks: table)
            }
        }
        for target in targets { target.restore(layer) }
    }
}

/// Where rows of keys or values are restored to, checked.
@safe
private struct RestoreTarget {
    private let part: CachePart
    private let rows: Range<Int>
    private let places: TensorPlaces
    private let data: UnsafeMutableRawPointer?
    /// For a head's rows where they don't lie side by side.
    private let memory: AlignedBuffer?

    init(
        _ tensor: tc_mutable_tensor,
        part: CachePart,
        rows: Range<Int>,
        of layer: CompressedLayer,
        blocks: BlockTable?
    ) throws {
        self.part = part
        self.rows = rows
        places = unsafe try TensorPlaces(
            type: tensor.type,
            heads: layer.geometry.kvHeads,
            tokens: rows.count,
            channels: layer.geometry.dimension(part),
            strides: [tensor.head_stride, tensor.token_stride, tensor.channel_stride],
            blocks: blocks,
            part: part,
            name: "\(part)"
        )
        unsafe data = unsafe tensor.data
        guard unsafe data != nil || places.byteCount == 0 else { throw Failure.null("\(part).data") }
        let layout = places.layout
        memory =
            blocks == nil && layout.hasDenseRows
            ? nil : try AlignedBuffer(byteCount: layout.ofTokens(rows.count).oneHead.byteCount)
    }

    func restore(_ layer: CompressedLayer) {
        guard places.byteCount > 0, let data = unsafe data else { return }
        let layout = places.layout
        for head in 0..<layout.heads {
            guard let memory else {
                let place = unsafe data + head * layout.headStride
                unsafe layer.decompress(part, head: head, rows: rows, as: layout.type, to: place)
                continue
            }
            unsafe memory.withUnsafeMutableBytes { memory in
                guard let base = memory.baseAddress else { return }
                unsafe layer.decompress(part, head: head, rows: rows, as: layout.type, to: base)
                unsafe places.copyHead(head, from: base, to: data)
            }
        }
    }
}

@c @implementation
public func tc_cache_attend(
    _ cache: OpaquePointer?,
    _ layer: Int,
    _ queries: UnsafePointer<tc_tensor>?,
    _ queryHeads: Int,
    _ queryCount: Int,
    _ options: UnsafePointer<tc_attention_options>?,
    _ workers: OpaquePointer?,
    _ output: UnsafeMutablePointer<Float>?,
    _ outputCount: Int
) -> tc_status {
    statusOf {
        let layer = unsafe try CacheHandle.layer(layer, of: cache)
        guard let queries = unsafe queries else { throw Failure.null("queries") }
        guard let output = unsafe output else { throw Failure.null("output") }
        guard Int(bitPattern: output) % MemoryLayout<Float>.alignment == 0 else {
            throw Failure.invalid("output is not aligned to float")
        }
        let options = unsafe try sized(options, "options", absent: tc_attention_options())
        guard layer.geometry.valueDimension > 0 else { throw Failure.invalid("layer has no values to attend to") }
        try CacheGeometry.Limits.queryHeads.check(queryHeads, "query_heads")
        try CacheGeometry.Limits.tokens.check(queryCount, "query_count")
        let needed = queryHeads * queryCount * layer.geometry.valueDimension
        try (needed...needed).check(outputCount, "output_count")
        let window = unsafe options.sliding_window
        try (0...Int.max).check(window, "options.sliding_window")
        let attention = unsafe Attention(
            scale: options.scale == 0 ? nil : options.scale,
            slidingWindow: window == 0 ? nil : window,
            logitSoftCap: options.soft_cap == 0 ? nil : options.soft_cap,
            sinkLogits: array(options.sink_logits, count: queryHeads),
            precision: try Attention.Precision(options.precision)
        )
        var newer: KVCacheLayer?
        if let more = unsafe options.newer {
            newer = unsafe try KVCacheLayer(
                .duringCall,
                unsafe sized(more, "options.newer", absent: tc_layer()),
                geometry: layer.geometry,
                elementType: layer.shape.elementType,
                tokens: nil,
                takesQueries: false,
                name: "options.newer"
            )
        }
        let rows = unsafe try KVTensor(
            // A copy: the output may be written to where the queries are.
            .kept,
            queries.pointee,
            heads: queryHeads,
            tokens: queryCount,
            channels: layer.geometry.keyDimension,
            name: "queries"
        )
        unsafe try WorkersHandle.withWorkers(workers, "workers") { workers in
            var span = unsafe UnsafeMutableBufferPointer(start: output, count: outputCount).mutableSpan
            try attention.attend(rows, over: layer, followedBy: newer, using: workers, into: &span)
        }
    }
}

extension Attention.Precision {
    fileprivate init(_ precision: tc_precision) throws(Failure) {
        switch precision {
        case TC_PRECISION_AUTOMATIC: self = .automatic
        case TC_PRECISION_FAST: self = .fast
        case TC_PRECISION_PRECISE: self = .precise
        default: throw .invalid("options.precision is \(precision.rawValue), must be 0 to 2")
        }
    }
}

@c @implementation
public func tc_cache_measure_errors(
    _ cache: OpaquePointer?,
    _ layer: Int,
    _ original: UnsafePointer<tc_layer>?,
    _ slidingWindow: Int,
    _ options: UnsafePointer<tc_run_options>?,
    _ errors: UnsafeMutablePointer<tc_errors>?
) -> tc_status {
    statusOf {
        let layer = unsafe try CacheHandle.layer(layer, of: cache)
        guard unsafe original != nil else { throw Failure.null("original") }
        guard let errors = unsafe errors else { throw Failure.null("errors") }
        let size = unsafe try checkedSize(of: UnsafeRawPointer(errors), "errors")
        try (0...Int.max).check(slidingWindow, "sliding_window")
        guard !layer.geometry.isEmpty else { throw Failure.invalid("layer has no keys and values") }
        let source = unsafe try sized(original, "original", absent: tc_layer())
        let copy = unsafe try KVCacheLayer(
            .kept,
            source,
            geometry: layer.geometry,
            elementType: layer.shape.elementType,
            tokens: layer.tokenCount,
            takesQueries: true,
            name: "original"
        )
        guard copy.queries?.tokens ?? 0 <= layer.tokenCount else {
            throw Failure.invalid(
                unsafe "original.query_count is \(source.query_count), and the cache has \(layer.tokenCount) tokens"
            )
        }
        let found = unsafe try runBlocking(options) { _ in
            var measurement = QualityMeasurement()
            try await measurement.add(
                copy,
                compressed: layer,
                slidingWindow: slidingWindow == 0 ? nil : slidingWindow
            )
            return measurement.quality.total
        }
        unsafe write(
            tc_errors(
                size: size,
                keys: Double(found.keys),
                values: Double(found.values),
                scores: found.scores.map(Double.init) ?? .nan,
                attention: found.attention.map(Double.init) ?? .nan
            ),
            to: errors,
            size: size
        )
    }
}

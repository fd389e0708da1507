// Functions are named as the header names them.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

internal import ByteStorage
public import CThinkCompress
internal import CachePacking
internal import KVCacheModel
internal import KVSnapshots

final class SnapshotHandle: Handle {
    let path: String
    let reader: SnapshotReader
    /// By the order of their keys.
    let metadata: [(key: CText, value: CText)]
    let metadataPlaces: [String: Int]
    /// Nil where the file doesn't have it.
    let recipe: CText?

    init(path: String) throws {
        self.path = path
        let reader = try SnapshotReader(path: path)
        self.reader = reader
        let entries = reader.metadata.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
        metadata = entries.map { (CText($0.key), CText($0.value)) }
        metadataPlaces = Dictionary(uniqueKeysWithValues: entries.enumerated().map { ($1.key, $0) })
        recipe = reader.recipe.map { CText($0.description) }
    }
}

@c @implementation
public func tc_cache_save(
    _ cache: OpaquePointer?,
    _ path: UnsafePointer<CChar>?,
    _ save: UnsafePointer<tc_save_options>?,
    _ options: UnsafePointer<tc_run_options>?
) -> tc_status {
    statusOf {
        let cache = unsafe try CacheHandle.borrow(cache, "cache").cache
        let path = unsafe try text(path, "path")
        let save = unsafe try sized(save, "save", absent: tc_save_options())
        let level = Int(save.zstd_level)
        try (0...SnapshotWriter.compressionLevels.upperBound).check(level, "save.zstd_level")
        let writer = SnapshotWriter(compressionLevel: level == 0 ? nil : level, replacesExisting: save.replace != 0)
        unsafe try runBlocking(options) { progress in _ = try await writer.write(cache, to: path, progress: progress) }
    }
}

@c @implementation
public func tc_snapshot_open(
    _ path: UnsafePointer<CChar>?,
    _ snapshot: UnsafeMutablePointer<OpaquePointer?>?
) -> tc_status {
    unsafe statusOf(handingOut: snapshot, "snapshot") {
        try SnapshotHandle(path: unsafe text(path, "path"))
    }
}

@c @implementation
public func tc_snapshot_verify(_ snapshot: OpaquePointer?, _ options: UnsafePointer<tc_run_options>?) -> tc_status {
    statusOf {
        let reader = unsafe try SnapshotHandle.borrow(snapshot, "snapshot").reader
        unsafe try runBlocking(options) { progress in try await reader.verify(progress: progress) }
    }
}

@c @implementation
public func tc_snapshot_load(
    _ snapshot: OpaquePointer?,
    _ tokens: Int,
    _ options: UnsafePointer<tc_run_options>?,
    _ cache: UnsafeMutablePointer<OpaquePointer?>?
) -> tc_status {
    unsafe statusOf(handingOut: cache, "cache") {
        let reader = unsafe try SnapshotHandle.borrow(snapshot, "snapshot").reader
        // SIZE_MAX.
        let tokens = tokens == -1 ? reader.header.tokenCount : tokens
        try (0...reader.header.tokenCount).check(tokens, "tokens")
        return unsafe try runBlocking(options) { progress in
            var cache = try await reader.cache(progress: progress)
            try cache.truncate(to: tokens)
            return CacheHandle(cache)
        }
    }
}

@c @implementation
public func tc_snapshot_get_info(
    _ snapshot: OpaquePointer?,
    _ info: UnsafeMutablePointer<tc_snapshot_info>?
) -> tc_status {
    statusOf {
        let reader = unsafe try SnapshotHandle.borrow(snapshot, "snapshot").reader
        guard let info = unsafe info else { throw Failure.null("info") }
        let size = unsafe try checkedSize(of: UnsafeRawPointer(info), "info")
        let result = tc_snapshot_info(
            size: size,
            tokens: reader.header.tokenCount,
            layers: reader.geometry.layers.count,
            type: tc_type(reader.header.shape.elementType)
        )
        unsafe write(result, to: info, size: size)
    }
}

@c @implementation
public func tc_snapshot_get_layer(
    _ snapshot: OpaquePointer?,
    _ layer: Int,
    _ shape: UnsafeMutablePointer<tc_layer_shape>?
) -> tc_status {
    statusOf {
        let layers = unsafe try SnapshotHandle.borrow(snapshot, "snapshot").reader.geometry.layers
        try (0...layers.count - 1).check(layer, "layer")
        guard let shape = unsafe shape else { throw Failure.null("shape") }
        unsafe shape.pointee = tc_layer_shape(layers[layer])
    }
}

@c @implementation
public func tc_snapshot_check_model(
    _ snapshot: OpaquePointer?,
    _ layers: UnsafePointer<tc_layer_shape>?,
    _ layerCount: Int,
    _ type: tc_type,
    _ metadata: UnsafePointer<tc_metadata>?,
    _ metadataCount: Int
) -> tc_status {
    statusOf {
        let handle = unsafe try SnapshotHandle.borrow(snapshot, "snapshot")
        let (path, reader) = (handle.path, handle.reader)
        let model = CacheIdentity(
            geometry: unsafe try CacheGeometry(layers, count: layerCount),
            metadata: unsafe try dictionary(metadata, count: metadataCount, "metadata")
        )
        let elementType = try ElementType(type, "type")
        let own = CacheIdentity(geometry: reader.geometry, metadata: reader.metadata)
        func check(_ name: String, _ own: String, _ wanted: String) throws {
            guard own != wanted else { return }
            throw Failure(TC_OTHER_MODEL, "\(path): is of another model: its \(name) is \(own), and not \(wanted)")
        }
        if let mismatch = own.mismatch(with: model) { try check(mismatch.name, mismatch.left, mismatch.right) }
        try check("type", reader.header.shape.elementType.name, elementType.name)
    }
}

@c @implementation
public func tc_snapshot_recipe(_ snapshot: OpaquePointer?) -> UnsafePointer<CChar>? {
    unsafe (try? SnapshotHandle.borrow(snapshot, "snapshot"))?.recipe?.pointer
}

@c @implementation
public func tc_snapshot_get_token_ids(
    _ snapshot: OpaquePointer?,
    _ tokenIds: UnsafeMutablePointer<Int32>?,
    _ count: Int
) -> tc_status {
    statusOf {
        let reader = unsafe try SnapshotHandle.borrow(snapshot, "snapshot").reader
        unsafe try copyTokens(reader.tokens(), of: reader.header.tokenCount, to: tokenIds, count: count)
    }
}

@c @implementation
public func tc_snapshot_get_digests(
    _ snapshot: OpaquePointer?,
    _ digests: UnsafeMutablePointer<UInt8>?,
    _ digestCount: Int
) -> tc_status {
    statusOf {
        let reader = unsafe try SnapshotHandle.borrow(snapshot, "snapshot").reader
        guard let tokens = try reader.tokens() else {
            throw Failure(TC_NOT_FOUND, "the snapshot's token ids are not known, so its prefixes have no digests")
        }
        let chain = PrefixChain.digests(
            tokens: tokens,
            geometry: reader.geometry,
            elementType: reader.header.shape.elementType,
            metadata: reader.metadata
        )
        unsafe try copyDigests(chain, to: digests, count: digestCount)
    }
}

@c @implementation
public func tc_prefix_digests(
    _ layers: UnsafePointer<tc_layer_shape>?,
    _ layerCount: Int,
    _ type: tc_type,
    _ metadata: UnsafePointer<tc_metadata>?,
    _ metadataCount: Int,
    _ tokenIds: UnsafePointer<Int32>?,
    _ tokenCount: Int,
    _ digests: UnsafeMutablePointer<UInt8>?,
    _ digestCount: Int
) -> tc_status {
    statusOf {
        try (0...CacheGeometry.Limits.tokens.upperBound).check(tokenCount, "token_count")
        guard let tokens = unsafe array(tokenIds, count: tokenCount) ?? (tokenCount == 0 ? [] : nil) else {
            throw Failure.null("token_ids")
        }
        let chain = PrefixChain.digests(
            tokens: tokens,
            geometry: unsafe try CacheGeometry(layers, count: layerCount),
            elementType: try ElementType(type, "type"),
            metadata: unsafe try dictionary(metadata, count: metadataCount, "metadata")
        )
        unsafe try copyDigests(chain, to: digests, count: digestCount)
    }
}

private func copyDigests(_ chain: [[UInt8]], to destination: UnsafeMutablePointer<UInt8>?, count: Int) throws {
    try (chain.count...chain.count).check(count, "digest_count")
    guard let destination = unsafe destination else {
        guard chain.isEmpty else { throw Failure.null("digests") }
        return
    }
    for (index, byte) in chain.joined().enumerated() { unsafe destination[index] = byte }
}

@c @implementation
public func tc_snapshot_metadata(_ snapshot: OpaquePointer?, _ key: UnsafePointer<CChar>?) -> UnsafePointer<CChar>? {
    guard let handle = unsafe try? SnapshotHandle.borrow(snapshot, "snapshot"), let key = unsafe try? text(key, "key")
    else {
        return nil
    }
    return unsafe handle.metadataPlaces[key].map { unsafe handle.metadata[$0].value.pointer }
}

@c @implementation
public func tc_snapshot_metadata_count(_ snapshot: OpaquePointer?) -> Int {
    unsafe (try? SnapshotHandle.borrow(snapshot, "snapshot"))?.metadata.count ?? 0
}

@c @implementation
public func tc_snapshot_get_metadata(
    _ snapshot: OpaquePointer?,
    _ index: Int,
    _ entry: UnsafeMutablePointer<tc_metadata>?
) -> tc_status {
    statusOf {
        let metadata = unsafe try SnapshotHandle.borrow(snapshot, "snapshot").metadata
        guard let entry = unsafe entry else { throw Failure.null("entry") }
        guard metadata.indices.contains(index) else {
            throw Failure.invalid("index is \(UInt(bitPattern: index)), and the metadata has \(metadata.count) entries")
        }
        unsafe entry.pointee = tc_metadata(key: metadata[index].key.pointer, value: metadata[index].value.pointer)
    }
}

@c @implementation
public func tc_snapshot_free(_ snapshot: OpaquePointer?) { unsafe SnapshotHandle.release(snapshot) }

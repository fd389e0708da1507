// Functions are named as the header names them.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

internal import ByteStorage
public import CThinkCompress
internal import CachePacking
internal import KVCacheModel
internal import KVSnapshots

final class SnapshotHandle: Handle {
    let reader: SnapshotReader
    let metadata: [String: CText]

    init(_ reader: SnapshotReader) {
        self.reader = reader
        metadata = reader.metadata.mapValues(CText.init)
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
        SnapshotHandle(try SnapshotReader(path: unsafe text(path, "path")))
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
public func tc_snapshot_token_count(_ snapshot: OpaquePointer?) -> Int {
    unsafe (try? SnapshotHandle.borrow(snapshot, "snapshot"))?.reader.header.tokenCount ?? 0
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
public func tc_snapshot_get_digest(
    _ snapshot: OpaquePointer?,
    _ prefix: Int,
    _ digest: UnsafeMutablePointer<UInt8>?
) -> tc_status {
    statusOf {
        let reader = unsafe try SnapshotHandle.borrow(snapshot, "snapshot").reader
        guard let digest = unsafe digest else { throw Failure.null("digest") }
        let digests = PrefixChain.digests(
            tokens: try reader.tokens() ?? [],
            geometry: reader.geometry,
            elementType: reader.header.shape.elementType,
            metadata: reader.metadata
        )
        guard digests.indices.contains(prefix) else {
            throw Failure(TC_NOT_FOUND, "the snapshot has \(digests.count) digests; prefix must be less")
        }
        for (index, byte) in digests[prefix].enumerated() { unsafe digest[index] = byte }
    }
}

@c @implementation
public func tc_snapshot_metadata(_ snapshot: OpaquePointer?, _ key: UnsafePointer<CChar>?) -> UnsafePointer<CChar>? {
    guard let handle = unsafe try? SnapshotHandle.borrow(snapshot, "snapshot"), let key = unsafe try? text(key, "key")
    else {
        return nil
    }
    return unsafe handle.metadata[key]?.pointer
}

@c @implementation
public func tc_snapshot_free(_ snapshot: OpaquePointer?) { unsafe SnapshotHandle.release(snapshot) }

internal import ByteStorage
internal import CZstd

/// Single zstd frames of known length.
enum Zstandard {
    static let levels = 1...19

    /// A frame of the bytes, or nil where they are better stored raw: the frame isn't smaller, or would expand too much.
    ///
    /// - Throws: `MemoryError` if there is no memory for it.
    static func compress(_ bytes: SharedBytes, level: Int) throws(MemoryError) -> SharedBytes? {
        let bound = ZSTD_compressBound(bytes.count)
        var count = 0
        let frame = try SharedBytes(byteCount: bound) { span in
            count = unsafe span.withUnsafeMutableBytes { destination in
                unsafe bytes.withUnsafeBytes { source in
                    unsafe ZSTD_compress(
                        destination.baseAddress,
                        bound,
                        source.baseAddress,
                        source.count,
                        Int32(level)
                    )
                }
            }
        }
        if lacksMemory(count) { throw MemoryError(byteCount: nil) }
        guard ZSTD_isError(count) == 0, count < bytes.count,
            SectionCoding.zstd.allows(length: bytes.count, storedLength: count)
        else { return nil }
        return frame[0..<count]
    }

    private static func lacksMemory(_ result: Int) -> Bool {
        ZSTD_getErrorCode(result) == ZSTD_error_memory_allocation
    }

    /// Decodes one frame of exactly `byteCount` bytes, no more than its coding allows.
    ///
    /// - Parameter offset: where the frame lies in the file, for the error.
    /// - Throws: `SnapshotError` if the frame isn't sound, `MemoryError` if there is no memory for what is in it.
    static func decompress(_ frame: SharedBytes, byteCount: Int, offset: Int) throws -> SharedBytes {
        func error(_ message: String) -> SnapshotError {
            SnapshotError(.invalidFrame, at: offset, "a zstd frame \(message)")
        }
        let frameLength = unsafe frame.withUnsafeBytes { source in
            unsafe ZSTD_findFrameCompressedSize(source.baseAddress, source.count)
        }
        guard ZSTD_isError(frameLength) == 0 else { throw error("is damaged") }
        guard frameLength == frame.count else { throw error("is followed by other bytes") }
        var count = 0
        let content = try SharedBytes(byteCount: byteCount) { span in
            count = unsafe span.withUnsafeMutableBytes { destination in
                unsafe frame.withUnsafeBytes { source in
                    unsafe ZSTD_decompress(destination.baseAddress, destination.count, source.baseAddress, source.count)
                }
            }
        }
        if lacksMemory(count) { throw MemoryError(byteCount: nil) }
        guard ZSTD_isError(count) == 0 else { throw error("is damaged") }
        guard count == byteCount else { throw error("has \(count) bytes and must have \(byteCount)") }
        return content
    }
}

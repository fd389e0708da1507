internal import ByteStorage
internal import ComputeRuntime

/// How a section's bytes, or a slab's, are stored: the one place that knows what each coding is.
public enum SectionCoding: UInt32, Sendable {
    /// As they are, to be used in place.
    case raw = 0
    /// One zstd frame.
    case zstd = 1

    /// The coding's name in tables and JSON.
    public var name: String { "\(self)" }

    /// Whether a section or slab of this coding can have so many bytes, stored in so many.
    func allows(length: Int, storedLength: Int) -> Bool {
        switch self {
        case .raw: length == storedLength
        case .zstd: length <= SnapshotFormat.product([storedLength, SnapshotFormat.maximumExpansion]) ?? .max
        }
    }

    /// The content of stored bytes: these themselves if raw.
    ///
    /// - Parameter offset: where they lie in the file, for the error.
    /// - Throws: `SnapshotError` if they aren't sound, `MemoryError` if there is no memory for the content.
    func decode(_ stored: SharedBytes, byteCount: Int, offset: Int) throws -> SharedBytes {
        switch self {
        case .raw: stored
        case .zstd: try Zstandard.decompress(stored, byteCount: byteCount, offset: offset)
        }
    }
}

/// How a writer stores sections: the coding and what it needs to know.
enum SectionEncoder: Sendable {
    case raw
    case zstd(level: Int)

    /// The coding of sections that this makes.
    var coding: SectionCoding {
        switch self {
        case .raw: .raw
        case .zstd: .zstd
        }
    }

    /// The bytes as the file has them, or nil where they are better stored raw.
    func encode(_ pieces: [SharedBytes]) throws(MemoryError) -> SharedBytes? {
        switch self {
        case .raw: nil
        case .zstd(let level): try Zstandard.compress(pieces.joined(), level: level)
        }
    }
}

extension [SharedBytes] {
    var byteCount: Int { reduce(0) { $0 + $1.count } }

    /// The pieces as one, copied only if there are several.
    fileprivate func joined() throws(MemoryError) -> SharedBytes {
        if count == 1 { return self[0] }
        return try SharedBytes(byteCount: byteCount) { joined in
            unsafe joined.withUnsafeMutableBytes { bytes in
                var rest = unsafe bytes[...]
                for piece in self {
                    unsafe piece.withUnsafeBytes {
                        unsafe UnsafeMutableRawBufferPointer(rebasing: rest).copyMemory(from: $0)
                    }
                    unsafe rest = rest.dropFirst(piece.count)
                }
            }
        }
    }
}

internal import ByteStorage

/// Where a snapshot's bytes come from: memory or a mapping, or a file from which they are read when they are asked for.
enum ByteSource: Sendable {
    case memory(SharedBytes)
    case file(FileReader)

    var count: Int {
        switch self {
        case .memory(let bytes): bytes.count
        case .file(let file): file.byteCount
        }
    }

    /// Whether what is handed out has memory of its own each time, which stays as it was when it was checked: bytes of a
    /// mapping change with the file if that is overwritten in place.
    var isStable: Bool {
        if case .file = self { true } else { false }
    }

    /// The bytes of a range, in place or read into memory of their own.
    ///
    /// - Throws: `FileError` if they can't be read.
    func bytes(_ range: Range<Int>) throws(FileError) -> SharedBytes {
        switch self {
        case .memory(let bytes): bytes[range]
        case .file(let file): try file.bytes(range)
        }
    }
}

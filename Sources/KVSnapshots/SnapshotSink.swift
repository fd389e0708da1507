public import ByteStorage

/// Where a snapshot is written to: a file, memory, or anything that takes bytes at places.
public protocol SnapshotSink: ~Copyable {
    /// Takes bytes. Every byte of the snapshot is written once; those between are zero, and header and section table come
    /// last.
    ///
    /// - Parameter offset: the place of the first byte in the snapshot.
    mutating func write(_ bytes: RawSpan, at offset: Int) throws
}

extension AtomicFileWriter: SnapshotSink {}

/// A snapshot in memory.
public struct SnapshotBytes: SnapshotSink, Sendable {
    public private(set) var bytes: [UInt8] = []

    public init() {}

    public mutating func write(_ bytes: RawSpan, at offset: Int) {
        let end = offset + bytes.byteCount
        if end > self.bytes.count { self.bytes += [UInt8](repeating: 0, count: end - self.bytes.count) }
        for index in 0..<bytes.byteCount {
            self.bytes[offset + index] = unsafe bytes.unsafeLoad(fromByteOffset: index, as: UInt8.self)
        }
    }
}

/// Takes nothing: for the sizes alone.
struct NoSink: SnapshotSink {
    func write(_ bytes: RawSpan, at offset: Int) {}
}

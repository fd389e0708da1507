internal import ByteStorage

/// Reads little-endian fields one after the other, never past the end.
struct ByteReader {
    let bytes: SharedBytes
    private(set) var position = 0
    /// The file's byte that the first one is.
    private let origin: Int
    /// Decoded bytes have no places of their own in the file: errors point at the section.
    private let isDecoded: Bool
    private let code: SnapshotError.Code

    /// - Parameter code: the error of a field that isn't there or isn't right.
    init(_ bytes: SharedBytes, origin: Int, isDecoded: Bool = false, code: SnapshotError.Code) {
        self.bytes = bytes
        self.origin = origin
        self.isDecoded = isDecoded
        self.code = code
    }

    var remaining: Int { bytes.count - position }

    /// An error at a place of these bytes.
    func error(at position: Int, _ message: String) -> SnapshotError {
        SnapshotError(code, at: isDecoded ? origin : origin + position, message)
    }

    mutating func integer<Value: FixedWidthInteger & BitwiseCopyable>(_ type: Value.Type, _ field: String)
        throws(SnapshotError) -> Value
    {
        let size = MemoryLayout<Value>.size
        guard remaining >= size else {
            throw error(at: position, "\(field) needs \(size) bytes and \(remaining) remain")
        }
        defer { position += size }
        return bytes.integer(type, at: position)
    }

    /// A field whose value must be in a range.
    mutating func integer<Value: FixedWidthInteger & BitwiseCopyable>(
        _ type: Value.Type,
        _ field: String,
        in range: ClosedRange<Int>
    ) throws(SnapshotError) -> Int {
        let start = position
        let value = try integer(type, field)
        guard let number = Int(exactly: value), range.contains(number) else {
            let allowed =
                range.lowerBound == range.upperBound
                ? "\(range.lowerBound)" : "\(range.lowerBound)...\(range.upperBound)"
            throw error(at: start, "\(field) is \(value), must be \(allowed)")
        }
        return number
    }

    /// `count` fields of one kind.
    mutating func integers<Value: FixedWidthInteger & BitwiseCopyable>(
        _ type: Value.Type,
        count: Int,
        _ field: String
    ) throws(SnapshotError) -> [Value] {
        let values = integers(type, upTo: count)
        guard values.count == count else {
            throw error(at: position, "\(field) needs \(MemoryLayout<Value>.size) bytes and \(remaining) remain")
        }
        return values
    }

    /// Fields of one kind: as many of `limit` as are there, for those who check them before they miss the rest.
    mutating func integers<Value: FixedWidthInteger & BitwiseCopyable>(
        _ type: Value.Type,
        upTo limit: Int
    ) -> [Value] {
        let size = MemoryLayout<Value>.size
        let count = min(limit, remaining / size)
        defer { position += count * size }
        let stored = unsafe [Value](unsafeUninitializedCapacity: count) { buffer, initializedCount in
            unsafe bytes.withUnsafeBytes { source in
                let fields = unsafe UnsafeRawBufferPointer(rebasing: source[position..<position + count * size])
                unsafe UnsafeMutableRawBufferPointer(buffer).copyMemory(from: fields)
            }
            initializedCount = count
        }
        #if _endian(big)
            return stored.map(Value.init(littleEndian:))
        #else
            return stored
        #endif
    }

    mutating func float(_ field: String) throws(SnapshotError) -> Float {
        Float(bitPattern: try integer(UInt32.self, field))
    }

    mutating func bytes(count: Int, _ field: String) throws(SnapshotError) -> SharedBytes {
        guard count <= remaining else {
            throw error(at: position, "\(field) needs \(count) bytes and \(remaining) remain")
        }
        defer { position += count }
        return bytes[position..<position + count]
    }

    /// UTF-8 text after its length.
    mutating func text(_ field: String, lengths: ClosedRange<Int>) throws(SnapshotError) -> String {
        let lengthStart = position
        let count = try integer(UInt32.self, "the length of \(field)", in: lengths)
        guard count <= remaining else {
            throw error(at: lengthStart, "\(field) needs \(count) bytes and \(remaining) remain")
        }
        let start = position
        let bytes = try bytes(count: count, field)
        guard let text = String(validating: bytes.array, as: UTF8.self) else {
            throw error(at: start, "\(field) is not UTF-8")
        }
        return text
    }

    func expectEnd() throws(SnapshotError) {
        guard remaining == 0 else { throw error(at: position, "\(remaining) bytes follow what should be the end") }
    }
}

extension SharedBytes {
    /// The little-endian integer at an offset, which must lie inside.
    func integer<Value: FixedWidthInteger & BitwiseCopyable>(_ type: Value.Type, at offset: Int) -> Value {
        precondition(offset >= 0 && offset + MemoryLayout<Value>.size <= count, "an integer outside of the bytes")
        return unsafe withUnsafeBytes { bytes in
            Value(littleEndian: unsafe bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
        }
    }

    var array: [UInt8] {
        unsafe withUnsafeBytes { unsafe Array($0) }
    }
}

/// Bytes to read that keep their owner (a buffer, a mapped file) alive.
///
/// Those in memory do not change as long as anybody has them. Those of a mapped file are what the file holds, and change
/// if another program writes into it: see `MappedFile`.
@safe
public struct SharedBytes: Sendable {
    public let count: Int
    private let owner: any AnyObject & Sendable
    // Immutable memory that lives as long as `owner`.
    private nonisolated(unsafe) let base: UnsafeRawPointer

    /// Bytes of another owner, which has to keep the promise.
    ///
    /// - Parameter base: `count` bytes that can be read, and that nobody writes to, for as long as anybody has these.
    @unsafe
    public init(owner: any AnyObject & Sendable, base: UnsafeRawPointer, count: Int) {
        self.owner = owner
        unsafe self.base = unsafe base
        self.count = count
    }

    /// Bytes in memory of their own, at an address that is a multiple of 64.
    ///
    /// - Parameter fill: writes the bytes, which are zero at first; nobody can afterwards.
    /// - Throws: `MemoryError` if there is no memory for it.
    public init(byteCount: Int, filling fill: (inout MutableRawSpan) -> Void) throws(MemoryError) {
        let buffer = try AlignedBuffer(byteCount: byteCount)
        unsafe buffer.withUnsafeMutableBytes { bytes in
            var span = unsafe bytes.mutableBytes
            fill(&span)
        }
        self = unsafe buffer.shared
    }

    /// A copy of bytes, in memory of its own. For few bytes: as with arrays, the process ends if there is no memory.
    public init(_ bytes: [UInt8]) {
        do {
            try self.init(byteCount: bytes.count) { copy in
                unsafe copy.withUnsafeMutableBytes { unsafe $0.copyBytes(from: bytes) }
            }
        } catch {
            preconditionFailure("no memory for \(bytes.count) bytes")
        }
    }

    /// A copy of four-byte words, little-endian.
    ///
    /// - Throws: `MemoryError` if there is no memory for it.
    public init(words: some Collection<UInt32>) throws(MemoryError) {
        try self.init(byteCount: words.count * MemoryLayout<UInt32>.size) { bytes in
            for (index, word) in words.enumerated() {
                bytes.storeBytes(
                    of: word.littleEndian,
                    toByteOffset: index * MemoryLayout<UInt32>.size,
                    as: UInt32.self
                )
            }
        }
    }

    /// The bytes of `range`, without copying.
    public subscript(range: Range<Int>) -> SharedBytes {
        precondition(range.lowerBound >= 0 && range.upperBound <= count, "range outside of the bytes")
        return unsafe SharedBytes(owner: owner, base: base + range.lowerBound, count: range.count)
    }

    /// The bytes, lent for as long as this value is borrowed.
    public var span: RawSpan {
        @_lifetime(borrow self)
        get {
            let span = unsafe RawSpan(_unsafeStart: base, byteCount: count)
            return unsafe _overrideLifetime(span, borrowing: self)
        }
    }

    package func withUnsafeBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        defer { extendLifetime(owner) }
        return unsafe try body(UnsafeRawBufferPointer(start: base, count: count))
    }

    /// Whether both are the same bytes in value.
    public func hasSameBytes(as other: SharedBytes) -> Bool {
        guard count == other.count else { return false }
        return unsafe withUnsafeBytes { left in
            unsafe other.withUnsafeBytes { right in unsafe left.elementsEqual(right) }
        }
    }
}

internal import ByteStorage

/// The bytes of a text that a `JSONDocument` keeps: reading past the end gives zeros, which no JSON has outside of strings.
@safe
struct JSONBytes: Sendable {
    // Immutable memory that stays where it is.
    private nonisolated(unsafe) let base: UnsafeRawPointer?
    let count: Int

    init(_ text: SharedBytes) {
        unsafe base = text.withUnsafeBytes { $0.baseAddress }
        count = text.count
    }

    subscript(index: Int) -> UInt8 {
        guard index >= 0, index < count, let base = unsafe base else { return 0 }
        return unsafe base.load(fromByteOffset: index, as: UInt8.self)
    }

    /// Lends a part; what is beyond the end isn't in it.
    @inline(__always)
    func withUnsafeBytes<Result>(in range: Range<Int>, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        let start = min(range.lowerBound, count)
        let end = min(range.upperBound, count)
        return unsafe body(UnsafeRawBufferPointer(start: base.map { unsafe $0 + start }, count: end - start))
    }

    /// The first byte that is no part of UTF-8.
    var offsetThatIsNotUTF8: Int? {
        unsafe withUnsafeBytes(in: 0..<count) { buffer -> Int? in
            do throws(UTF8.ValidationError) {
                _ = try UTF8Span(validating: unsafe buffer.assumingMemoryBound(to: UInt8.self).span)
                return nil
            } catch {
                return error.byteOffsets.lowerBound
            }
        }
    }

    static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 }

    /// Whether a number or word ends before this byte.
    static func endsWord(_ byte: UInt8) -> Bool {
        isSpace(byte) || byte == UInt8(ascii: ",") || byte == UInt8(ascii: "]") || byte == UInt8(ascii: "}")
    }

    static func isDigit(_ byte: UInt8) -> Bool { byte &- UInt8(ascii: "0") < 10 }

    static func hexadecimalDigit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}

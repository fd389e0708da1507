internal import ByteStorage

/// Appends little-endian fields.
struct ByteWriter {
    private(set) var bytes: [UInt8] = []

    mutating func append<Value: FixedWidthInteger>(_ value: Value) {
        for shift in stride(from: 0, to: Value.bitWidth, by: 8) {
            bytes.append(UInt8(truncatingIfNeeded: value >> Value(shift)))
        }
    }

    mutating func append(_ value: Float) { append(value.bitPattern) }

    mutating func append(_ more: [UInt8]) { bytes += more }

    /// Text after its length in bytes.
    mutating func appendText(_ text: String) {
        append(UInt32(text.utf8.count))
        bytes += text.utf8
    }

    mutating func replace(_ value: UInt32, at offset: Int) {
        for index in 0..<4 { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index)) }
    }

    mutating func appendZeros(upTo count: Int) {
        bytes += [UInt8](repeating: 0, count: max(count - bytes.count, 0))
    }

    var shared: SharedBytes { SharedBytes(bytes) }
}

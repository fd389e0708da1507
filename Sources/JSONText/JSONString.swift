/// A string where it lies in a text: equal to others by the bytes that it stands for.
package struct JSONString: Sendable, Hashable, CustomStringConvertible {
    /// How many bytes of a string an error repeats.
    private static let shownBytes = 80

    private let document: JSONDocument
    /// What is between the quotation marks.
    private let place: Range<Int>
    private let isEscaped: Bool

    private var bytes: JSONBytes { document.bytes }

    init(_ document: JSONDocument, place: Range<Int>, isEscaped: Bool) {
        self.document = document
        self.place = place
        self.isEscaped = isEscaped
    }

    /// Appends the string in UTF-8, unescaped.
    package func append(to output: inout [UInt8]) {
        guard isEscaped else {
            unsafe bytes.withUnsafeBytes(in: place) { unsafe output.append(contentsOf: $0) }
            return
        }
        var index = place.lowerBound
        while index < place.upperBound {
            let byte = bytes[index]
            index += 1
            guard byte == UInt8(ascii: "\\") else {
                output.append(byte)
                continue
            }
            let escape = bytes[index]
            index += 1
            switch escape {
            case UInt8(ascii: "b"): output.append(0x08)
            case UInt8(ascii: "t"): output.append(0x09)
            case UInt8(ascii: "n"): output.append(0x0A)
            case UInt8(ascii: "f"): output.append(0x0C)
            case UInt8(ascii: "r"): output.append(0x0D)
            case UInt8(ascii: "u"):
                var scalar = hexadecimal(at: index)
                index += 4
                if scalar & 0xFC00 == 0xD800 {
                    scalar = 0x10000 + (scalar & 0x3FF) << 10 + (hexadecimal(at: index + 2) & 0x3FF)
                    index += 6
                }
                // Surrogates come in pairs: that was checked.
                output.append(contentsOf: UTF8.encode(Unicode.Scalar(scalar) ?? "\u{FFFD}") ?? .init())
            default: output.append(escape)
            }
        }
    }

    private func hexadecimal(at index: Int) -> UInt32 {
        (index..<index + 4).reduce(0) { $0 << 4 | UInt32(JSONBytes.hexadecimalDigit(bytes[$1]) ?? 0) }
    }

    /// In UTF-8, unescaped.
    package var utf8: [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(place.count)
        append(to: &result)
        return result
    }

    package var text: String {
        if isEscaped { return String(decoding: utf8, as: UTF8.self) }
        return unsafe bytes.withUnsafeBytes(in: place) { unsafe String(decoding: $0, as: UTF8.self) }
    }

    /// The beginning of the string, for errors.
    package var description: String {
        guard place.count > Self.shownBytes else { return text }
        var shown = JSONString(document, place: place.prefix(Self.shownBytes), isEscaped: isEscaped).text
        while shown.unicodeScalars.last == "\u{FFFD}" { shown.unicodeScalars.removeLast() }
        return shown + "..."
    }

    package func isEqual(to other: [UInt8]) -> Bool {
        if isEscaped { return utf8 == other }
        guard place.count == other.count else { return false }
        for index in other.indices where bytes[place.lowerBound + index] != other[index] { return false }
        return true
    }

    package static func == (left: JSONString, right: JSONString) -> Bool {
        if right.isEscaped { return left.isEqual(to: right.utf8) }
        if left.isEscaped { return right.isEqual(to: left.utf8) }
        guard left.place.count == right.place.count else { return false }
        for index in 0..<left.place.count
        where left.bytes[left.place.lowerBound + index] != right.bytes[right.place.lowerBound + index] {
            return false
        }
        return true
    }

    package func hash(into hasher: inout Hasher) {
        if isEscaped {
            Self.hash(utf8, into: &hasher)
        } else {
            unsafe bytes.withUnsafeBytes(in: place) { unsafe hasher.combine(bytes: $0) }
        }
    }

    /// The hash of a string with these bytes.
    static func hash(_ bytes: [UInt8], into hasher: inout Hasher) {
        unsafe bytes.withUnsafeBytes { unsafe hasher.combine(bytes: $0) }
    }
}

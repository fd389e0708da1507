package import ByteStorage

/// A JSON text that was checked once from front to back and is read where it lies.
///
/// Nothing is converted ahead, so that a text costs no memory but its own: values are views of its bytes, and a reader
/// pays for what it looks at. Strings are compared by their bytes, never as `String`, to which different Unicode normal
/// forms are equal.
///
/// What is accepted is RFC 8259 in UTF-8, nested at most 64 deep, and the words `NaN`, `Infinity` and `-Infinity`, which
/// Python writes: they are numbers that no reader takes. A name that an object has twice is refused when the object is
/// read.
package final class JSONDocument: Sendable {
    /// How deeply arrays and objects may be nested; tokenizers, the deepest, use 8 levels.
    package static let maximumDepth = 64
    /// The longest text that is read. The largest tokenizers in use have some 30 MB.
    package static let maximumBytes = 1 << 30

    /// Where an array or object of many bytes begins and ends, so that reading what is behind it need not look through.
    struct Extent {
        let start: UInt32
        let end: UInt32
    }

    /// Arrays and objects of so many bytes are listed: at most one entry per level and so many bytes, an eighth of the
    /// text at the worst.
    static let listedBytes = 4096

    let bytes: JSONBytes
    private let text: SharedBytes
    private let extents: [Extent]
    /// Where the text begins in its file.
    private let origin: Int
    /// What a user can do about a wrong value.
    let remedy: String

    /// Checks a text.
    ///
    /// - Parameters:
    ///   - origin: where the text begins in its file; errors count from the file's beginning.
    ///   - remedy: what to do about a wrong value, for errors.
    /// - Throws: `JSONError` if the text isn't JSON, or longer than `maximumBytes`.
    package init(_ text: SharedBytes, origin: Int = 0, remedy: String) throws(JSONError) {
        guard text.count <= Self.maximumBytes else {
            throw JSONError(
                .unsupported,
                at: origin,
                "the JSON has \(text.count) bytes, more than \(Self.maximumBytes); \(remedy)"
            )
        }
        self.text = text
        bytes = JSONBytes(text)
        self.origin = origin
        self.remedy = remedy
        if let offset = bytes.offsetThatIsNotUTF8 {
            throw JSONError(.damaged, at: origin + offset, "the text is not UTF-8; \(remedy)")
        }
        var validator = JSONValidator(bytes)
        do {
            extents = try validator.extents()
        } catch {
            throw JSONError(.damaged, at: origin + error.offset, "\(error.message); \(remedy)")
        }
    }

    package var root: JSONValue { JSONValue(document: self, start: skipSpaces(from: 0)) }

    /// The error that the value at a place causes.
    func fault(at place: Int, _ message: String, _ code: JSONError.Code) -> JSONError {
        JSONError(code, field: path(to: place), at: origin + place, message)
    }

    /// What leads from the root to the value that begins at a place, e.g. `model.merges[3]`; nil for the root.
    func path(to place: Int) -> String? {
        var path = ""
        var value = root
        while value.start != place {
            switch value.kind {
            case .object:
                guard let member = JSONMembers(value).last(upTo: place) else { return nil }
                path += path.isEmpty ? member.name.description : ".\(member.name)"
                value = member.value
            case .array:
                var elements = JSONElements(value)
                var found: JSONValue?
                var count = 0
                while let element = elements.next(), element.start <= place {
                    found = element
                    count += 1
                }
                guard let found else { return nil }
                path += "[\(count - 1)]"
                value = found
            default: return path.isEmpty ? nil : path
            }
        }
        return path.isEmpty ? nil : path
    }

    // MARK: - Places
    // The text was checked, but a file may change while it is mapped: a place is never beyond the text's end, and what
    // is there is looked at again.

    func skipSpaces(from start: Int) -> Int {
        var index = start
        while index < bytes.count, JSONBytes.isSpace(bytes[index]) { index += 1 }
        return index
    }

    /// The place behind the string that begins at `start`, and whether it has escapes.
    func skipString(from start: Int) -> (end: Int, isEscaped: Bool) {
        var index = start + 1
        var isEscaped = false
        while index < bytes.count {
            switch bytes[index] {
            case UInt8(ascii: "\""): return (index + 1, isEscaped)
            case UInt8(ascii: "\\"):
                isEscaped = true
                index += 2
            default: index += 1
            }
        }
        return (bytes.count, isEscaped)
    }

    /// The place behind the value that begins at `start`.
    func skipValue(from start: Int) -> Int {
        switch bytes[start] {
        case UInt8(ascii: "\""): return skipString(from: start).end
        case UInt8(ascii: "{"), UInt8(ascii: "["): return skipContainer(from: start)
        default:
            var index = start
            while index < bytes.count, !JSONBytes.endsWord(bytes[index]) { index += 1 }
            return index
        }
    }

    private func skipContainer(from start: Int) -> Int {
        var index = start
        var depth = 0
        var limit = start + Self.listedBytes
        while index < bytes.count {
            if index >= limit {
                if let end = listedEnd(of: start) { return end }
                limit = bytes.count
            }
            switch bytes[index] {
            case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                depth -= 1
                if depth == 0 { return index + 1 }
            case UInt8(ascii: "\""):
                index = skipString(from: index).end
                continue
            default: break
            }
            index += 1
        }
        return bytes.count
    }

    private func listedEnd(of start: Int) -> Int? {
        var range = 0..<extents.count
        while !range.isEmpty {
            let middle = (range.lowerBound + range.upperBound) / 2
            if Int(extents[middle].start) == start { return Int(extents[middle].end) }
            range =
                Int(extents[middle].start) < start
                ? middle + 1..<range.upperBound : range.lowerBound..<middle
        }
        return nil
    }
}

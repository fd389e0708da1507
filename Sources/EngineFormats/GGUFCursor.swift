internal import ByteStorage

/// Reads a GGUF header from its beginning, checking that every field is inside the file before it is looked at.
struct GGUFCursor {
    /// How deep arrays may be in arrays; files have them one deep.
    static let maximumNesting = 4
    /// The longest key or tensor name: what the format allows keys.
    static let maximumNameBytes = 65_535
    /// The longest header: the largest vocabularies take some 30 MB. It bounds the time that opening a file takes, as a
    /// hole in a sparse file reads as any number of empty strings.
    static let maximumHeaderBytes = 1 << 27

    let file: SharedBytes
    private(set) var offset: Int

    init(_ file: SharedBytes, at offset: Int) {
        self.file = file
        self.offset = offset
    }

    /// The next `count` fields of `size` bytes each.
    mutating func skip(
        _ count: UInt64,
        of size: Int,
        _ what: @autoclosure () -> String
    ) throws(EngineFormatError) -> Range<Int> {
        let remaining = file.count - offset
        guard count <= UInt64(remaining / size) else {
            throw EngineFormatError(
                .damaged,
                at: offset,
                "\(what()) needs \(count == 1 ? "" : "\(count) times ")\(size) bytes, and \(remaining) follow; the file is "
                    + "cut off or damaged"
            )
        }
        let start = offset
        guard Int(count) * size <= Self.maximumHeaderBytes - start else {
            throw EngineFormatError(
                .unsupported,
                at: start,
                "\(what()) ends beyond byte \(Self.maximumHeaderBytes), which is the longest header that is supported"
            )
        }
        offset += Int(count) * size
        return start..<offset
    }

    mutating func integer<Value: FixedWidthInteger>(
        _ what: @autoclosure () -> String
    ) throws(EngineFormatError) -> Value {
        let place = try skip(1, of: MemoryLayout<Value>.size, what())
        return file.littleEndian(at: place.lowerBound)
    }

    /// The bytes of a string, which follow its length.
    mutating func string(_ what: @autoclosure () -> String) throws(EngineFormatError) -> Range<Int> {
        let length: UInt64 = try integer(what())
        return try skip(length, of: 1, what())
    }

    /// A key or tensor name.
    mutating func name(_ what: @autoclosure () -> String) throws(EngineFormatError) -> Range<Int> {
        let start = offset
        let place = try string(what())
        guard !place.isEmpty else {
            throw EngineFormatError(.damaged, at: start, "\(what()) is empty; the file is damaged")
        }
        guard place.count <= Self.maximumNameBytes else {
            throw EngineFormatError(
                .damaged,
                at: start,
                "\(what()) has \(place.count) bytes, more than \(Self.maximumNameBytes); the file is damaged"
            )
        }
        guard file.text(place) != nil else {
            throw EngineFormatError(.damaged, at: place.lowerBound, "\(what()) is not UTF-8; the file is damaged")
        }
        return place
    }

    /// The kind that comes before a value or an array's elements.
    mutating func kind(_ what: @autoclosure () -> String) throws(EngineFormatError) -> GGUFValue.Kind {
        let start = offset
        let number: UInt32 = try integer(what())
        guard let kind = GGUFValue.Kind(rawValue: number) else {
            throw EngineFormatError(
                .damaged,
                at: start,
                "\(what()) has the type number \(number), which GGUF does not have; the file is damaged"
            )
        }
        return kind
    }

    /// Goes past a value.
    mutating func skipValue(
        _ kind: GGUFValue.Kind,
        nesting: Int = 0,
        _ what: @autoclosure () -> String
    ) throws(EngineFormatError) {
        switch kind {
        case .string: _ = try string(what())
        case .array:
            guard nesting < Self.maximumNesting else {
                throw EngineFormatError(
                    .damaged,
                    at: offset,
                    "\(what()) has arrays nested more than \(Self.maximumNesting) deep; the file is damaged"
                )
            }
            let element = try self.kind(what())
            let count: UInt64 = try integer(what())
            if let size = element.byteCount {
                _ = try skip(count, of: size, what())
                return
            }
            // Each takes some bytes, so that the end of the file ends the loop, too.
            for _ in 0..<count { try skipValue(element, nesting: nesting + 1, what()) }
        default: _ = try skip(1, of: kind.byteCount ?? 0, what())
        }
    }
}

extension SharedBytes {
    /// A number that begins at any byte.
    func littleEndian<Value: FixedWidthInteger>(at offset: Int, as type: Value.Type = Value.self) -> Value {
        let bytes = self[offset..<offset + MemoryLayout<Value>.size]
        return unsafe bytes.withUnsafeBytes { unsafe Value(littleEndian: $0.loadUnaligned(as: Value.self)) }
    }

    /// Text, or nil if it isn't UTF-8.
    func text(_ place: Range<Int>) -> String? {
        unsafe self[place].withUnsafeBytes { unsafe String(validating: $0, as: UTF8.self) }
    }

    /// The beginning of a name, for errors.
    func shownText(_ place: Range<Int>) -> String { (text(place) ?? "").abbreviated }

    /// How the bytes at a place compare with a text's: negative, zero or positive, as they come before or after.
    func order(of place: Range<Int>, comparedTo text: String) -> Int {
        unsafe self[place].withUnsafeBytes { bytes in
            if unsafe bytes.elementsEqual(text.utf8) { return 0 }
            return unsafe bytes.lexicographicallyPrecedes(text.utf8) ? -1 : 1
        }
    }

    /// Whether the bytes at one place come before those at another.
    func precedes(_ left: Range<Int>, _ right: Range<Int>) -> Bool {
        unsafe self[left].withUnsafeBytes { left in
            unsafe self[right].withUnsafeBytes { right in unsafe left.lexicographicallyPrecedes(right) }
        }
    }
}

extension String {
    /// The beginning of a text from a file, for errors: texts of files may be of any length.
    package var abbreviated: String { String(unicodeScalars.prefix(80)) }
}

extension Array {
    /// Finds the element for which `comparison` is zero, where elements are in its order.
    func search(_ comparison: (Element) -> Int) -> Element? {
        var range = startIndex..<endIndex
        while !range.isEmpty {
            let middle = range.lowerBound + range.count / 2
            let result = comparison(self[middle])
            if result == 0 { return self[middle] }
            range = result < 0 ? middle + 1..<range.upperBound : range.lowerBound..<middle
        }
        return nil
    }
}

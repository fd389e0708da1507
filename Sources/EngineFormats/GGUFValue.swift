public import ByteStorage

/// A value of a GGUF file's metadata, read where it lies.
public struct GGUFValue: Sendable {
    /// The types of values, by the numbers that files have for them.
    public enum Kind: UInt32, Sendable {
        case uint8, int8, uint16, int16, uint32, int32, float32, bool, string, array, uint64, int64, float64

        /// The bytes of a value, or nil if it says itself how long it is.
        var byteCount: Int? {
            switch self {
            case .uint8, .int8, .bool: 1
            case .uint16, .int16: 2
            case .uint32, .int32, .float32: 4
            case .uint64, .int64, .float64: 8
            case .string, .array: nil
            }
        }
    }

    /// What it is.
    public let kind: Kind
    let file: SharedBytes
    /// Where the key is.
    let key: Range<Int>
    /// Which element of the key's array this is.
    let index: Int?
    /// The value's first byte.
    let offset: Int

    /// The error that this value causes; the message says what is wrong with it and what to do.
    public func fault(_ message: String, _ code: EngineFormatError.Code = .damaged) -> EngineFormatError {
        let place = index.map { "[\($0)]" } ?? ""
        return EngineFormatError(
            code,
            at: offset,
            "metadata '\(file.shownText(key))\(place)' \(message)"
        )
    }

    private func wrong(_ wanted: String) -> EngineFormatError { fault("is of the type \(kind), must be \(wanted)") }

    // MARK: - Numbers

    /// A whole number of any width.
    ///
    /// - Throws: `EngineFormatError` naming the key if it is none, or larger than an `Int`.
    public func int() throws(EngineFormatError) -> Int {
        switch kind {
        case .uint8: return Int(file.littleEndian(at: offset, as: UInt8.self))
        case .int8: return Int(file.littleEndian(at: offset, as: Int8.self))
        case .uint16: return Int(file.littleEndian(at: offset, as: UInt16.self))
        case .int16: return Int(file.littleEndian(at: offset, as: Int16.self))
        case .uint32: return Int(file.littleEndian(at: offset, as: UInt32.self))
        case .int32: return Int(file.littleEndian(at: offset, as: Int32.self))
        case .int64: return Int(file.littleEndian(at: offset, as: Int64.self))
        case .uint64:
            let number = file.littleEndian(at: offset, as: UInt64.self)
            guard let value = Int(exactly: number) else { throw fault("is \(number), which is too large") }
            return value
        case .float32, .float64, .bool, .string, .array: throw wrong("a whole number")
        }
    }

    /// A whole number within a range.
    ///
    /// - Throws: `EngineFormatError` naming the key if it is none.
    public func int(in range: ClosedRange<Int>) throws(EngineFormatError) -> Int {
        let value = try int()
        guard range.contains(value) else {
            throw fault("is \(value), must be \(range.lowerBound)...\(range.upperBound)")
        }
        return value
    }

    /// A number of any type.
    ///
    /// - Throws: `EngineFormatError` naming the key if it is none, or not finite.
    public func double() throws(EngineFormatError) -> Double {
        let value: Double
        switch kind {
        case .float32: value = Double(Float(bitPattern: file.littleEndian(at: offset)))
        case .float64: value = Double(bitPattern: file.littleEndian(at: offset))
        case .bool, .string, .array: throw wrong("a number")
        default: value = Double(try int())
        }
        guard value.isFinite else { throw fault("is \(value), must be a finite number") }
        return value
    }

    /// True or false.
    ///
    /// - Throws: `EngineFormatError` naming the key if it is none.
    public func bool() throws(EngineFormatError) -> Bool {
        guard kind == .bool else { throw wrong("true or false") }
        let byte = file.littleEndian(at: offset, as: UInt8.self)
        guard byte <= 1 else { throw fault("is \(byte), must be 0 or 1") }
        return byte == 1
    }

    // MARK: - Strings and arrays

    /// A string's bytes, where they lie.
    ///
    /// - Throws: `EngineFormatError` naming the key if it is none.
    public func bytes() throws(EngineFormatError) -> SharedBytes {
        guard kind == .string else { throw wrong("a string") }
        return file[content]
    }

    /// A string's text.
    ///
    /// - Throws: `EngineFormatError` naming the key if it is none, or isn't UTF-8.
    public func text() throws(EngineFormatError) -> String {
        guard kind == .string else { throw wrong("a string") }
        guard let text = file.text(content) else { throw fault("is not UTF-8") }
        return text
    }

    /// An array's elements, in order.
    ///
    /// - Throws: `EngineFormatError` naming the key if it is none.
    public func elements() throws(EngineFormatError) -> GGUFElements {
        guard kind == .array else { throw wrong("an array") }
        return GGUFElements(self)
    }

    /// Where a string's bytes are; that they are in the file was checked when it was opened.
    private var content: Range<Int> {
        let start = offset + MemoryLayout<UInt64>.size
        return start..<start + Int(file.littleEndian(at: offset, as: UInt64.self))
    }

    /// Where the value ends.
    var end: Int {
        if let size = kind.byteCount { return offset + size }
        if kind == .string { return content.upperBound }
        var elements = GGUFElements(self)
        if let size = elements.kind.byteCount { return elements.offset + elements.count * size }
        while elements.next() != nil {}
        return elements.offset
    }
}

/// The elements of an array of a GGUF file's metadata, each read where it lies.
public struct GGUFElements: Sequence, IteratorProtocol, Sendable {
    /// What all elements are.
    public let kind: GGUFValue.Kind
    /// How many elements the array has.
    public let count: Int
    private let array: GGUFValue
    private var index = 0
    /// Where the next element begins.
    fileprivate private(set) var offset: Int

    fileprivate init(_ array: GGUFValue) {
        self.array = array
        let countOffset = array.offset + MemoryLayout<UInt32>.size
        // Both were checked when the file was opened.
        kind = GGUFValue.Kind(rawValue: array.file.littleEndian(at: array.offset)) ?? .array
        count = Int(array.file.littleEndian(at: countOffset, as: UInt64.self))
        offset = countOffset + MemoryLayout<UInt64>.size
    }

    public mutating func next() -> GGUFValue? {
        guard index < count else { return nil }
        let value = GGUFValue(
            kind: kind,
            file: array.file,
            key: array.key,
            index: array.index ?? index,
            offset: offset
        )
        index += 1
        offset = value.end
        return value
    }
}

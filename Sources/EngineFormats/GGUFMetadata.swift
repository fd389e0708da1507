public import ByteStorage

/// The metadata of a GGUF file: values by key.
///
/// Keys are the same if their bytes are.
public struct GGUFMetadata: Sendable {
    /// The most entries that a file may have; files have some dozens.
    public static let maximumEntries = 1 << 16

    /// Where an entry is.
    private struct Place {
        let start: Int
        let key: Range<Int>
    }

    /// A key and its value.
    public struct Entry: Sendable {
        /// The key, as the file spells it.
        public let key: String
        /// The value, which stays where it lies.
        public let value: GGUFValue
        /// The whole entry as it lies in the file: key, type, and value.
        public let bytes: SharedBytes
    }

    private let file: SharedBytes
    /// In the order of the keys' bytes.
    private let places: [Place]

    /// Reads the entries that follow.
    ///
    /// - Throws: `EngineFormatError` if one is damaged or cut off, or a key is there twice.
    init(_ cursor: inout GGUFCursor, count: Int) throws(EngineFormatError) {
        let file = cursor.file
        var places: [Place] = []
        for index in 0..<count {
            let start = cursor.offset
            let key = try cursor.name("the key of metadata entry \(index)")
            func what() -> String { "metadata '\(file.shownText(key))'" }
            try cursor.skipValue(cursor.kind(what()), what())
            places.append(Place(start: start, key: key))
        }
        places.sort { file.precedes($0.key, $1.key) }
        for (left, right) in zip(places, places.dropFirst()) where !file.precedes(left.key, right.key) {
            throw EngineFormatError(
                .damaged,
                at: max(left.start, right.start),
                "metadata '\(file.shownText(right.key))' is there twice; the file is damaged"
            )
        }
        self.file = file
        self.places = places
    }

    /// How many entries there are.
    public var count: Int { places.count }

    /// The value of a key, or nil if there is none.
    public subscript(key: String) -> GGUFValue? {
        places.search { file.order(of: $0.key, comparedTo: key) }.map { value(at: $0) }
    }

    /// The value of a key.
    ///
    /// - Throws: `EngineFormatError` naming the key if there is none.
    public func required(_ key: String) throws(EngineFormatError) -> GGUFValue {
        guard let value = self[key] else { throw missing(key) }
        return value
    }

    /// The error that a key causes by not being there.
    package func missing(_ key: String) -> EngineFormatError {
        EngineFormatError(.damaged, "metadata '\(key)' is missing")
    }

    /// The id of a special token, such as `bos`, or nil if there is none.
    ///
    /// Where the file says none, by leaving the key out or by -1 or 4294967295, the beginning and the end of a text are
    /// those that llama.cpp takes then, if the vocabulary has so many tokens.
    ///
    /// - Parameter vocabularySize: how many tokens there are.
    /// - Throws: `EngineFormatError` naming the key if it isn't one of them.
    package func tokenID(_ name: String, vocabularySize: Int) throws(EngineFormatError) -> Int32? {
        guard let value = self[Self.tokenKey(name)], try ![-1, Int(UInt32.max)].contains(value.int()) else {
            let isByScores = try self["tokenizer.ggml.model"]?.text() == "llama"
            let standards: [String: Int32] = isByScores ? ["bos": 1, "eos": 2] : ["bos": 11, "eos": 11]
            return standards[name].flatMap { $0 < vocabularySize ? $0 : nil }
        }
        return Int32(try value.int(in: 0...min(max(vocabularySize - 1, 0), Int(Int32.max))))
    }

    /// The key of a special token's id.
    package static func tokenKey(_ name: String) -> String { "tokenizer.ggml.\(name)_token_id" }

    /// All entries in the file's order.
    public var entries: some Sequence<Entry> {
        places.sorted { $0.start < $1.start }.lazy.map { place in
            let value = value(at: place)
            return Entry(key: file.text(place.key) ?? "", value: value, bytes: file[place.start..<value.end])
        }
    }

    private func value(at place: Place) -> GGUFValue {
        let kindOffset = place.key.upperBound
        // The number was checked when the file was opened.
        return GGUFValue(
            kind: GGUFValue.Kind(rawValue: file.littleEndian(at: kindOffset)) ?? .uint8,
            file: file,
            key: place.key,
            index: nil,
            offset: kindOffset + MemoryLayout<UInt32>.size
        )
    }
}

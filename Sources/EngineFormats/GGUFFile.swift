public import ByteStorage
public import ComputeRuntime

/// A GGUF file: named tensors where they lie, and typed metadata.
///
/// Source: the GGUF format, <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>: counts, metadata, descriptions
/// of tensors, data, all little-endian. Formats/gguf.md says what is accepted.
///
/// The header stays where it lies: it is checked as a whole when the file is opened, in memory that grows with the number
/// of entries and tensors alone, and what is asked for is read again.
public struct GGUFFile: Sendable {
    /// What every file begins with.
    public static let magic: [UInt8] = Array("GGUF".utf8)
    /// How many dimensions a tensor may have, as in ggml.
    public static let maximumDimensions = 4
    /// The most tensors that a file may have; the largest models have some thousands.
    public static let maximumTensors = 1 << 18
    /// The largest alignment that is taken; files have 32.
    public static let maximumAlignment = 1 << 16
    private static let standardAlignment = 32
    private static let alignmentKey = "general.alignment"

    /// A tensor where it lies in the file.
    public struct Tensor: Sendable {
        /// The name, as the file spells it.
        public let name: String
        /// Outermost first, so that rows lie one after another: the reverse of what the file has.
        public let shape: [Int]
        /// The type as ggml calls it, e.g. `Q4_K`, or its number.
        public let typeName: String
        private let stored: Weights?

        /// Weights as they are stored.
        public struct Weights: Sendable {
            public let type: WeightType
            /// Rows without gaps; they need not be aligned to more than the file's alignment says.
            public let bytes: SharedBytes
        }

        fileprivate init(_ info: TensorInfo, in data: SharedBytes) {
            name = info.name
            shape = info.shape
            typeName = info.typeName
            if let type = info.type, let size = info.byteCount {
                stored = Weights(type: type, bytes: data[Int(info.offset)..<Int(info.offset) + size])
            } else {
                stored = nil
            }
        }

        /// The weights.
        ///
        /// - Throws: `EngineFormatError` naming the tensor if they are of a type that can't be computed with.
        public func weights() throws(EngineFormatError) -> Weights {
            guard let stored else {
                throw EngineFormatError(
                    .unsupported,
                    tensor: name.abbreviated,
                    "has the type \(typeName), which is not supported; supported are "
                        + WeightType.all.map(\.name).joined(separator: ", ")
                )
            }
            return stored
        }
    }

    /// The tensors by name. Names are the same if their bytes are.
    public struct Tensors: Sendable {
        fileprivate let file: SharedBytes
        fileprivate let data: SharedBytes
        /// Where each description begins, in the order of the names' bytes.
        fileprivate let places: [TensorPlace]

        /// How many tensors there are.
        public var count: Int { places.count }

        /// Whether the file has no tensors.
        public var isEmpty: Bool { places.isEmpty }

        /// The tensor of a name, or nil if there is none.
        public subscript(name: String) -> Tensor? {
            guard let place = places.search({ file.order(of: $0.name, comparedTo: name) }) else { return nil }
            var cursor = GGUFCursor(file, at: place.start)
            // It was read when the file was opened.
            return (try? TensorInfo(&cursor)).map { Tensor($0, in: data) }
        }

        /// The names in the order of their bytes.
        public var names: some Sequence<String> { places.lazy.map { file.text($0.name) ?? "" } }
    }

    /// 2 or 3, which differ in nothing that is read here.
    public let version: Int
    /// What the places of tensors are multiples of.
    public let alignment: Int
    /// Values by key.
    public let metadata: GGUFMetadata
    /// Tensors by name, which stay where they lie.
    public let tensors: Tensors

    /// Whether bytes begin as GGUF files do.
    public static func isGGUF(_ bytes: SharedBytes) -> Bool {
        unsafe bytes.withUnsafeBytes { unsafe $0.starts(with: magic) }
    }

    /// Reads the header of a file in memory; tensors stay where they are.
    ///
    /// - Throws: `EngineFormatError` if the file is of another version or byte order, its header is cut off or has what
    ///   GGUF doesn't, a key or tensor is there twice, or tensors overlap, aren't aligned, or reach past the end.
    public init(_ file: SharedBytes) throws(EngineFormatError) {
        guard Self.isGGUF(file) else {
            throw EngineFormatError(.damaged, at: 0, "does not begin as GGUF files do; it is another kind of file")
        }
        var cursor = GGUFCursor(file, at: Self.magic.count)
        version = try Self.version(&cursor)
        let tensorCount = try Self.count(&cursor, "tensors", upTo: Self.maximumTensors)
        let entryCount = try Self.count(&cursor, "metadata entries", upTo: GGUFMetadata.maximumEntries)
        metadata = try GGUFMetadata(&cursor, count: entryCount)
        alignment = try Self.alignment(metadata)
        tensors = try Tensors(&cursor, count: tensorCount, alignment: alignment)
    }

    private static func version(_ cursor: inout GGUFCursor) throws(EngineFormatError) -> Int {
        let offset = cursor.offset
        let number: UInt32 = try cursor.integer("the version")
        switch number {
        case 2, 3: return Int(number)
        case 1:
            throw EngineFormatError(
                .unsupported,
                at: offset,
                "GGUF version 1 is not supported; take a newer file of the model, or convert it again"
            )
        case let number where (1...3).contains(number.byteSwapped):
            throw EngineFormatError(
                .unsupported,
                at: offset,
                "the file is big-endian, which is not supported; take the model's little-endian file"
            )
        default:
            throw EngineFormatError(
                .unsupported,
                at: offset,
                "GGUF version \(number) is not supported; supported are 2 and 3"
            )
        }
    }

    private static func count(
        _ cursor: inout GGUFCursor,
        _ what: String,
        upTo largest: Int
    ) throws(EngineFormatError) -> Int {
        let offset = cursor.offset
        let count: UInt64 = try cursor.integer("the number of \(what)")
        guard count <= UInt64(largest) else {
            throw EngineFormatError(
                .damaged,
                at: offset,
                "the header has \(count) \(what), more than \(largest); the file is damaged"
            )
        }
        return Int(count)
    }

    private static func alignment(_ metadata: GGUFMetadata) throws(EngineFormatError) -> Int {
        guard let value = metadata[alignmentKey] else { return standardAlignment }
        let alignment = try value.int(in: 1...maximumAlignment)
        guard alignment.nonzeroBitCount == 1 else { throw value.fault("is \(alignment), must be a power of two") }
        return alignment
    }
}

/// Where the description of a tensor begins, and where its name is.
private struct TensorPlace {
    let start: Int
    let name: Range<Int>
}

/// A tensor's description in the header.
private struct TensorInfo {
    let start: Int
    let nameRange: Range<Int>
    let name: String
    let shape: [Int]
    let typeNumber: UInt32
    /// From the beginning of the data.
    let offset: UInt64
    /// The bytes of the weights; nil if the type is not one to compute with.
    let byteCount: Int?

    var type: WeightType? { WeightType(ggmlNumber: typeNumber) }

    /// Names of the types that can't be computed with, by ggml's numbers.
    private static let otherTypes: [UInt32: String] = [
        9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S",
        23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0",
        40: "NVFP4", 41: "Q1_0",
    ]

    var typeName: String { type?.name ?? Self.otherTypes[typeNumber] ?? "number \(typeNumber)" }

    init(_ cursor: inout GGUFCursor) throws(EngineFormatError) {
        let file = cursor.file
        start = cursor.offset
        nameRange = try cursor.name("the name of a tensor")
        name = file.text(nameRange) ?? ""
        let shown = file.shownText(nameRange)
        func fault(_ message: String, at offset: Int) -> EngineFormatError {
            EngineFormatError(.damaged, tensor: shown, at: offset, "\(message); the file is damaged")
        }
        let dimensionsOffset = cursor.offset
        let dimensions: UInt32 = try cursor.integer("tensor '\(shown)'")
        guard dimensions <= UInt32(GGUFFile.maximumDimensions) else {
            throw fault("has \(dimensions) dimensions, more than \(GGUFFile.maximumDimensions)", at: dimensionsOffset)
        }
        var shape: [Int] = []
        var count = 1
        for _ in 0..<dimensions {
            let offset = cursor.offset
            let dimension: UInt64 = try cursor.integer("tensor '\(shown)'")
            guard let size = Int(exactly: dimension), size > 0 else {
                throw fault("has a dimension of \(dimension)", at: offset)
            }
            let (product, overflow) = count.multipliedReportingOverflow(by: size)
            guard !overflow else { throw fault("has too many elements", at: offset) }
            shape.insert(size, at: 0)
            count = product
        }
        self.shape = shape
        let typeOffset = cursor.offset
        let typeNumber: UInt32 = try cursor.integer("tensor '\(shown)'")
        self.typeNumber = typeNumber
        offset = try cursor.integer("tensor '\(shown)'")
        guard let type = WeightType(ggmlNumber: typeNumber) else {
            byteCount = nil
            return
        }
        let row = shape.last ?? 1
        guard row.isMultiple(of: type.blockLength) else {
            throw fault(
                "has rows of \(row), which are no whole blocks of \(type.blockLength), as \(type.name) needs",
                at: typeOffset
            )
        }
        let (size, overflow) = (count / type.blockLength).multipliedReportingOverflow(by: type.blockByteCount)
        guard !overflow else { throw fault("has too many elements", at: typeOffset) }
        byteCount = size
    }
}

// MARK: - Places

extension GGUFFile.Tensors {
    /// A tensor's place in the data, and that of its description.
    private struct Extent {
        let start: UInt64
        /// At least a byte after the start: what tensors of other types have isn't known.
        let end: UInt64
        let info: Int
    }

    /// Reads the descriptions that follow, and finds the data after them.
    ///
    /// - Throws: `EngineFormatError` if one is damaged or cut off, a name is there twice, or tensors overlap, aren't
    ///   aligned, or reach past the end.
    fileprivate init(_ cursor: inout GGUFCursor, count: Int, alignment: Int) throws(EngineFormatError) {
        let file = cursor.file
        var places: [TensorPlace] = []
        var extents: [Extent] = []
        for _ in 0..<count {
            let info = try TensorInfo(&cursor)
            let (end, overflow) = info.offset.addingReportingOverflow(UInt64(info.byteCount ?? 1))
            guard !overflow, info.offset.isMultiple(of: UInt64(alignment)) else {
                throw EngineFormatError(
                    .damaged,
                    tensor: file.shownText(info.nameRange),
                    at: info.start,
                    "begins at byte \(info.offset) of the data, "
                        + (overflow ? "which is too far" : "which is no multiple of \(alignment)")
                        + "; the file is damaged"
                )
            }
            places.append(TensorPlace(start: info.start, name: info.nameRange))
            extents.append(Extent(start: info.offset, end: end, info: info.start))
        }
        places.sort { file.precedes($0.name, $1.name) }
        for (left, right) in zip(places, places.dropFirst()) where !file.precedes(left.name, right.name) {
            throw EngineFormatError(
                .damaged,
                tensor: file.shownText(right.name),
                at: max(left.start, right.start),
                "is there twice; the file is damaged"
            )
        }
        // A file without tensors may end with its header.
        let dataStart = min((cursor.offset + alignment - 1) / alignment * alignment, file.count)
        self.file = file
        self.data = file[dataStart..<file.count]
        self.places = places
        try check(&extents)
    }

    /// Checks that tensors are within the data, and don't overlap.
    private func check(_ extents: inout [Extent]) throws(EngineFormatError) {
        func name(_ extent: Extent) -> String {
            var cursor = GGUFCursor(file, at: extent.info)
            return (try? file.shownText(TensorInfo(&cursor).nameRange)) ?? ""
        }
        extents.sort { ($0.start, $0.info) < ($1.start, $1.info) }
        var former: Extent?
        for extent in extents {
            guard extent.end <= UInt64(data.count) else {
                throw EngineFormatError(
                    .damaged,
                    tensor: name(extent),
                    at: extent.info,
                    "ends at byte \(extent.end) of the data, which has \(data.count); the file is cut off or damaged"
                )
            }
            if let former, extent.start < former.end {
                throw EngineFormatError(
                    .damaged,
                    tensor: name(extent),
                    at: extent.info,
                    "overlaps '\(name(former))'; the file is damaged"
                )
            }
            former = extent
        }
    }
}

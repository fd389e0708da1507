public import ByteStorage
internal import JSONText

/// A safetensors file: named tensors where they lie, and text metadata.
///
/// Source: the safetensors format, <https://github.com/huggingface/safetensors>: u64 header length, JSON header,
/// data. Offsets need no alignment; tensors may come in any order but must cover the data without gaps or overlaps.
/// Formats/dump.md says what is accepted, and where that is less than the reference reader accepts.
///
/// The header stays where it lies: it is checked as a whole when the file is opened, and a tensor's description is read
/// again when the tensor is asked for.
public struct SafetensorsFile: Sendable {
    /// The longest header that is looked at, as in the reference reader.
    public static let maximumHeaderBytes = 100_000_000
    /// How many dimensions a tensor may have, as in NumPy, and how many entries the metadata.
    public static let maximumDimensions = 64
    public static let maximumMetadataEntries = 1 << 14
    static let lengthBytes = 8
    private static let metadataName = "__metadata__"

    /// A tensor where it lies in the file.
    public struct Tensor: Sendable {
        /// The element type as the file spells it, e.g. `F16`.
        public let elementType: String
        public let shape: [Int]
        /// The elements, little-endian, without gaps; they need not be aligned.
        public let bytes: SharedBytes
    }

    /// The tensors by name. Names are the same if their UTF-8 is, whatever Unicode says of their characters.
    public struct Tensors: Sendable {
        fileprivate let header: JSONObject
        fileprivate let data: SharedBytes

        /// The tensor of a name, or nil if there is none.
        public subscript(name: String) -> Tensor? {
            guard name != metadataName, let value = header[name] else { return nil }
            return try? HeaderEntry(value).tensor(in: data)
        }

        public var count: Int { header[metadataName] == nil ? header.count : header.count - 1 }

        public var isEmpty: Bool { count == 0 }

        /// The names in the header's order.
        public var names: some Sequence<String> {
            header.members.lazy.map(\.name.text).filter { $0 != metadataName }
        }
    }

    public let tensors: Tensors
    public let metadata: [String: String]

    /// Reads the header of a file in memory; tensors stay where they are.
    ///
    /// - Throws: `EngineFormatError` if the header is too long or isn't JSON of the format, a name is there twice, or
    ///   tensors overlap, leave gaps, reach past the end, or have lengths that don't fit their shapes.
    public init(_ file: SharedBytes) throws(EngineFormatError) {
        let dataStart = try Self.dataStart(file)
        let data = file[dataStart..<file.count]
        do {
            let text = file[Self.lengthBytes..<dataStart]
            let header = try JSONDocument(text, origin: Self.lengthBytes, remedy: "the file is damaged").root.object()
            metadata = try Self.metadata(header.optional(Self.metadataName))
            tensors = Tensors(header: header, data: data)
        } catch {
            throw EngineFormatError(error)
        }
        try Self.checkPlaces(tensors, dataStart: dataStart)
    }

    /// Where the data begins.
    private static func dataStart(_ file: SharedBytes) throws(EngineFormatError) -> Int {
        guard file.count >= lengthBytes else {
            throw EngineFormatError(.damaged, at: 0, "the file has \(file.count) bytes, too few for a safetensors file")
        }
        let length = unsafe file.withUnsafeBytes { unsafe UInt64(littleEndian: $0.loadUnaligned(as: UInt64.self)) }
        guard length <= UInt64(maximumHeaderBytes) else {
            throw EngineFormatError(
                .damaged,
                at: 0,
                "the header's length is \(length) bytes, more than \(maximumHeaderBytes); this is not a safetensors file"
            )
        }
        let dataStart = lengthBytes + Int(length)
        guard dataStart <= file.count else {
            throw EngineFormatError(
                .damaged,
                at: 0,
                "the header should end at byte \(dataStart) and the file has \(file.count); it is cut off or damaged"
            )
        }
        return dataStart
    }

    private static func metadata(_ value: JSONValue?) throws(JSONError) -> [String: String] {
        guard let object = try value?.object() else { return [:] }
        guard object.count <= maximumMetadataEntries else {
            throw object.value.fault("has \(object.count) entries, more than \(maximumMetadataEntries)", .unsupported)
        }
        var result: [String: String] = [:]
        for member in object.members {
            // To others these would be two keys, and one of them would be lost here.
            guard result.updateValue(try member.value.text(), forKey: member.name.text) == nil else {
                throw member.value.fault(
                    "differs from another key by its Unicode normal form alone; rename one of them",
                    .unsupported
                )
            }
        }
        return result
    }

    // MARK: - Places

    /// A tensor's place in the data, and that of its name in the header, by which it is found again.
    private struct Place {
        let start: UInt64
        let end: UInt64
        let member: UInt32
    }

    /// Checks that the tensors cover the data without gaps or overlaps, and that their lengths fit their shapes.
    private static func checkPlaces(_ tensors: Tensors, dataStart: Int) throws(EngineFormatError) {
        var places: [Place] = []
        places.reserveCapacity(tensors.count)
        let metadataName = Array(metadataName.utf8)
        do throws(JSONError) {
            for member in tensors.header.members where !member.name.isEqual(to: metadataName) {
                let entry = try HeaderEntry(member.value)
                places.append(Place(start: entry.start, end: entry.end, member: member.place))
            }
        } catch {
            throw EngineFormatError(error)
        }
        places.sort { ($0.start, $0.end, $0.member) < ($1.start, $1.end, $1.member) }
        let count = UInt64(tensors.data.count)
        var end: UInt64 = 0
        var former: UInt32?
        for place in places {
            guard let member = tensors.header.member(at: place.member) else { continue }
            func formerName() -> String {
                former.flatMap { tensors.header.member(at: $0) }.map { "'\($0.name)'" } ?? "the header"
            }
            let fault: String? =
                if place.start < end { "overlaps \(formerName())" } else if place.start > end {
                    "begins \(place.start - end) bytes after \(formerName()) ends"
                } else if place.end < place.start {
                    "ends before it begins"
                } else if place.end > count {
                    "ends at byte \(place.end) of the data, which has \(count); the file is cut off or damaged"
                } else {
                    try? HeaderEntry(member.value).sizeFault
                }
            if let fault {
                throw EngineFormatError(
                    .damaged,
                    tensor: member.name.description,
                    at: dataStart + Int(min(place.start, count)),
                    fault
                )
            }
            end = place.end
            former = place.member
        }
        guard end == count else {
            throw EngineFormatError(
                .damaged,
                at: dataStart + Int(end),
                "\(count - end) bytes follow the last tensor; the file is damaged"
            )
        }
    }
}

/// A tensor's description in the header.
private struct HeaderEntry {
    let elementType: JSONString
    let shape: JSONElements
    let start: UInt64
    let end: UInt64

    init(_ value: JSONValue) throws(JSONError) {
        let fields = try value.object()
        elementType = try fields.required("dtype").string()
        let dimensions = try fields.required("shape")
        shape = try dimensions.elements()
        for (index, dimension) in shape.enumerated() {
            guard index < SafetensorsFile.maximumDimensions else {
                throw dimensions.fault("has more than \(SafetensorsFile.maximumDimensions) dimensions", .unsupported)
            }
            _ = try dimension.int(in: 0...Int.max)
        }
        let field = try fields.required("data_offsets")
        var offsets = try field.elements()
        guard let first = offsets.next(), let second = offsets.next(), offsets.next() == nil else {
            throw field.wrong("must be two numbers")
        }
        start = try first.unsigned()
        end = try second.unsigned()
    }

    /// The tensor, or nil if it isn't within the data.
    func tensor(in data: SharedBytes) throws(JSONError) -> SafetensorsFile.Tensor? {
        guard start <= end, end <= UInt64(data.count) else { return nil }
        return SafetensorsFile.Tensor(
            elementType: elementType.text,
            shape: try dimensions(),
            bytes: data[Int(start)..<Int(end)]
        )
    }

    private func dimensions() throws(JSONError) -> [Int] {
        var result: [Int] = []
        for dimension in shape { result.append(try dimension.int()) }
        return result
    }

    /// Why the length doesn't fit the shape, or nil.
    var sizeFault: String? {
        get throws(JSONError) {
            guard let size = elementBytes else { return nil }  // Types that nobody here reads may be anything.
            let shape = try dimensions()
            var count = size
            for dimension in shape {
                let (product, overflow) = count.multipliedReportingOverflow(by: dimension)
                if overflow { return "the shape \(shape) has too many elements" }
                count = product
            }
            return UInt64(count) == end - start
                ? nil : "\(elementType) \(shape) needs \(count) bytes and has \(end - start)"
        }
    }

    private var elementBytes: Int? {
        switch elementType.description {
        case "BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0": 1
        case "F16", "BF16", "I16", "U16": 2
        case "F32", "I32", "U32": 4
        case "F64", "I64", "U64", "C64": 8
        default: nil
        }
    }
}

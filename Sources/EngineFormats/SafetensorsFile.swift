public import ByteStorage
internal import Foundation

/// A safetensors file: named tensors where they lie, and text metadata.
///
/// Source: the safetensors format, <https://github.com/huggingface/safetensors>: u64 header length, JSON header,
/// data. Offsets need no alignment; tensors may come in any order but must cover the data without gaps or overlaps.
public struct SafetensorsFile: Sendable {
    /// The longest header that is looked at, as in the reference reader.
    public static let maximumHeaderBytes = 100_000_000
    static let lengthBytes = 8

    /// A tensor where it lies in the file.
    public struct Tensor: Sendable {
        /// The element type as the file spells it, e.g. `F16`.
        public let elementType: String
        public let shape: [Int]
        /// The elements, little-endian, without gaps; they need not be aligned.
        public let bytes: SharedBytes
    }

    /// The tensors by name.
    public let tensors: [String: Tensor]
    public let metadata: [String: String]

    /// Reads the header of a file in memory; tensors stay where they are.
    ///
    /// - Throws: `EngineFormatError` if the header is too long or isn't JSON of the format, or tensors overlap, leave
    ///   gaps, reach past the end, or have lengths that don't fit their shapes.
    public init(_ file: SharedBytes) throws(EngineFormatError) {
        guard file.count >= Self.lengthBytes else {
            throw EngineFormatError(.damaged, at: 0, "the file has \(file.count) bytes, too few for a safetensors file")
        }
        var headerLength: UInt64 = 0
        for index in (0..<Self.lengthBytes).reversed() {
            headerLength = headerLength << 8 | UInt64(file.byte(at: index))
        }
        guard headerLength <= UInt64(Self.maximumHeaderBytes) else {
            throw EngineFormatError(
                .damaged,
                at: 0,
                "the header's length is \(headerLength) bytes, more than \(Self.maximumHeaderBytes); "
                    + "this is not a safetensors file"
            )
        }
        let dataStart = Self.lengthBytes + Int(headerLength)
        guard dataStart <= file.count else {
            throw EngineFormatError(
                .damaged,
                at: 0,
                "the header should end at byte \(dataStart) and the file has \(file.count); it is cut off or damaged"
            )
        }
        let header: Header
        do {
            let json = unsafe file[Self.lengthBytes..<dataStart].withUnsafeBytes { unsafe Data($0) }
            header = try JSONDecoder().decode(Header.self, from: json)
        } catch {
            throw EngineFormatError(
                .damaged,
                at: Self.lengthBytes,
                "the header is not what safetensors has: \((error as? DecodingError)?.summary ?? "\(error)")"
            )
        }
        let data = file[dataStart..<file.count]
        var tensors: [String: Tensor] = [:]
        var end = 0
        var former = "the header"
        let ordered = header.tensors.sorted {
            ($0.value.start, $0.value.end, $0.key) < ($1.value.start, $1.value.end, $1.key)
        }
        for (name, entry) in ordered {
            let place = dataStart + min(entry.start, data.count)
            let fault: String? =
                if entry.start < end { "overlaps '\(former)'" } else if entry.start > end {
                    "begins \(entry.start - end) bytes after '\(former)' ends"
                } else if entry.end < entry.start {
                    "ends before it begins"
                } else if entry.end > data.count {
                    "ends at byte \(entry.end) of the data, which has \(data.count); the file is cut off or damaged"
                } else {
                    entry.sizeFault
                }
            if let fault { throw EngineFormatError(.damaged, tensor: name, at: place, fault) }
            tensors[name] = Tensor(
                elementType: entry.elementType,
                shape: entry.shape,
                bytes: data[entry.start..<entry.end]
            )
            end = entry.end
            former = name
        }
        guard end == data.count else {
            throw EngineFormatError(
                .damaged,
                at: dataStart + end,
                "\(data.count - end) bytes follow the last tensor; the file is damaged"
            )
        }
        self.tensors = tensors
        metadata = header.metadata
    }
}

/// The JSON header.
private struct Header: Decodable {
    struct Entry: Decodable {
        let elementType: String
        let shape: [Int]
        let offsets: [Int]

        enum CodingKeys: String, CodingKey {
            case elementType = "dtype"
            case shape
            case offsets = "data_offsets"
        }

        init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: CodingKeys.self)
            elementType = try container.decode(String.self, forKey: .elementType)
            shape = try container.decode([Int].self, forKey: .shape)
            offsets = try container.decode([Int].self, forKey: .offsets)
            guard offsets.count == 2, offsets.allSatisfy({ $0 >= 0 }), shape.allSatisfy({ $0 >= 0 }) else {
                throw DecodingError.dataCorruptedError(
                    forKey: .offsets,
                    in: container,
                    debugDescription: "a tensor needs two data_offsets and a shape, none of them negative"
                )
            }
        }

        var start: Int { offsets[0] }
        var end: Int { offsets[1] }

        /// Why the length doesn't fit the shape, or nil.
        var sizeFault: String? {
            guard let size = elementBytes else { return nil }  // Types that nobody here reads may be anything.
            var count = size
            for dimension in shape {
                let (product, overflow) = count.multipliedReportingOverflow(by: dimension)
                if overflow { return "the shape \(shape) has too many elements" }
                count = product
            }
            return count == end - start
                ? nil : "\(elementType) \(shape) needs \(count) bytes and has \(end - start)"
        }

        private var elementBytes: Int? {
            switch elementType {
            case "BOOL", "U8", "I8": 1
            case "F16", "BF16", "I16", "U16": 2
            case "F32", "I32", "U32": 4
            case "F64", "I64", "U64": 8
            default: nil
            }
        }
    }

    private struct Name: CodingKey {
        let stringValue: String
        var intValue: Int? { nil }
        init(stringValue: String) { self.stringValue = stringValue }
        init?(intValue: Int) { nil }
    }

    private static let metadataKey = "__metadata__"

    var metadata: [String: String] = [:]
    var tensors: [String: Entry] = [:]

    init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: Name.self)
        for name in container.allKeys {
            if name.stringValue == Self.metadataKey {
                metadata = try container.decode([String: String].self, forKey: name)
            } else {
                tensors[name.stringValue] = try container.decode(Entry.self, forKey: name)
            }
        }
    }
}

extension SharedBytes {
    fileprivate func byte(at offset: Int) -> UInt8 {
        unsafe withUnsafeBytes { unsafe $0[offset] }
    }
}

public import ByteStorage

#if canImport(FoundationEssentials)
    internal import FoundationEssentials
#else
    internal import Foundation
#endif

/// Writes a safetensors file tensor by tensor, so that not all of them need be in memory.
public struct SafetensorsWriter: ~Copyable, Sendable {
    /// A tensor to be written: its name, element type as the format spells it, and shape.
    public struct Entry: Sendable {
        public let name: String
        public let elementType: String
        public let shape: [Int]
        public let byteCount: Int

        public init(name: String, elementType: String, shape: [Int], byteCount: Int) {
            self.name = name
            self.elementType = elementType
            self.shape = shape
            self.byteCount = byteCount
        }
    }

    private let file: AtomicFileWriter
    private let ranges: [String: Range<Int>]

    /// Begins a file and writes its header; the data begins at a multiple of 8.
    ///
    /// - Parameter access: who may use the file.
    /// - Throws: `FileError` if the file can't be written.
    public init(
        path: String,
        replacingExisting: Bool,
        access: FileAccess = .standard,
        tensors: [Entry],
        metadata: [String: String]
    ) throws {
        var header: [String: HeaderValue] = [:]
        if !metadata.isEmpty { header["__metadata__"] = .metadata(metadata) }
        var end = 0
        var offsets: [String: Int] = [:]
        for tensor in tensors {
            offsets[tensor.name] = end
            header[tensor.name] = .tensor(
                dtype: tensor.elementType,
                shape: tensor.shape,
                offsets: [end, end + tensor.byteCount]
            )
            end += tensor.byteCount
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        var json = [UInt8](try encoder.encode(header))
        json += [UInt8](repeating: UInt8(ascii: " "), count: (8 - json.count % 8) % 8)
        let length = (0..<SafetensorsFile.lengthBytes).map { UInt8(truncatingIfNeeded: json.count >> (8 * $0)) }
        let file = try AtomicFileWriter(path: path, replacingExisting: replacingExisting, access: access)
        try file.write(SharedBytes(length + json).span, at: 0)
        let dataStart = length.count + json.count
        self.file = file
        ranges = Dictionary(
            tensors.map { tensor in
                let start = dataStart + offsets[tensor.name, default: 0]
                return (tensor.name, start..<start + tensor.byteCount)
            },
            uniquingKeysWith: { _, _ in preconditionFailure("tensors must have different names") }
        )
    }

    /// Writes a part of a tensor, `offset` bytes from its beginning.
    public func write(_ bytes: SharedBytes, to name: String, at offset: Int = 0) throws(FileError) {
        guard let range = ranges[name] else { preconditionFailure("the header has no such tensor") }
        precondition(offset >= 0 && offset + bytes.count <= range.count, "the bytes reach past their tensor")
        try file.write(bytes.span, at: range.lowerBound + offset)
    }

    /// Lets the file appear under its name.
    public consuming func commit() throws(FileError) {
        try file.commit()
    }
}

private enum HeaderValue: Encodable {
    case metadata([String: String])
    case tensor(dtype: String, shape: [Int], offsets: [Int])

    private enum CodingKeys: String, CodingKey {
        case dtype, shape
        case offsets = "data_offsets"
    }

    func encode(to encoder: any Encoder) throws {
        switch self {
        case .metadata(let pairs): try pairs.encode(to: encoder)
        case .tensor(let dtype, let shape, let offsets):
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(dtype, forKey: .dtype)
            try container.encode(shape, forKey: .shape)
            try container.encode(offsets, forKey: .offsets)
        }
    }
}

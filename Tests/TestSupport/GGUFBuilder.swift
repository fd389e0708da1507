import Foundation
import ThinkCompress

/// Builds GGUF files in memory, byte by byte from the format's description, right or wrong as a test wants.
public struct GGUFBuilder: Sendable {
    /// A value of the metadata, or raw bytes of any type number.
    public enum Value: Sendable {
        case uint8(UInt8)
        case int8(Int8)
        case uint16(UInt16)
        case int16(Int16)
        case uint32(UInt32)
        case int32(Int32)
        case uint64(UInt64)
        case int64(Int64)
        case float32(Float)
        case float64(Double)
        case bool(Bool)
        case string(String)
        /// The type number of the elements, and the elements.
        case array(UInt32, [Value])
        case raw(UInt32, [UInt8])

        public static func strings(_ texts: [String]) -> Value { .array(8, texts.map { .string($0) }) }
        public static func int32s(_ numbers: [Int32]) -> Value { .array(5, numbers.map { .int32($0) }) }
        public static func float32s(_ numbers: [Float]) -> Value { .array(6, numbers.map { .float32($0) }) }
        public static func bools(_ flags: [Bool]) -> Value { .array(7, flags.map { .bool($0) }) }

        public var typeNumber: UInt32 {
            switch self {
            case .uint8: 0
            case .int8: 1
            case .uint16: 2
            case .int16: 3
            case .uint32: 4
            case .int32: 5
            case .float32: 6
            case .bool: 7
            case .string: 8
            case .array: 9
            case .uint64: 10
            case .int64: 11
            case .float64: 12
            case .raw(let number, _): number
            }
        }

        public var bytes: [UInt8] {
            switch self {
            case .uint8(let number): [number]
            case .int8(let number): [UInt8(bitPattern: number)]
            case .uint16(let number): littleEndianBytes(number)
            case .int16(let number): littleEndianBytes(number)
            case .uint32(let number): littleEndianBytes(number)
            case .int32(let number): littleEndianBytes(number)
            case .uint64(let number): littleEndianBytes(number)
            case .int64(let number): littleEndianBytes(number)
            case .float32(let number): littleEndianBytes(number.bitPattern)
            case .float64(let number): littleEndianBytes(number.bitPattern)
            case .bool(let flag): [flag ? 1 : 0]
            case .string(let text): GGUFBuilder.string(text)
            case .array(let type, let elements):
                littleEndianBytes(type) + littleEndianBytes(UInt64(elements.count)) + elements.flatMap(\.bytes)
            case .raw(_, let bytes): bytes
            }
        }
    }

    public struct Entry: Sendable {
        public var key: String
        public var value: Value

        public init(_ key: String, _ value: Value) {
            self.key = key
            self.value = value
        }
    }

    public struct Tensor: Sendable {
        public var name: String
        /// ggml's number.
        public var type: UInt32
        /// Innermost first, as in the file.
        public var dimensions: [UInt64]
        public var bytes: [UInt8]
        /// From the beginning of the data; nil for the next aligned byte.
        public var offset: UInt64?

        public init(
            _ name: String,
            type: UInt32 = 0,
            dimensions: [UInt64],
            bytes: [UInt8],
            offset: UInt64? = nil
        ) {
            self.name = name
            self.type = type
            self.dimensions = dimensions
            self.bytes = bytes
            self.offset = offset
        }

        /// A tensor of float32 numbers; the shape is outermost first.
        public init(_ name: String, _ shape: [Int], floats: [Float]) {
            self.init(
                name,
                dimensions: shape.reversed().map(UInt64.init),
                bytes: floats.flatMap { littleEndianBytes($0.bitPattern) }
            )
        }
    }

    public var version: UInt32 = 3
    /// What the file says of the numbers of tensors and entries; nil for what is so.
    public var tensorCount: UInt64?
    public var entryCount: UInt64?
    public var entries: [Entry]
    public var tensors: [Tensor]
    public var alignment = 32

    public init(_ entries: [Entry] = [], tensors: [Tensor] = []) {
        self.entries = entries
        self.tensors = tensors
    }

    public static func string(_ text: String) -> [UInt8] { littleEndianBytes(UInt64(text.utf8.count)) + text.utf8 }

    /// The value of a key; nil takes the entry out.
    public subscript(key: String) -> Value? {
        get { entries.first { $0.key == key }?.value }
        set {
            let index = entries.firstIndex { $0.key == key }
            switch (index, newValue) {
            case (let index?, let value?): entries[index].value = value
            case (let index?, nil): entries.remove(at: index)
            case (nil, let value?): entries.append(Entry(key, value))
            case (nil, nil): break
            }
        }
    }

    /// Everything before the data, without the bytes that align it.
    public var header: [UInt8] {
        var bytes = GGUFFile.magic + littleEndianBytes(version)
        bytes += littleEndianBytes(tensorCount ?? UInt64(tensors.count))
        bytes += littleEndianBytes(entryCount ?? UInt64(entries.count))
        for entry in entries {
            bytes += Self.string(entry.key) + littleEndianBytes(entry.value.typeNumber) + entry.value.bytes
        }
        for (tensor, offset) in zip(tensors, offsets) {
            bytes += Self.string(tensor.name) + littleEndianBytes(UInt32(tensor.dimensions.count))
            bytes += tensor.dimensions.flatMap { littleEndianBytes($0) }
            bytes += littleEndianBytes(tensor.type) + littleEndianBytes(offset)
        }
        return bytes
    }

    private var offsets: [UInt64] {
        var end: UInt64 = 0
        return tensors.map { tensor in
            let offset = tensor.offset ?? UInt64(aligned(Int(truncatingIfNeeded: end)))
            end = offset &+ UInt64(tensor.bytes.count)
            return offset
        }
    }

    private func aligned(_ count: Int) -> Int { (count + alignment - 1) / alignment * alignment }

    /// The file; tensors that are told to lie far away are left out of the data.
    public var file: [UInt8] {
        let header = header
        guard !tensors.isEmpty else { return header }
        var data: [UInt8] = []
        for (tensor, offset) in zip(tensors, offsets) where offset < 1 << 24 {
            let end = Int(offset) + tensor.bytes.count
            if data.count < end { data += [UInt8](repeating: 0, count: end - data.count) }
            data.replaceSubrange(Int(offset)..<end, with: tensor.bytes)
        }
        return header + [UInt8](repeating: 0, count: aligned(header.count) - header.count) + data
    }

    public func write(to path: String) throws {
        try Data(file).write(to: URL(filePath: path))
    }
}

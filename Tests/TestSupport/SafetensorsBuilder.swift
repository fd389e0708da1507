public import Foundation
public import ThinkCompress

/// Builds safetensors files in memory, byte by byte from the format's description, right or wrong as a test wants.
public struct SafetensorsBuilder: Sendable {
    public struct Tensor: Sendable {
        public var name: String
        public var elementType: String
        public var shape: [Int]
        public var bytes: [UInt8]

        public init(_ name: String, _ elementType: String, _ shape: [Int], bytes: [UInt8]) {
            self.name = name
            self.elementType = elementType
            self.shape = shape
            self.bytes = bytes
        }

        /// A tensor of int32 numbers in one dimension.
        public init(_ name: String, numbers: [Int32]) {
            self.init(
                name,
                "I32",
                [numbers.count],
                bytes: numbers.flatMap { littleEndianBytes(UInt32(bitPattern: $0)) }
            )
        }

        /// A tensor of float32 numbers.
        public init(_ name: String, _ shape: [Int], floats: [Float]) {
            self.init(name, "F32", shape, bytes: floats.flatMap { littleEndianBytes($0.bitPattern) })
        }

        /// A cache's tensor as `[1, heads, tokens, headDimension]`.
        public init(_ name: String, _ tensor: KVTensor) {
            self.init(
                name,
                tensor.elementType.name,
                [1, tensor.heads, tensor.tokens, tensor.headDimension],
                bytes: tensor.packedBytes
            )
        }
    }

    public var tensors: [Tensor]
    public var metadata: [String: String]

    public init(_ tensors: [Tensor] = [], metadata: [String: String] = [:]) {
        self.tensors = tensors
        self.metadata = metadata
    }

    /// The dump of a cache, with queries, profile, held tokens, state, tokens and positions where it has them.
    public init(_ cache: KVCache) {
        self.init(metadata: cache.metadata)
        for (index, layer) in cache.layers.enumerated() {
            tensors.append(Tensor("layers.\(index).keys", layer.keys))
            tensors.append(Tensor("layers.\(index).values", layer.values))
            if let queries = layer.queries { tensors.append(Tensor("layers.\(index).queries", queries)) }
            if let profile = layer.profile {
                tensors.append(
                    Tensor(
                        "layers.\(index).q2",
                        [layer.keys.heads, layer.keys.headDimension],
                        floats: profile.meanSquaredQueries
                    )
                )
            }
            if case .listed(let lists) = layer.held {
                let shape = [lists.count, layer.keys.tokens]
                let bytes = lists.joined().flatMap { littleEndianBytes($0) }
                tensors.append(Tensor("layers.\(index).held_tokens", "I32", shape, bytes: bytes))
            }
            for state in layer.state {
                let name = "layers.\(index).state.\(state.name)"
                tensors.append(Tensor(name, "U8", [state.bytes.count], bytes: state.bytes.array))
            }
        }
        if let tokens = cache.tokens { tensors.append(Tensor("tokens", numbers: tokens)) }
        if let positions = cache.positions { tensors.append(Tensor("positions", numbers: positions)) }
    }

    /// The tensor of a name, which must be there.
    public subscript(name: String) -> Tensor {
        get { tensors[index(of: name)] }
        set { tensors[index(of: name)] = newValue }
    }

    /// The same file without a tensor.
    public func removing(_ name: String) -> SafetensorsBuilder {
        var copy = self
        copy.tensors.remove(at: index(of: name))
        return copy
    }

    private func index(of name: String) -> Int {
        guard let index = tensors.firstIndex(where: { $0.name == name }) else {
            preconditionFailure("there is no tensor \(name)")
        }
        return index
    }

    /// The file, tensors in order without gaps.
    public var file: [UInt8] {
        var header: [String: Any] = metadata.isEmpty ? [:] : ["__metadata__": metadata]
        var end = 0
        for tensor in tensors {
            header[tensor.name] = [
                "dtype": tensor.elementType, "shape": tensor.shape, "data_offsets": [end, end + tensor.bytes.count],
            ]
            end += tensor.bytes.count
        }
        guard let json = try? JSONSerialization.data(withJSONObject: header, options: .sortedKeys) else {
            preconditionFailure("a header of text and numbers is JSON")
        }
        return Self.file(header: [UInt8](json), data: tensors.flatMap(\.bytes))
    }

    /// A file of any header and data.
    public static func file(header: [UInt8], data: [UInt8] = []) -> [UInt8] {
        littleEndianBytes(UInt64(header.count)) + header + data
    }

    public static func file(header: String, data: [UInt8] = []) -> [UInt8] {
        file(header: [UInt8](header.utf8), data: data)
    }

    public func write(to path: String) throws {
        try Data(file).write(to: URL(filePath: path))
    }
}

extension SafetensorsFile.Tensors {
    /// Something of every tensor, by name.
    public func mapValues<Value>(_ body: (SafetensorsFile.Tensor) throws -> Value) rethrows -> [String: Value] {
        var result: [String: Value] = [:]
        for name in names {
            guard let tensor = self[name] else { preconditionFailure("a name without a tensor") }
            result[name] = try body(tensor)
        }
        return result
    }
}

/// The bytes of an integer, lowest first.
public func littleEndianBytes<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { [UInt8]($0) }
}

extension SharedBytes {
    /// A copy of the bytes, to be compared quickly and named shortly when it differs.
    public var data: Data { withUnsafeBytes { Data($0) } }
}

/// The bytes of a file, which may be empty.
public func fileBytes(_ path: String) throws -> [UInt8] {
    let file = try FileHandle(forReadingFrom: URL(filePath: path))
    defer { try? file.close() }
    return [UInt8](try file.readToEnd() ?? Data())
}

public import ByteStorage
public import KVCacheModel

/// Writes a cache dump layer by layer, or some tokens of a layer at a time: Formats/dump.md.
public struct CacheDumpWriter: ~Copyable, Sendable {
    private let writer: SafetensorsWriter
    /// What every layer's keys and values must be.
    private let shape: [Int]
    private let elementType: ElementType
    /// How many tokens of each layer are still to be written.
    private var missingTokens: [Int]

    /// What a dump will hold beside keys and values.
    public struct Contents: Sendable {
        /// Token ids, one per token.
        public var tokens: [Int32]?
        /// Positions, one per token; nil where token t has position t.
        public var positions: [Int32]?
        /// The query profile of each layer.
        public var profile: [[Float]]?
        /// Text that travels with the cache.
        public var metadata: [String: String] = [:]

        public init() {}
    }

    /// Begins a dump; keys and values of every layer must follow.
    ///
    /// - Parameter access: who may use the file: a cache can be read back, at least in part, as its prompt.
    /// - Throws: `FileError` if the file can't be written.
    public init(
        path: String,
        replacingExisting: Bool,
        access: FileAccess = .ownerOnly,
        geometry: CacheGeometry,
        tokenCount: Int,
        elementType: ElementType,
        contents: Contents
    ) throws {
        let shape = [1, geometry.kvHeads, tokenCount, geometry.headDimension]
        let byteCount = shape.reduce(elementType.byteCount, *)
        var entries: [SafetensorsWriter.Entry] = []
        var words: [(name: String, words: [UInt32])] = []
        func add(_ name: String, _ type: String, shape: [Int], _ content: [UInt32]) {
            entries.append(.init(name: name, elementType: type, shape: shape, byteCount: content.count * 4))
            words.append((name, content))
        }
        for (name, numbers) in [("positions", contents.positions), ("tokens", contents.tokens)] {
            if let numbers { add(name, "I32", shape: [numbers.count], numbers.map(UInt32.init(bitPattern:))) }
        }
        for (layer, profile) in (contents.profile ?? []).enumerated() {
            let entry = QueryProfile.entry(layer: layer, geometry: geometry)
            entries.append(entry)
            words.append((entry.name, profile.map(\.bitPattern)))
        }
        for layer in 0..<geometry.layers {
            for part in [CacheDump.Part.keys, .values] {
                entries.append(
                    .init(
                        name: CacheDump.name(layer, part),
                        elementType: elementType.name,
                        shape: shape,
                        byteCount: byteCount
                    )
                )
            }
        }
        let writer = try SafetensorsWriter(
            path: path,
            replacingExisting: replacingExisting,
            access: access,
            tensors: entries,
            metadata: contents.metadata
        )
        for (name, content) in words {
            try writer.write(SharedBytes(words: content), to: name)
        }
        self.writer = writer
        self.shape = Array(shape.dropFirst())
        self.elementType = elementType
        missingTokens = [Int](repeating: tokenCount, count: geometry.layers)
    }

    /// Writes a layer's keys and values, rows side by side, of the dump's shape and type.
    ///
    /// - Parameter firstToken: which token of the dump the layer's first one is, where it has only some of them. Every
    ///   token is written once.
    public mutating func write(_ layer: KVCacheLayer, index: Int, firstToken: Int = 0) throws {
        let count = layer.keys.tokens
        let (heads, tokenCount, dimension) = (shape[0], shape[1], shape[2])
        precondition(
            missingTokens.indices.contains(index) && missingTokens[index] >= count,
            "every layer is written once"
        )
        precondition(firstToken >= 0 && firstToken + count <= tokenCount, "the dump has no such tokens")
        missingTokens[index] -= count
        let rowBytes = dimension * elementType.byteCount
        for (part, tensor) in [(CacheDump.Part.keys, layer.keys), (.values, layer.values)] {
            precondition(
                [tensor.heads, tensor.tokens, tensor.headDimension] == [heads, count, dimension]
                    && tensor.elementType == elementType,
                "a layer must have the dump's shape and type"
            )
            precondition(count <= 1 || tensor.tokenStride == rowBytes, "rows must lie side by side")
            for head in 0..<heads where count > 0 {
                let start = head * tensor.headStride
                try writer.write(
                    tensor.bytes[start..<start + count * rowBytes],
                    to: CacheDump.name(index, part),
                    at: (head * tokenCount + firstToken) * rowBytes
                )
            }
        }
    }

    /// Lets the dump appear under its name; every layer must have been written.
    public consuming func commit() throws {
        precondition(missingTokens.allSatisfy { $0 == 0 }, "a layer was not written")
        try writer.commit()
    }
}

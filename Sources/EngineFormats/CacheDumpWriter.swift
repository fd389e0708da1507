public import ByteStorage
public import KVCacheModel

/// Writes a cache dump layer by layer, or some rows of a layer at a time: Formats/dump.md.
public struct CacheDumpWriter: ~Copyable, Sendable {
    private let writer: SafetensorsWriter
    private let layers: [Layer]
    private let elementType: ElementType
    /// How many rows of each layer are still to be written.
    private var missingRows: [Int]

    /// A layer of the dump.
    public struct Layer: Sendable {
        public let geometry: LayerGeometry
        /// Rows of each KV head.
        public let rowCount: Int
        /// Which tokens the rows are of.
        public let held: HeldTokens
        public let state: [LayerState]

        public init(geometry: LayerGeometry, rowCount: Int, held: HeldTokens = .all, state: [LayerState] = []) {
            self.geometry = geometry
            self.rowCount = rowCount
            self.held = held
            self.state = state
        }
    }

    /// What a dump will hold beside its layers.
    public struct Contents: Sendable {
        /// Tokens of the cache; layers may have fewer rows.
        public var tokenCount: Int
        /// Token ids, one per token.
        public var tokens: [Int32]?
        /// Positions, one per token; nil where token t has position t.
        public var positions: [Int32]?
        /// The query profile of each layer.
        public var profile: [[Float]]?
        /// Text that travels with the cache.
        public var metadata: [String: String] = [:]

        public init(tokenCount: Int) {
            self.tokenCount = tokenCount
        }
    }

    /// Begins a dump; keys and values of every layer must follow.
    ///
    /// - Parameter access: who may use the file: a cache can be read back, at least in part, as its prompt.
    /// - Throws: `FileError` if the file can't be written.
    public init(
        path: String,
        replacingExisting: Bool,
        access: FileAccess = .ownerOnly,
        layers: [Layer],
        elementType: ElementType,
        contents: Contents
    ) throws {
        var entries: [SafetensorsWriter.Entry] = []
        var content: [(name: String, bytes: SharedBytes)] = []
        func add(_ name: String, _ type: String, shape: [Int], _ bytes: SharedBytes) {
            entries.append(.init(name: name, elementType: type, shape: shape, byteCount: bytes.count))
            content.append((name, bytes))
        }
        let saysCount =
            contents.tokens != nil || contents.positions != nil
            || layers.contains { $0.rowCount == contents.tokenCount }
        for (name, numbers) in [
            ("positions", contents.positions), ("tokens", contents.tokens),
            (CacheDump.tokenCountName, saysCount ? nil : [Int32(contents.tokenCount)]),
        ] {
            guard let numbers else { continue }
            add(name, "I32", shape: [numbers.count], try SharedBytes(words: numbers.map(UInt32.init(bitPattern:))))
        }
        for (index, profile) in (contents.profile ?? []).enumerated() where !layers[index].geometry.isEmpty {
            let entry = ModelProfile.entry(layer: index, part: .profile, geometry: layers[index].geometry)
            entries.append(entry)
            content.append((entry.name, try SharedBytes(words: profile.map(\.bitPattern))))
        }
        for (index, layer) in layers.enumerated() {
            for part in CachePart.allCases {
                let shape = [1, layer.geometry.kvHeads, layer.rowCount, layer.geometry.dimension(part)]
                entries.append(
                    .init(
                        name: CacheDump.name(index, part.dumpPart),
                        elementType: elementType.name,
                        shape: shape,
                        byteCount: shape.reduce(elementType.byteCount, *)
                    )
                )
            }
            if case .listed(let lists) = layer.held {
                let words = try SharedBytes(words: Array(lists.joined()))
                add(CacheDump.name(index, .heldTokens), "I32", shape: [lists.count, layer.rowCount], words)
            }
            for state in layer.state {
                add(CacheDump.name(index, state: state.name), "U8", shape: [state.bytes.count], state.bytes)
            }
        }
        let writer = try SafetensorsWriter(
            path: path,
            replacingExisting: replacingExisting,
            access: access,
            tensors: entries,
            metadata: contents.metadata
        )
        for (name, bytes) in content { try writer.write(bytes, to: name) }
        self.writer = writer
        self.layers = layers
        self.elementType = elementType
        missingRows = layers.map(\.rowCount)
    }

    /// Writes rows of a layer, side by side, of the dump's shape and type.
    ///
    /// - Parameter firstRow: which row of the dump's layer the first one is, where these are only some of them. Every row
    ///   is written once.
    public mutating func write(_ layer: KVCacheLayer, index: Int, firstRow: Int = 0) throws {
        let count = layer.keys.tokens
        precondition(layers.indices.contains(index), "the dump has no such layer")
        let expected = layers[index]
        precondition(firstRow >= 0 && firstRow + count <= expected.rowCount, "the dump has no such rows")
        precondition(missingRows[index] >= count, "every layer is written once")
        missingRows[index] -= count
        for part in CachePart.allCases {
            let tensor = layer[part]
            let dimension = expected.geometry.dimension(part)
            let rowBytes = dimension * elementType.byteCount
            precondition(
                [tensor.heads, tensor.tokens, tensor.headDimension] == [expected.geometry.kvHeads, count, dimension]
                    && tensor.elementType == elementType,
                "a layer must have the dump's shape and type"
            )
            precondition(count <= 1 || tensor.tokenStride == rowBytes, "rows must lie side by side")
            for head in 0..<tensor.heads where count > 0 && rowBytes > 0 {
                let start = head * tensor.headStride
                try writer.write(
                    tensor.bytes[start..<start + count * rowBytes],
                    to: CacheDump.name(index, part.dumpPart),
                    at: (head * expected.rowCount + firstRow) * rowBytes
                )
            }
        }
    }

    /// Lets the dump appear under its name; every layer must have been written.
    public consuming func commit() throws {
        precondition(missingRows.allSatisfy { $0 == 0 }, "a layer was not written")
        try writer.commit()
    }
}

extension CachePart {
    fileprivate var dumpPart: CacheDump.Part { self == .keys ? .keys : .values }
}

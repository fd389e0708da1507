internal import ByteStorage
internal import CThinkKernels
internal import ComputeRuntime
internal import KVCacheModel

/// Keys and values of one layer in full precision, to be written token by token: `[kvHeads, tokens, headDimension]`.
struct LayerBuffer: Sendable {
    private let keys: AlignedBuffer
    private let values: AlignedBuffer
    private let elementType: ElementType
    private let geometry: LayerGeometry
    private let capacity: Int

    init(geometry: LayerGeometry, elementType: ElementType, capacity: Int) throws(MemoryError) {
        self.geometry = geometry
        self.elementType = elementType
        self.capacity = capacity
        let byteCount = geometry.kvHeads * capacity * geometry.keyDimension * elementType.byteCount
        keys = try AlignedBuffer(byteCount: byteCount)
        values = try AlignedBuffer(byteCount: byteCount)
    }

    /// Converts rows of activations to tokens from `token` on.
    func write(_ activations: Activations, count: Int, at token: Int) {
        unsafe write(activations.keys[0], to: keys, count: count, at: token)
        unsafe write(activations.values[0], to: values, count: count, at: token)
    }

    private func write(_ rows: UnsafePointer<Float>, to buffer: AlignedBuffer, count: Int, at token: Int) {
        precondition(token >= 0 && token + count <= capacity, "the buffer has no such tokens")
        let dimension = geometry.keyDimension
        let rowBytes = dimension * elementType.byteCount
        unsafe buffer.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return }
            for row in 0..<count {
                for head in 0..<geometry.kvHeads {
                    unsafe Kernels.best.narrow(
                        elementType.kernelType,
                        rows + (row * geometry.kvHeads + head) * dimension,
                        dimension,
                        base + (head * capacity + token + row) * rowBytes
                    )
                }
            }
        }
    }

    /// Copies the first tokens from a layer of the buffer's shape and element type, whose rows lie side by side.
    func write(_ layer: KVCacheLayer) {
        for (tensor, buffer) in [(layer.keys, keys), (layer.values, values)] {
            let rowBytes = geometry.keyDimension * elementType.byteCount
            precondition(tensor.elementType == elementType && tensor.tokens <= capacity, "the layer does not fit")
            precondition(tensor.heads == geometry.kvHeads && tensor.tokenStride == rowBytes, "the layer does not fit")
            for head in 0..<tensor.heads {
                unsafe tensor.withRows(head: head) { rows in
                    unsafe buffer.withUnsafeMutableBytes { bytes in
                        guard let base = bytes.baseAddress, let start = unsafe rows.bytes else { return }
                        unsafe (base + head * capacity * rowBytes).copyMemory(
                            from: start,
                            byteCount: tensor.tokens * rowBytes
                        )
                    }
                }
            }
        }
    }

    /// Moves rows to the buffer's beginning; nobody may read rows of it any more.
    func moveToBeginning(_ rows: Range<Int>) {
        precondition(rows.lowerBound >= 0 && rows.upperBound <= capacity, "the buffer has no such tokens")
        let rowBytes = geometry.keyDimension * elementType.byteCount
        for buffer in [keys, values] {
            unsafe buffer.withUnsafeMutableBytes { bytes in
                guard let base = bytes.baseAddress else { return }
                for head in 0..<geometry.kvHeads {
                    let start = unsafe base + head * capacity * rowBytes
                    // Both may overlap.
                    unsafe start.copyMemory(from: start + rows.lowerBound * rowBytes, byteCount: rows.count * rowBytes)
                }
            }
        }
    }

    /// The tokens that were written, with the queries that belong to them; they aren't written again.
    ///
    /// - Parameters:
    ///   - held: which of the cache's tokens they are.
    ///   - accumulatedAttention: of each KV head, a number for each of the tokens.
    ///   - outputWeights: the layer's, if the model's are known.
    func layer(
        tokens: Range<Int>,
        held: HeldTokens = .all,
        queries: KVTensor? = nil,
        accumulatedAttention: [[Double]]? = nil,
        outputWeights: [Float]? = nil
    ) -> KVCacheLayer {
        func tensor(_ buffer: AlignedBuffer) -> KVTensor {
            KVTensor(
                bytes: unsafe buffer.shared,
                elementType: elementType,
                heads: geometry.kvHeads,
                tokens: capacity,
                headDimension: geometry.keyDimension
            )[tokens: tokens]
        }
        return KVCacheLayer(
            keys: tensor(keys),
            values: tensor(values),
            held: held,
            queries: queries,
            accumulatedAttention: accumulatedAttention,
            outputWeights: outputWeights
        )
    }
}

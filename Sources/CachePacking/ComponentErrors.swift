internal import CThinkKernels
internal import ComputeRuntime
public import KVCacheModel

/// What codings would do to the components of one KV head's keys or values: measured by packing and restoring them.
public struct ComponentErrors: Sendable {
    /// The sum of squares of each component, in order of the rows: what dropping it loses.
    public let dropping: [Double]
    /// The sum of squared errors of each component with each of the codings, alike.
    public let byCoding: [[Double]]
    /// Rows that were summed up: whole blocks.
    public let rowCount: Int

    /// - Parameters:
    ///   - tensor: keys or values.
    ///   - first: rows before this one, such as sinks, are left out, and so is what fills no block.
    ///   - plan: a plan of the components; its codings don't count.
    ///   - codings: what is tried.
    ///   - blockLength: 32, 64 or 128.
    /// - Returns: nil if a number can't be quantized.
    public init?(
        _ tensor: KVTensor,
        head: Int,
        from first: Int,
        plan: ComponentPlan,
        codings: [Coding],
        blockLength: Int
    ) {
        precondition(BlockShape.blockLengths.contains(blockLength), "a block has 32, 64 or 128 tokens")
        precondition(plan.channelCount == tensor.headDimension, "components are of the tensor's channels")
        let transform = ComponentTransform(plan)
        let start = min((first + blockLength - 1) / blockLength * blockLength, tensor.tokens)
        let blocks = (tensor.tokens - start) / blockLength
        var dropping = [Double](repeating: 0, count: plan.componentCount)
        var byCoding = [[Double]](repeating: dropping, count: codings.count)
        for block in 0..<blocks {
            let row = start + block * blockLength
            let isMeasured = unsafe tensor.withRows(head: head, from: row) { rows in
                unsafe transform.addErrors(
                    of: rows,
                    count: blockLength,
                    codings: codings,
                    dropping: &dropping,
                    byCoding: &byCoding
                )
            }
            guard isMeasured else { return nil }
        }
        self.dropping = dropping
        self.byCoding = byCoding
        rowCount = blocks * blockLength
    }
}

extension ComponentTransform {
    /// Adds what dropping a block's components, and coding them, would lose.
    ///
    /// - Returns: whether all numbers can be quantized.
    fileprivate func addErrors(
        of rows: tck_rows,
        count: Int,
        codings: [Coding],
        dropping: inout [Double],
        byCoding: inout [[Double]]
    ) -> Bool {
        let components = plan.componentCount
        let stride = componentFloats(rows: 1)
        let indices = (0..<UInt16(components)).map { $0 }
        let scaleBytes = 2 * tck_padded_channels(components)
        return unsafe withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * count * stride) { floats in
            guard let turned = floats.baseAddress else { return false }
            let restored = unsafe turned + count * stride
            unsafe restored.initialize(repeating: 0, count: count * stride)
            guard unsafe turn(rows, count: count, into: turned) else { return false }
            for row in 0..<count {
                for component in 0..<components {
                    let number = unsafe Double(turned[row * stride + component])
                    dropping[component] += number * number
                }
            }
            let source = unsafe tck_rows(
                bytes: UnsafeRawPointer(turned),
                token_stride: stride * MemoryLayout<Float>.stride,
                type: TCK_FLOAT32
            )
            for (index, coding) in codings.enumerated() {
                let codeBytes = tck_key_code_bytes(count, components, UInt32(coding.width))
                let isPacked = unsafe withUnsafeTemporaryAllocation(
                    byteCount: codeBytes + 2 * scaleBytes,
                    alignment: 64
                ) { bytes in
                    guard let base = bytes.baseAddress else { return false }
                    return unsafe indices.withUnsafeBufferPointer { indices in
                        let channels = unsafe tck_channels(indices: indices.baseAddress, count: components)
                        let packed = unsafe tck_mutable_packed(
                            codes: base.assumingMemoryBound(to: UInt8.self),
                            scales: base + codeBytes,
                            minima: base + codeBytes + scaleBytes
                        )
                        guard
                            unsafe tck_pack_keys(
                                Kernels.bestPointer,
                                source,
                                count,
                                channels,
                                components,
                                coding.kernelCoding,
                                packed
                            )
                        else { return false }
                        unsafe Kernels.best.unpack_keys(
                            tck_packed(codes: packed.codes, scales: packed.scales, minima: packed.minima),
                            count,
                            channels,
                            components,
                            coding.kernelCoding,
                            tck_mutable_rows(
                                bytes: UnsafeMutableRawPointer(restored),
                                token_stride: stride * MemoryLayout<Float>.stride,
                                type: TCK_FLOAT32
                            )
                        )
                        return true
                    }
                }
                guard isPacked else { return false }
                for row in 0..<count {
                    for component in 0..<components {
                        let at = row * stride + component
                        let error = unsafe Double(turned[at] - restored[at])
                        byCoding[index][component] += error * error
                    }
                }
            }
            return true
        }
    }
}

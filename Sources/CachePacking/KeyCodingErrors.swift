internal import CThinkKernels
internal import ComputeRuntime
public import KVCacheModel

/// What codings would do to the keys of one KV head: measured by packing and restoring them.
public struct KeyCodingErrors: Sendable {
    private let keys: KVTensor
    private let head: Int
    /// Rows of whole blocks.
    private let rows: Range<Int>
    private let means: [Float]
    private let blockLength: Int

    /// - Parameters:
    ///   - first: rows before this one, such as sinks, are left out, and so is what fills no block.
    ///   - means: what centered codings subtract, by channel.
    ///   - blockLength: 32, 64 or 128.
    public init(keys: KVTensor, head: Int, from first: Int, means: [Float], blockLength: Int) {
        precondition(BlockShape.blockLengths.contains(blockLength), "a block has 32, 64 or 128 tokens")
        precondition(means.count == keys.headDimension, "every channel has a mean")
        self.keys = keys
        self.head = head
        let start = min((first + blockLength - 1) / blockLength * blockLength, keys.tokens)
        rows = start..<start + (keys.tokens - start) / blockLength * blockLength
        self.means = means
        self.blockLength = blockLength
    }

    /// The sum of squared errors of each channel with a coding of codes, in order of the rows, as float64.
    ///
    /// - Throws: `PlanError` if the coding is not one for keys.
    /// - Returns: nil if a key can't be quantized.
    public func squaredErrors(with coding: Coding) throws(PlanError) -> [Double]? {
        let dimension = keys.headDimension
        let geometry: LayerGeometry
        do {
            geometry = try LayerGeometry(kvHeads: 1, keyDimension: dimension, valueDimension: 0)
        } catch {
            preconditionFailure("a tensor's dimension is a layer's: \(error)")
        }
        let plan = try HeadPlan(
            keyRuns: [HeadPlan.KeyRun(coding, channels: (0..<UInt16(dimension)).map { $0 })],
            values: .fullPrecision,
            keyMeans: coding.isCentered ? means : [],
            geometry: geometry
        )
        let shape = BlockShape(elementType: keys.elementType, blockLength: blockLength, residualWindow: 0)
        let coder = BlockCoder(plan: plan, shape: shape)
        let noValues = unsafe tck_rows(bytes: nil, token_stride: 0, type: keys.elementType.kernelType)
        return unsafe measure { block, restored in
            unsafe keys.withRows(head: head, from: block) { rows in
                unsafe withUnsafeTemporaryAllocation(byteCount: coder.blockByteCount, alignment: 64) { bytes in
                    guard let base = bytes.baseAddress, unsafe coder.pack(keys: rows, values: noValues, into: base)
                    else { return false }
                    unsafe coder.unpackKeys(
                        of: base,
                        into: tck_mutable_rows(
                            bytes: restored.baseAddress,
                            token_stride: dimension * MemoryLayout<Float>.stride,
                            type: TCK_FLOAT32
                        )
                    )
                    return true
                }
            }
        }
    }

    /// The sum of squared differences of each channel from its mean, over the same rows: what pruning it costs where the
    /// mean stands in.
    public var squaredDeviations: [Double] {
        unsafe measure { _, restored in
            for index in restored.indices { unsafe restored[index] = means[index % means.count] }
            return true
        } ?? []
    }

    /// Adds up what restored keys differ, block by block.
    private func measure(
        _ restore: (_ block: Int, _ restored: UnsafeMutableBufferPointer<Float>) -> Bool
    ) -> [Double]? {
        let dimension = keys.headDimension
        var sums = [Double](repeating: 0, count: dimension)
        let count = blockLength * dimension
        let isDone = unsafe withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * count) { floats in
            unsafe floats.initialize(repeating: 0)
            let restored = unsafe UnsafeMutableBufferPointer(rebasing: floats[count...])
            return unsafe sums.withUnsafeMutableBufferPointer { sums in
                for block in stride(from: rows.lowerBound, to: rows.upperBound, by: blockLength) {
                    guard let original = floats.baseAddress, unsafe restore(block, restored) else { return false }
                    unsafe keys.widenRows(head: head, from: block, count: blockLength, into: original)
                    for token in 0..<blockLength {
                        let start = token * dimension
                        for channel in 0..<dimension {
                            let error = unsafe Double(original[start + channel] - restored[start + channel])
                            unsafe sums[channel] += error * error
                        }
                    }
                }
                return true
            }
        }
        return isDone ? sums : nil
    }

    /// Bytes of a block of so many channels with a coding: codes, scales and minima, but for padding of the whole.
    public static func byteCount(channels: Int, coding: Coding, blockLength: Int) -> Int {
        let kernelCoding = coding.kernelCoding
        return tck_key_code_bytes(blockLength, channels, UInt32(coding.width))
            + 2 * tck_padded_channels(channels) * tck_scale_bytes(kernelCoding)
    }
}

internal import ByteStorage
internal import CThinkCompress
internal import KVCacheModel

/// How a tensor of the caller's lies in memory, checked: no two of its numbers overlap, and all can be addressed.
struct TensorLayout {
    let type: ElementType
    private(set) var heads: Int
    private(set) var tokens: Int
    let channels: Int
    /// Bytes from one to the next.
    private(set) var headStride: Int
    private(set) var tokenStride: Int
    private(set) var channelStride: Int
    private(set) var blockStride: Int

    /// Equal blocks, of which the tensor is one.
    struct Pool {
        let count: Int
        /// Elements from one to the next; 0 for blocks without gaps.
        let stride: Int
        /// What the stride is called.
        let name: String
    }

    /// - Parameters:
    ///   - strides: in elements, of heads, tokens and channels; all 0 for a tensor without gaps.
    ///   - pool: the blocks that the tensor is one of.
    ///   - name: for messages alone; making text takes longer than all else here.
    init(
        type: tc_type,
        heads: Int,
        tokens: Int,
        channels: Int,
        strides: [Int],
        pool: Pool? = nil,
        name: @autoclosure () -> String
    ) throws(Failure) {
        let elementType = try ElementType(type, "\(name()).type")
        var strides = strides
        let (headCount, isHeadTooLong) = tokens.multipliedReportingOverflow(by: channels)
        let (count, isTooLong) = headCount.multipliedReportingOverflow(by: heads)
        guard !isHeadTooLong, !isTooLong else { throw .invalid("\(name()) has more numbers than can be addressed") }
        self.type = elementType
        self.heads = heads
        self.tokens = tokens
        self.channels = channels
        let isDense = strides.allSatisfy { $0 == 0 }
        // What most tensors are, without a look at each dimension: attention has one for every call. Where there are no
        // numbers, strides may be anything.
        if count == 0 || isDense && pool == nil && count < Int.max / 64 {
            channelStride = elementType.byteCount
            tokenStride = channels * channelStride
            headStride = headCount * channelStride
            blockStride = 0
            return
        }
        if isDense { strides = [headCount, channels, 1] }
        var extents = [heads, tokens, channels]
        if let pool {
            extents.append(pool.count)
            strides.append(pool.stride == 0 ? count : pool.stride)
        }
        func invalid(_ axis: Int, _ problem: String) -> Failure {
            let names = ["head_stride", "token_stride", "channel_stride"].map { "\(name()).\($0)" }
            let stride = axis < names.count ? names[axis] : pool?.name ?? ""
            return .invalid("\(stride) is \(UInt(bitPattern: strides[axis])): \(problem)")
        }
        // From the innermost dimension out: each step passes all that lies within it.
        var reach = 0
        for axis in extents.indices.filter({ extents[$0] > 1 }).sorted(by: { strides[$0] < strides[$1] }) {
            guard strides[axis] > reach else { throw invalid(axis, "numbers would overlap") }
            let (length, tooLong) = strides[axis].multipliedReportingOverflow(by: extents[axis] - 1)
            guard !tooLong, length < Int.max / elementType.byteCount - reach - 1 else {
                throw invalid(axis, "more than can be addressed")
            }
            reach += length
        }
        // A stride that is never taken may be anything.
        headStride = heads > 1 ? strides[0] * elementType.byteCount : 0
        tokenStride = tokens > 1 ? strides[1] * elementType.byteCount : 0
        channelStride = channels > 1 ? strides[2] * elementType.byteCount : elementType.byteCount
        blockStride = extents.count > 3 && extents[3] > 1 ? strides[3] * elementType.byteCount : 0
    }

    /// The same numbers without gaps.
    var dense: TensorLayout {
        var layout = self
        layout.channelStride = type.byteCount
        layout.tokenStride = channels * layout.channelStride
        layout.headStride = tokens * layout.tokenStride
        return layout
    }

    /// The layout of each head.
    var oneHead: TensorLayout {
        var layout = self
        layout.heads = 1
        return layout
    }

    /// The layout of some of the tokens, or of more that lie in the same way.
    func ofTokens(_ count: Int) -> TensorLayout {
        var layout = self
        layout.tokens = count
        return layout
    }

    var byteCount: Int { heads * tokens * channels * type.byteCount }

    /// Bytes from the first number to the end of the last one.
    var reach: Int {
        guard byteCount > 0 else { return 0 }
        return (heads - 1) * headStride + (tokens - 1) * tokenStride + (channels - 1) * channelStride + type.byteCount
    }

    /// Whether the channels of a token lie side by side.
    var hasWholeRows: Bool { channelStride == type.byteCount }

    /// Whether the rows of a head lie side by side.
    var hasDenseRows: Bool {
        hasWholeRows && (tokens <= 1 || tokenStride == channels * type.byteCount)
    }

    /// Copies numbers to where another layout of the same type and shape has them.
    func copy(from source: UnsafeRawPointer, to destination: UnsafeMutableRawPointer, layout: TensorLayout) {
        func copyRows<Element: BitwiseCopyable>(_: Element.Type) {
            let areRowsWhole = hasWholeRows && layout.hasWholeRows
            for head in 0..<heads {
                for token in 0..<tokens {
                    let from = unsafe source + head * headStride + token * tokenStride
                    let to = unsafe destination + head * layout.headStride + token * layout.tokenStride
                    if areRowsWhole {
                        unsafe to.copyMemory(from: from, byteCount: channels * type.byteCount)
                        continue
                    }
                    for channel in 0..<channels {
                        let number = unsafe from.loadUnaligned(
                            fromByteOffset: channel * channelStride,
                            as: Element.self
                        )
                        unsafe to.storeBytes(
                            of: number,
                            toByteOffset: channel * layout.channelStride,
                            as: Element.self
                        )
                    }
                }
            }
        }
        switch type {
        case .float16, .bfloat16: copyRows(UInt16.self)
        case .float32: copyRows(UInt32.self)
        }
    }
}

/// Where the tokens of a tensor of the caller's are: in one piece, or in blocks of a pool.
struct TensorPlaces {
    /// Tokens that lie one after another.
    struct Run {
        /// Where they begin, in bytes.
        let offset: Int
        /// Which they are.
        let tokens: Range<Int>
    }

    /// Of all tokens, or of those of a block.
    let layout: TensorLayout
    let tokens: Int
    let runs: [Run]

    /// - Parameters:
    ///   - strides: in elements, of heads, tokens and channels.
    ///   - blocks: where the tokens are, if they are paged.
    ///   - part: whether the tensor has keys or values.
    init(
        type: tc_type,
        heads: Int,
        tokens: Int,
        channels: Int,
        strides: [Int],
        blocks: BlockTable? = nil,
        part: CachePart = .keys,
        name: @autoclosure () -> String
    ) throws(Failure) {
        self.tokens = tokens
        layout = try TensorLayout(
            type: type,
            heads: heads,
            tokens: blocks?.blockTokens ?? tokens,
            channels: channels,
            strides: strides,
            pool: blocks?.pool(part),
            name: name()
        )
        let layout = layout
        runs =
            blocks?.runs(of: tokens).map { run in
                let offset = run.block * layout.blockStride + run.row * layout.tokenStride
                return Run(offset: offset, tokens: run.tokens)
            } ?? [Run(offset: 0, tokens: 0..<tokens)]
    }

    var byteCount: Int { layout.ofTokens(tokens).byteCount }

    /// Copies the numbers to memory where they lie as `[heads, tokens, channels]` without gaps.
    func copy(from source: UnsafeRawPointer, to destination: UnsafeMutableRawPointer) {
        let whole = layout.ofTokens(tokens).dense
        for run in runs {
            let part = layout.ofTokens(run.tokens.count)
            let to = unsafe destination + run.tokens.lowerBound * whole.tokenStride
            unsafe part.copy(from: source + run.offset, to: to, layout: whole)
        }
    }

    /// Copies a head's numbers from memory where they lie as `[tokens, channels]` without gaps.
    func copyHead(_ head: Int, from source: UnsafeRawPointer, to destination: UnsafeMutableRawPointer) {
        let whole = layout.ofTokens(tokens).oneHead.dense
        for run in runs {
            let part = layout.ofTokens(run.tokens.count).oneHead
            let to = unsafe destination + run.offset + head * layout.headStride
            let from = unsafe source + run.tokens.lowerBound * whole.tokenStride
            unsafe whole.ofTokens(run.tokens.count).copy(from: from, to: to, layout: part)
        }
    }
}

/// Owns memory of the caller's, which the caller keeps as it is until the call returns.
private final class CallersMemory: Sendable {
    static let shared = CallersMemory()
}

/// What is made of a tensor of the caller's.
enum TensorUse {
    /// A copy without gaps, for as long as it is needed.
    case kept
    /// What need not outlive the call: where the channels of a token lie side by side, the tensor where it is.
    case duringCall
}

extension KVTensor {
    /// A tensor of the caller's.
    ///
    /// - Parameters:
    ///   - blocks: where the tokens are, if they are paged.
    ///   - part: whether it has keys or values.
    init(
        _ use: TensorUse,
        _ tensor: tc_tensor,
        heads: Int,
        tokens: Int,
        channels: Int,
        blocks: BlockTable? = nil,
        part: CachePart = .keys,
        name: @autoclosure () -> String
    ) throws {
        let places = unsafe try TensorPlaces(
            type: tensor.type,
            heads: heads,
            tokens: tokens,
            channels: channels,
            strides: [tensor.head_stride, tensor.token_stride, tensor.channel_stride],
            blocks: blocks,
            part: part,
            name: name()
        )
        let data = unsafe tensor.data
        guard unsafe data != nil || places.byteCount == 0 else { throw Failure.null("\(name()).data") }
        let layout = places.layout
        if use == .duringCall, blocks == nil, layout.hasWholeRows, places.byteCount > 0, let data = unsafe data {
            unsafe self.init(
                bytes: SharedBytes(owner: CallersMemory.shared, base: data, count: layout.reach),
                elementType: layout.type,
                heads: heads,
                tokens: tokens,
                headDimension: channels,
                headStride: layout.headStride,
                tokenStride: tokens > 1 ? layout.tokenStride : nil
            )
            return
        }
        let bytes = try SharedBytes(byteCount: places.byteCount) { copy in
            unsafe copy.withUnsafeMutableBytes { copy in
                guard let source = unsafe data, let base = copy.baseAddress else { return }
                unsafe places.copy(from: source, to: base)
            }
        }
        self.init(bytes: bytes, elementType: layout.type, heads: heads, tokens: tokens, headDimension: channels)
    }
}

extension KVCacheLayer {
    /// A layer of the caller's.
    ///
    /// - Parameters:
    ///   - tokens: those of the cache, or those that it gets; nil where the layer says how many there are.
    ///   - takesQueries: whether its queries are looked at, and what else recipes ask for.
    init(
        _ use: TensorUse,
        _ layer: tc_layer,
        geometry: LayerGeometry,
        elementType: ElementType,
        tokens: Int?,
        takesQueries: Bool,
        name: String
    ) throws {
        guard !geometry.isEmpty else {
            self.init(elementType: elementType)
            return
        }
        let limit = tokens ?? CacheGeometry.Limits.tokens.upperBound
        unsafe try ((tokens == nil ? 1 : 0)...limit).check(layer.tokens, "\(name).tokens")
        let rows = unsafe layer.tokens == 0 ? tokens ?? 0 : layer.tokens
        let blocks = unsafe try layer.blocks.map { table in
            unsafe try BlockTable(table, tokens: rows, isWritten: false, name: "\(name).blocks")
        }
        func tensor(_ part: CachePart, _ tensor: tc_tensor) throws -> KVTensor {
            unsafe try KVTensor(
                use,
                tensor,
                heads: geometry.kvHeads,
                tokens: rows,
                channels: geometry.dimension(part),
                blocks: blocks,
                part: part,
                name: "\(name).\(part)"
            )
        }
        /// Numbers of each KV head.
        func numbers(_ numbers: UnsafePointer<Float>?, perHead count: Int, _ member: String) throws -> [Float]? {
            guard takesQueries, let list = unsafe array(numbers, count: geometry.kvHeads * count) else { return nil }
            guard list.allSatisfy({ $0.isFinite && $0 >= 0 }) else {
                throw Failure.invalid("\(name).\(member) has a number below 0, or that is not finite")
            }
            return list
        }
        var queries: KVTensor?
        if takesQueries, unsafe layer.query_count != 0 {
            unsafe try CacheGeometry.Limits.tokens.check(layer.query_count, "\(name).query_count")
            guard geometry.queryHeads > 0 else {
                throw Failure.invalid("\(name) has queries, and query_heads of its shape is 0")
            }
            queries = unsafe try KVTensor(
                use,
                layer.queries,
                heads: geometry.queryHeads,
                tokens: layer.query_count,
                channels: geometry.keyDimension,
                name: "\(name).queries"
            )
        }
        unsafe self.init(
            keys: try tensor(.keys, layer.keys),
            values: try tensor(.values, layer.values),
            held: rows < tokens ?? rows ? .last : .all,
            queries: queries,
            accumulatedAttention: try numbers(layer.accumulated_attention, perHead: rows, "accumulated_attention").map {
                weights in
                (0..<geometry.kvHeads).map { head in weights[head * rows..<(head + 1) * rows].map(Double.init) }
            },
            outputWeights: try numbers(layer.output_weights, perHead: geometry.valueDimension, "output_weights")
        )
    }
}

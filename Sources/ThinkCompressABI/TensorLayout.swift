internal import ByteStorage
internal import CThinkCompress
internal import KVCacheModel

/// How a tensor of the caller's lies in memory, checked: no two of its numbers overlap, and all can be addressed.
struct TensorLayout {
    let type: ElementType
    private(set) var heads: Int
    let tokens: Int
    let channels: Int
    /// Bytes from one to the next.
    private(set) var headStride: Int
    private(set) var tokenStride: Int
    private(set) var channelStride: Int

    /// - Parameter strides: in elements, of heads, tokens and channels; all 0 for a tensor without gaps.
    init(
        type: tc_type,
        heads: Int,
        tokens: Int,
        channels: Int,
        strides: [Int],
        name: String
    ) throws(Failure) {
        guard let elementType = ElementType(rawValue: type.rawValue) else {
            throw .invalid("\(name).type is \(type.rawValue), must be 1 to 3")
        }
        var strides = strides
        if strides.allSatisfy({ $0 == 0 }) {
            let (headStride, overflow) = tokens.multipliedReportingOverflow(by: channels)
            guard !overflow else { throw .invalid("\(name) has more numbers than can be addressed") }
            strides = [headStride, channels, 1]
        }
        let names = ["head_stride", "token_stride", "channel_stride"]
        let extents = [heads, tokens, channels]
        // From the innermost dimension out: each step passes all that lies within it.
        var reach = 0
        for axis in extents.indices.filter({ extents[$0] > 1 }).sorted(by: { strides[$0] < strides[$1] }) {
            guard strides[axis] > reach else {
                throw .invalid("\(name).\(names[axis]) is \(strides[axis]): numbers would overlap")
            }
            let (length, tooLong) = strides[axis].multipliedReportingOverflow(by: extents[axis] - 1)
            guard !tooLong, length < Int.max / elementType.byteCount - reach - 1 else {
                throw .invalid("\(name).\(names[axis]) is \(strides[axis]): more than can be addressed")
            }
            reach += length
        }
        self.type = elementType
        self.heads = heads
        self.tokens = tokens
        self.channels = channels
        // A stride that is never taken may be anything.
        headStride = heads > 1 ? strides[0] * elementType.byteCount : 0
        tokenStride = tokens > 1 ? strides[1] * elementType.byteCount : 0
        channelStride = channels > 1 ? strides[2] * elementType.byteCount : elementType.byteCount
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

    var byteCount: Int { heads * tokens * channels * type.byteCount }

    /// Whether the rows of a head lie side by side.
    var hasDenseRows: Bool {
        channelStride == type.byteCount && (tokens <= 1 || tokenStride == channels * type.byteCount)
    }

    /// Copies numbers to where another layout of the same type and shape has them.
    func copy(from source: UnsafeRawPointer, to destination: UnsafeMutableRawPointer, layout: TensorLayout) {
        func copyRows<Element: BitwiseCopyable>(_: Element.Type) {
            let areRowsWhole = channelStride == type.byteCount && layout.channelStride == type.byteCount
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

extension KVTensor {
    /// A copy of a tensor of the caller's, without gaps.
    init(
        copying tensor: tc_tensor,
        heads: Int,
        tokens: Int,
        channels: Int,
        name: String
    ) throws {
        let layout = unsafe try TensorLayout(
            type: tensor.type,
            heads: heads,
            tokens: tokens,
            channels: channels,
            strides: [tensor.head_stride, tensor.token_stride, tensor.channel_stride],
            name: name
        )
        let data = unsafe tensor.data
        guard unsafe data != nil || layout.byteCount == 0 else { throw Failure.null("\(name).data") }
        let bytes = try SharedBytes(byteCount: layout.byteCount) { copy in
            unsafe copy.withUnsafeMutableBytes { copy in
                guard let source = unsafe data, let base = copy.baseAddress else { return }
                unsafe layout.copy(from: source, to: base, layout: layout.dense)
            }
        }
        self.init(bytes: bytes, elementType: layout.type, heads: heads, tokens: tokens, headDimension: channels)
    }
}

extension KVCacheLayer {
    /// A copy of a layer of the caller's.
    ///
    /// - Parameters:
    ///   - tokens: those of the cache, or those that it gets; nil where the layer says how many there are.
    ///   - takesQueries: whether its queries are looked at.
    init(
        copying layer: tc_layer,
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
        func tensor(_ tensor: tc_tensor, heads: Int, tokens: Int, channels: Int, _ part: String) throws -> KVTensor {
            unsafe try KVTensor(
                copying: tensor,
                heads: heads,
                tokens: tokens,
                channels: channels,
                name: "\(name).\(part)"
            )
        }
        var queries: KVTensor?
        if takesQueries, unsafe layer.query_count != 0 {
            unsafe try CacheGeometry.Limits.tokens.check(layer.query_count, "\(name).query_count")
            guard geometry.queryHeads > 0 else {
                throw Failure.invalid("\(name) has queries, and query_heads of its shape is 0")
            }
            queries = unsafe try tensor(
                layer.queries,
                heads: geometry.queryHeads,
                tokens: layer.query_count,
                channels: geometry.keyDimension,
                "queries"
            )
        }
        unsafe self.init(
            keys: try tensor(
                layer.keys,
                heads: geometry.kvHeads,
                tokens: rows,
                channels: geometry.keyDimension,
                "keys"
            ),
            values: try tensor(
                layer.values,
                heads: geometry.kvHeads,
                tokens: rows,
                channels: geometry.valueDimension,
                "values"
            ),
            held: rows < tokens ?? rows ? .last : .all,
            queries: queries
        )
    }
}

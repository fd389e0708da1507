import CThinkCompress
import TestSupport
import ThinkCompress

/// How a tensor lies in an engine's memory.
enum Layout: CaseIterable, Sendable {
    /// `[heads, tokens, channels]`, said by strides of 0.
    case dense
    /// `[tokens, heads, channels]`.
    case tokensFirst
    /// `[heads, channels, tokens]`.
    case transposed

    func strides(heads: Int, tokens: Int, channels: Int) -> [Int] {
        switch self {
        case .dense: [0, 0, 0]
        case .tokensFirst: [channels, heads * channels, 1]
        case .transposed: [channels * tokens, 1, tokens]
        }
    }

    /// Where a number lies, in elements.
    func place(head: Int, token: Int, channel: Int, heads: Int, tokens: Int, channels: Int) -> Int {
        switch self {
        case .dense: (head * tokens + token) * channels + channel
        case .tokensFirst: (token * heads + head) * channels + channel
        case .transposed: (head * channels + channel) * tokens + token
        }
    }
}

/// Memory of an engine's.
final class EngineMemory: @unchecked Sendable {
    let start: UnsafeMutableRawPointer
    let byteCount: Int

    init(byteCount: Int) {
        start = .allocate(byteCount: max(byteCount, 1), alignment: 64)
        start.initializeMemory(as: UInt8.self, repeating: 0xAB, count: byteCount)
        self.byteCount = byteCount
    }

    deinit { start.deallocate() }

    var bytes: [UInt8] { Array(UnsafeRawBufferPointer(start: start, count: byteCount)) }
}

/// A tensor in memory of an engine's.
struct EngineTensor: Sendable {
    let memory: EngineMemory
    let type: ElementType
    let heads: Int
    let tokens: Int
    let channels: Int
    let layout: Layout

    /// One without numbers yet.
    init(type: ElementType, heads: Int, tokens: Int, channels: Int, layout: Layout) {
        memory = EngineMemory(byteCount: heads * tokens * channels * type.byteCount)
        self.type = type
        self.heads = heads
        self.tokens = tokens
        self.channels = channels
        self.layout = layout
    }

    /// The numbers of a tensor in another layout.
    init(_ tensor: KVTensor, layout: Layout = .dense) {
        self.init(
            type: tensor.elementType,
            heads: tensor.heads,
            tokens: tensor.tokens,
            channels: tensor.headDimension,
            layout: layout
        )
        forEach { head, token, channel, place in
            for byte in 0..<type.byteCount {
                let offset = head * tensor.headStride + token * tensor.tokenStride + channel * type.byteCount + byte
                memory.start.storeBytes(of: tensor.bytes.byte(at: offset), toByteOffset: place + byte, as: UInt8.self)
            }
        }
    }

    /// Each number's head, token, channel, and its byte in memory.
    private func forEach(_ body: (Int, Int, Int, Int) -> Void) {
        for head in 0..<heads {
            for token in 0..<tokens {
                for channel in 0..<channels {
                    let place = layout.place(
                        head: head,
                        token: token,
                        channel: channel,
                        heads: heads,
                        tokens: tokens,
                        channels: channels
                    )
                    body(head, token, channel, place * type.byteCount)
                }
            }
        }
    }

    private var strides: [Int] { layout.strides(heads: heads, tokens: tokens, channels: channels) }

    var argument: tc_tensor {
        tc_tensor(
            data: memory.start,
            type: tc_type(rawValue: type.rawValue),
            head_stride: strides[0],
            token_stride: strides[1],
            channel_stride: strides[2]
        )
    }

    var mutableArgument: tc_mutable_tensor {
        tc_mutable_tensor(
            data: memory.start,
            type: tc_type(rawValue: type.rawValue),
            head_stride: strides[0],
            token_stride: strides[1],
            channel_stride: strides[2]
        )
    }

    /// The bytes in the order `[heads, tokens, channels]`.
    var denseBytes: [UInt8] {
        var bytes: [UInt8] = []
        forEach { _, _, _, place in
            for byte in 0..<type.byteCount {
                bytes.append(memory.start.load(fromByteOffset: place + byte, as: UInt8.self))
            }
        }
        return bytes
    }
}

/// A layer in memory of an engine's.
struct EngineLayer: Sendable {
    let keys: EngineTensor
    let values: EngineTensor
    let queries: EngineTensor?

    init(_ layer: KVCacheLayer, layout: Layout = .dense) {
        keys = EngineTensor(layer.keys, layout: layout)
        values = EngineTensor(layer.values, layout: layout)
        queries = layer.queries.map { EngineTensor($0, layout: layout) }
    }

    var argument: tc_layer {
        var layer = tc_layer()
        layer.size = MemoryLayout<tc_layer>.size
        (layer.keys, layer.values, layer.tokens) = (keys.argument, values.argument, keys.tokens)
        if let queries { (layer.queries, layer.query_count) = (queries.argument, queries.tokens) }
        return layer
    }
}

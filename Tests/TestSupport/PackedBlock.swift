public import ThinkCompress

/// Reads single codes of a block whose keys are one run of all channels, by the formulas of Formats/kivi.md; the block
/// length must be 32.
public struct PackedBlock {
    public struct Number: Equatable {
        public let code: Int
        public let scale: Float
        public let minimum: Float
    }

    private let bytes: [UInt8]
    private let bits: Int
    private let channels: Int
    private let dimension: Int

    /// - Parameter bits: the width of keys and values.
    public init(layer: CompressedLayer, block: Int, head: Int, bits: Int) {
        self.init(
            bytes: layer.block(block, head: head).array,
            bits: bits,
            keptChannels: layer.plan.heads[head].keptChannelCount,
            headDimension: layer.geometry.keyDimension
        )
    }

    public init(bytes: [UInt8], bits: Int, keptChannels: Int, headDimension: Int) {
        self.bytes = bytes
        self.bits = bits
        channels = keptChannels
        dimension = headDimension
    }

    private var quads: Int { (channels + 3) / 4 }
    private var keyCodeBytes: Int { CodePlace.keyBytes(count: channels, bits: bits) }
    private var valueStart: Int { (keyCodeBytes + 2 * 4 * quads * 2 + 63) / 64 * 64 }
    private var valueCodeBytes: Int { CodePlace.valueBytes(tokens: 32, headDimension: dimension, bits: bits) }
    private var groups: Int { (dimension + 31) / 32 }

    /// The key of a token of the block and of the run's channel `index`.
    public func key(_ token: Int, _ index: Int) -> Number {
        Number(
            code: code(at: .key(token: token, index: index, count: channels, bits: bits), start: 0),
            scale: half(keyCodeBytes + 2 * index),
            minimum: half(keyCodeBytes + 2 * (4 * quads + index))
        )
    }

    /// The value of a token of the block and of a channel.
    public func value(_ token: Int, _ channel: Int) -> Number {
        let place = CodePlace.value(token: token, channel: channel, headDimension: dimension, bits: bits)
        let group = (token / 4 * groups + channel / 32) * 4 + token % 4
        let scales = valueStart + valueCodeBytes
        return Number(
            code: code(at: place, start: valueStart),
            scale: half(scales + 2 * group),
            minimum: half(scales + 2 * (32 * groups + group))
        )
    }

    private func code(at place: CodePlace, start: Int) -> Int {
        place.code(in: bytes[start...])
    }

    private func half(_ offset: Int) -> Float {
        Float(Float16(bitPattern: UInt16(bytes[offset]) | UInt16(bytes[offset + 1]) << 8))
    }
}

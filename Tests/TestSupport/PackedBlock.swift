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

    private var unitsPerLine: Int { 8 / bits }
    private var quads: Int { (channels + 3) / 4 }
    private var keyCodeBytes: Int { (2 * quads + unitsPerLine - 1) / unitsPerLine * 64 }
    private var valueStart: Int { (keyCodeBytes + 2 * 4 * quads * 2 + 63) / 64 * 64 }
    private var sixteens: Int { (dimension + 15) / 16 }
    private var valueCodeBytes: Int { (8 * sixteens + unitsPerLine - 1) / unitsPerLine * 64 }
    private var groups: Int { (dimension + 31) / 32 }

    /// The key of a token of the block and of the run's channel `index`.
    public func key(_ token: Int, _ index: Int) -> Number {
        let code = code(unit: 2 * (index / 4) + token / 16, byte: token % 16 * 4 + index % 4, start: 0)
        return Number(
            code: code,
            scale: half(keyCodeBytes + 2 * index),
            minimum: half(keyCodeBytes + 2 * (4 * quads + index))
        )
    }

    /// The value of a token of the block and of a channel.
    public func value(_ token: Int, _ channel: Int) -> Number {
        let code = code(
            unit: token / 4 * sixteens + channel / 16,
            byte: channel % 16 * 4 + token % 4,
            start: valueStart
        )
        let group = (token / 4 * groups + channel / 32) * 4 + token % 4
        let scales = valueStart + valueCodeBytes
        return Number(code: code, scale: half(scales + 2 * group), minimum: half(scales + 2 * (32 * groups + group)))
    }

    private func code(unit: Int, byte: Int, start: Int) -> Int {
        let line = start + unit / unitsPerLine * 64
        return Int(bytes[line + byte]) >> (unit % unitsPerLine * bits) & (1 << bits - 1)
    }

    private func half(_ offset: Int) -> Float {
        Float(Float16(bitPattern: UInt16(bytes[offset]) | UInt16(bytes[offset + 1]) << 8))
    }
}

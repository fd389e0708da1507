import ThinkCompress

/// What is measured of one recipe on one layer: compressing it, restoring it, and copying as many bytes.
///
/// Memory that is written to is made once. One thread at a time may use an object.
public final class CodecWork: @unchecked Sendable {
    private let layer: SyntheticLayer
    private let recipe: Recipe
    private var compressed: CompressedLayer?
    // Not lazy: what writes to a lazy array copies it.
    private var copied: [UInt8] = []
    private var restored: [UInt8] = []

    public init(layer: SyntheticLayer, recipe: Recipe) {
        self.layer = layer
        self.recipe = recipe
    }

    /// Bytes of keys and values in float16.
    public var byteCount: Int { layer.byteCount }

    /// Copies keys and values.
    public func copy() {
        if copied.isEmpty { copied = [UInt8](repeating: 1, count: layer.byteCount) }
        copied.withUnsafeMutableBytes { buffer in
            for (offset, tensor) in [(0, layer.keys), (layer.keys.byteCount, layer.values)] {
                tensor.bytes.span.withUnsafeBytes { source in
                    buffer[offset..<offset + source.count].copyBytes(from: source)
                }
            }
        }
    }

    /// Frees what `compress` has made, so that this isn't measured with it.
    public func discard() { compressed = nil }

    /// Decides what to prune and packs the layer.
    public func compress() throws {
        compressed = try layer.compressed(by: recipe)
    }

    /// Restores the layer to float16; compresses it first if that hasn't been done.
    public func restore() throws {
        let compressed = try self.compressed ?? layer.compressed(by: recipe)
        self.compressed = compressed
        if restored.isEmpty { restored = [UInt8](repeating: 1, count: layer.byteCount) }
        restore(compressed, into: &restored)
    }

    private func restore(_ compressed: CompressedLayer, into output: inout [UInt8]) {
        let headBytes = layer.byteCount / 2 / SyntheticLayer.kvHeads
        var offset = 0
        var span = output.mutableSpan
        for part in CachePart.allCases {
            for head in 0..<SyntheticLayer.kvHeads {
                var rows = span._mutatingExtracting(offset..<offset + headBytes)
                var bytes = rows.mutableBytes
                compressed.decompress(part, head: head, rows: 0..<layer.tokens, as: .float16, into: &bytes)
                offset += headBytes
            }
        }
    }
}

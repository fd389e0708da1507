package import KVCacheModel

/// A number that a codec refuses, and where it is.
package struct UnsupportedValue {
    let head: Int
    let token: Int
    let channel: Int
    let value: Float
    let name: String

    /// The first number of a head, token by token, that is not supported.
    ///
    /// - Parameters:
    ///   - channels: whether each channel is looked at; nil for all of them.
    ///   - isSupported: whether a number is; finite ones are, if nothing is said.
    package static func first(
        in tensor: KVTensor,
        head: Int,
        tokens: Range<Int>? = nil,
        channels: [Bool]? = nil,
        name: String,
        isSupported: (Float) -> Bool = \.isFinite
    ) -> UnsupportedValue? {
        var row = [Float](repeating: 0, count: tensor.headDimension)
        for token in tokens ?? 0..<tensor.tokens {
            unsafe row.withUnsafeMutableBufferPointer { buffer in
                guard let base = buffer.baseAddress else { return }
                unsafe tensor.widenRows(head: head, from: token, count: 1, into: base)
            }
            guard let channel = row.indices.first(where: { channels?[$0] ?? true && !isSupported(row[$0]) })
            else { continue }
            return UnsupportedValue(head: head, token: token, channel: channel, value: row[channel], name: name)
        }
        return nil
    }

    /// - Parameter token: the cache's token that the value is of; nil for the tensor's.
    package func error(layer: Int, token: Int? = nil) -> CodecError {
        let reason =
            value.isFinite
            ? "is \(value), beyond \(BlockCoder.maximumMagnitude), what float16 scales can say" : "is \(value)"
        return CodecError(
            .unsupportedValue,
            layer: layer,
            head: head,
            token: token ?? self.token,
            channel: channel,
            "a \(name) \(reason); only the codecs f16, bf16 and f32 take such a cache"
        )
    }
}

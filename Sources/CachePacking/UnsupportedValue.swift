package import KVCacheModel

/// A number that a codec refuses, and where it is.
package struct UnsupportedValue {
    package let head: Int
    package let row: Int
    let channel: Int
    let value: Float
    let name: String

    /// The first number of a head, row by row, that is not supported.
    ///
    /// - Parameters:
    ///   - channels: whether each channel is looked at; nil for all of them.
    ///   - isSupported: whether a number is; finite ones are, if nothing is said.
    package static func first(
        in tensor: KVTensor,
        head: Int,
        rows: Range<Int>? = nil,
        channels: [Bool]? = nil,
        name: String,
        isSupported: (Float) -> Bool = \.isFinite
    ) -> UnsupportedValue? {
        var numbers = [Float](repeating: 0, count: tensor.headDimension)
        for row in rows ?? 0..<tensor.tokens {
            unsafe numbers.withUnsafeMutableBufferPointer { buffer in
                guard let base = buffer.baseAddress else { return }
                unsafe tensor.widenRows(head: head, from: row, count: 1, into: base)
            }
            guard let channel = numbers.indices.first(where: { channels?[$0] ?? true && !isSupported(numbers[$0]) })
            else { continue }
            return UnsupportedValue(head: head, row: row, channel: channel, value: numbers[channel], name: name)
        }
        return nil
    }

    /// - Parameters:
    ///   - token: the cache's token that the row is of.
    ///   - remedy: what to do about it.
    package func error(
        layer: Int,
        token: Int,
        remedy: String = "only full precision (f16, bf16, f32) takes such a cache"
    ) -> CodecError {
        let reason =
            value.isFinite
            ? "is \(value), beyond \(Coding.maximumMagnitude), what float16 scales can say" : "is \(value)"
        return CodecError(
            .unsupportedValue,
            layer: layer,
            head: head,
            token: token,
            channel: channel,
            "a \(name) \(reason); \(remedy)"
        )
    }
}

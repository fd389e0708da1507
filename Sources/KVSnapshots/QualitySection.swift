internal import ByteStorage
internal import CachePacking

/// The QUALITY section: Formats/snapshot.md.
enum QualitySection {
    static let rowBytes = 4 * MemoryLayout<Float>.size
    private static let notMeasured: Float = -1

    static func encode(_ quality: CompressionQuality) -> [UInt8] {
        var writer = ByteWriter()
        for errors in quality.layers + [quality.total] {
            for value in [errors.keys, errors.values, errors.scores, errors.attention] {
                writer.append(value ?? notMeasured)
            }
        }
        return writer.bytes
    }

    static func decode(_ reader: inout ByteReader, layers: Int) throws(SnapshotError) -> CompressionQuality {
        func measured() throws(SnapshotError) -> Float {
            let start = reader.position
            let value = try reader.float("an error")
            guard value >= 0 else { throw reader.error(at: start, "an error is \(value), must not be negative") }
            return value
        }
        func optional() throws(SnapshotError) -> Float? {
            var ahead = reader
            guard try ahead.float("an error") == notMeasured else { return try measured() }
            reader = ahead
            return nil
        }
        var rows: [CompressionQuality.Errors] = []
        for _ in 0...layers {
            let (keys, values) = (try measured(), try measured())
            let (scores, attention) = (try optional(), try optional())
            rows.append(CompressionQuality.Errors(keys: keys, values: values, scores: scores, attention: attention))
        }
        try reader.expectEnd()
        return CompressionQuality(layers: Array(rows.dropLast()), total: rows[layers])
    }
}

internal import ByteStorage

/// The METADATA section: Formats/snapshot.md.
enum MetadataSection {
    /// Appends pairs in the order given.
    static func encode(_ pairs: [(key: String, value: String)], into writer: inout ByteWriter) {
        for (key, value) in pairs {
            writer.appendText(key)
            writer.appendText(value)
        }
    }

    /// The metadata's pairs in the order of the file: by the bytes of their keys.
    static func sorted(_ metadata: [String: String]) -> [(key: String, value: String)] {
        metadata.map { ($0.key, $0.value) }.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
    }

    static func encode(_ metadata: [String: String]) -> [UInt8] {
        var writer = ByteWriter()
        writer.append(UInt32(metadata.count))
        encode(sorted(metadata), into: &writer)
        return writer.bytes
    }

    static func decode(_ reader: inout ByteReader) throws(SnapshotError) -> [String: String] {
        var metadata: [String: String] = [:]
        let count = try reader.integer(UInt32.self, "the number of pairs", in: 1...SnapshotFormat.maximumMetadataPairs)
        var former: String?
        for _ in 0..<count {
            let start = reader.position + MemoryLayout<UInt32>.size
            let key = try reader.text("a key", lengths: 1...SnapshotFormat.maximumMetadataKeyBytes)
            if let former, !former.utf8.lexicographicallyPrecedes(key.utf8) {
                throw reader.error(at: start, "the key '\(key)' is out of order")
            }
            former = key
            metadata[key] = try reader.text("a value", lengths: 0...SnapshotFormat.maximumMetadataValueBytes)
        }
        try reader.expectEnd()
        // Keys that differ in bytes may be equal as Swift strings; a file with such keys would lose one of them.
        guard metadata.count == count else { throw reader.error(at: 0, "two keys are equal but for their encoding") }
        return metadata
    }

    /// Why metadata can't be written, or nil.
    static func problem(with metadata: [String: String]) -> String? {
        if metadata.count > SnapshotFormat.maximumMetadataPairs {
            return
                "\(metadata.count) metadata entries are more than \(SnapshotFormat.maximumMetadataPairs); leave some out"
        }
        for (key, value) in metadata {
            if !(1...SnapshotFormat.maximumMetadataKeyBytes).contains(key.utf8.count) {
                return
                    "the metadata key '\(key.prefix(40))' must have 1...\(SnapshotFormat.maximumMetadataKeyBytes) bytes"
            }
            if value.utf8.count > SnapshotFormat.maximumMetadataValueBytes {
                return "the metadata of '\(key)' has more than \(SnapshotFormat.maximumMetadataValueBytes) bytes"
            }
        }
        return nil
    }
}

internal import ByteStorage
internal import CachePacking
internal import KVCacheModel

/// The HELD TOKENS section: Formats/snapshot.md.
enum HeldTokensSection {
    static func encode(_ layers: [HeldTokens]) -> [UInt8] {
        var writer = ByteWriter()
        for case .listed(let lists) in layers {
            for token in lists.joined() { writer.append(token) }
        }
        return writer.bytes
    }

    /// Reads what each layer holds.
    static func decode(
        _ reader: inout ByteReader,
        layers: [LayerOutline],
        tokenCount: Int
    ) throws(SnapshotError) -> [Int: HeldTokens] {
        var held: [Int: HeldTokens] = [:]
        for (index, layer) in layers.enumerated() where layer.held == .listed {
            var lists: [[UInt32]] = []
            for _ in 0..<layer.geometry.kvHeads {
                let start = reader.position
                let list = try reader.integers(UInt32.self, count: layer.extent.rowCount, "a held token")
                for (row, token) in list.enumerated() {
                    guard token < tokenCount, row == 0 || list[row - 1] < token, row >= layer.sinks || token == row
                    else {
                        throw reader.error(
                            at: start + row * MemoryLayout<UInt32>.size,
                            "held token \(token) is out of order, beyond the cache, or no sink where one must be"
                        )
                    }
                }
                lists.append(list)
            }
            held[index] = .listed(lists)
        }
        try reader.expectEnd()
        return held
    }
}

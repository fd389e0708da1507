/// Snapshots that no writer makes.
extension SnapshotSurgery {
    /// A snapshot put together from its sections: kind, stored bytes, and the length after decoding where they are a
    /// frame.
    public init(
        layers: Int,
        tokens: Int = 1,
        sections: [(kind: Int, stored: [UInt8], length: Int?)]
    ) {
        var table: [UInt8] = []
        var body: [UInt8] = []
        let start = Self.headerBytes + sections.count * Self.entryBytes
        for section in sections {
            body += [UInt8](repeating: 0, count: (64 - (start + body.count) % 64) % 64)
            table += littleEndianBytes(UInt32(section.kind)) + littleEndianBytes(UInt32(section.length == nil ? 0 : 1))
            for number in [start + body.count, section.stored.count, section.length ?? section.stored.count, 0] {
                table += littleEndianBytes(UInt64(number))
            }
            body += section.stored
        }
        var header: [UInt8] = [0x89, 0x54, 0x4B, 0x56, 0x0D, 0x0A, 0x1A, 0x0A]
        header += littleEndianBytes(UInt32(2)) + littleEndianBytes(UInt32(0))
        header += littleEndianBytes(UInt64(start + body.count))
        for number in [sections.count, 1, layers, 32, 128, 0] { header += littleEndianBytes(UInt32(number)) }
        header += littleEndianBytes(UInt64(tokens))
        header += [UInt8](repeating: 0, count: Self.headerBytes - header.count)
        self.init(header + table + body)
        mendChecksums()
    }

    /// A small file whose pages, a frame of one byte, promise what a layer of the format's limits has in blocks. All of
    /// its lengths but that of the frame are as they must be.
    public static func promisingPages() -> SnapshotSurgery {
        let (heads, dimension, tokens) = (1024, 1024, Int(Int32.max) / 32 * 32)
        let layer =
            [heads, 0, dimension, dimension, 0, 0].flatMap { littleEndianBytes(UInt32($0)) }
            + [tokens, tokens].flatMap { littleEndianBytes(UInt64($0)) }
        // Keys: a run of one channel; values of two bits.
        let twoBits: [UInt8] = [2, 1, 0, 0]
        let plan = [1, 0, 0, 0] + twoBits + twoBits + littleEndianBytes(UInt32(1)) + [0, 0, 0, 0]
        // Keys: a line of 64 bytes and 16 of scales and minima, to 128; values: 128 lines and 4,096 bytes.
        let blockBytes = 128 + 128 * 64 + 4096
        return SnapshotSurgery(
            layers: 1,
            tokens: tokens,
            sections: [
                (Kind.geometry, layer, nil), (Kind.plan, Array([[UInt8]](repeating: plan, count: heads).joined()), nil),
                (Kind.pages, [0], tokens / 32 * heads * blockBytes), (Kind.pageTable, [0], (tokens + 255) / 256 * 8),
            ]
        )
    }
}

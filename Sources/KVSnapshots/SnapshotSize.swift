/// How large a snapshot is.
public struct SnapshotSize: Sendable, Equatable {
    /// Bytes of the whole file.
    public let fileBytes: Int
    /// Bytes that hold keys and values and tell how to read them, as stored: plan, pages, page table and window.
    public let payloadBytes: Int

    init(_ entries: [SectionEntry], fileBytes: Int) {
        self.fileBytes = fileBytes
        payloadBytes = entries.reduce(0) { sum, entry in
            switch entry.kind {
            case .plan, .pages, .pageTable, .window: sum + entry.storedLength
            default: sum
            }
        }
    }
}

/// How large a snapshot is.
public struct SnapshotSize: Sendable, Equatable {
    /// Bytes of the whole file.
    public let fileBytes: Int
    /// Bytes that hold keys and values and tell how to read them, as stored.
    public let payloadBytes: Int

    init(_ entries: [SectionEntry], fileBytes: Int) {
        self.fileBytes = fileBytes
        payloadBytes = entries.reduce(0) { $0 + ($1.kind?.isPayload == true ? $1.storedLength : 0) }
    }
}

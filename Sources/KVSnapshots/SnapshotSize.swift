/// How large a snapshot is.
public struct SnapshotSize: Sendable, Equatable {
    /// Bytes of the whole file.
    public let fileBytes: Int
    /// Bytes that hold keys and values and tell how to read them, as stored.
    public let payloadBytes: Int

    /// The sections in the order of the file.
    public let sections: [SectionEntry]

    init(_ entries: [SectionEntry], fileBytes: Int) {
        self.fileBytes = fileBytes
        sections = entries
        payloadBytes = entries.reduce(0) { $0 + ($1.kind?.isPayload == true ? $1.storedLength : 0) }
    }
}

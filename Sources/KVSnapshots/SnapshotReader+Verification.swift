internal import ByteStorage
internal import CachePacking
public import ComputeRuntime
internal import KVCacheModel

extension SnapshotReader {
    /// Checks every byte of the file in its order: padding, checksums, the page table, and the chain against the tokens.
    ///
    /// - Parameter includingPages: whether pages are checked, too; without, for those who read all of them anyway.
    /// - Throws: `SnapshotError` for the first thing that is wrong; `FileError` if the file can't be read;
    ///   `CancellationError` if the task is cancelled.
    public func verify(includingPages: Bool = true, progress: ProgressHandler? = nil) async throws {
        var end = SnapshotFormat.headerBytes + table.entries.count * SnapshotFormat.tableEntryBytes
        for entry in table.entries {
            try checkPadding(end..<entry.offset)
            end = entry.range.upperBound
            switch entry.kind {
            case .pages: if includingPages { try await verifySlabs(progress: progress) }
            case .archiveChunks: if includingPages { try await verifyArchive(progress: progress) }
            case .chain: try verifyChain()
            case .profile: _ = try profile()
            case .heldTokens: _ = try heldTokens()
            case .state: _ = try state()
            case .some(let kind): _ = try source.content(kind)
            case nil: _ = try source.checkedBytes(of: entry)
            }
        }
    }

    private func checkPadding(_ range: Range<Int>) throws {
        let padding = try file.bytes(range).array
        for (offset, byte) in zip(range, padding) where byte != 0 {
            throw SnapshotError(.invalidPadding, at: offset, "a byte between sections is \(byte), must be 0")
        }
    }

    private func verifySlabs(progress: ProgressHandler?) async throws {
        let slabs = try slabList()
        try await forEachConcurrently(count: slabs.count, progress: progress) { index in
            _ = try bytes(of: slabs[index], verifying: true)
        }
    }

    private func verifyChain() throws {
        guard let tokens = try tokens(),
            let stored = try source.reader(.chain, code: .invalidChain)
        else { return }
        let digests = PrefixChain.digests(
            tokens: tokens,
            geometry: geometry,
            elementType: header.shape.elementType,
            metadata: metadata
        )
        for (index, digest) in digests.enumerated() {
            let start = index * SnapshotFormat.digestBytes
            guard stored.bytes[start..<start + SnapshotFormat.digestBytes].array == digest else {
                throw stored.error(at: start, "digest \(index) does not follow from the tokens")
            }
        }
    }

    /// Token ids, one per token, if the snapshot has them.
    public func tokens() throws -> [Int32]? { try numbers(.tokens) }

    /// Positions, one per token; nil where token t has position t.
    public func positions() throws -> [Int32]? { try numbers(.positions) }

    /// Token ids or positions.
    private func numbers(_ kind: SectionKind) throws -> [Int32]? {
        guard let bytes = try source.content(kind) else { return nil }
        return (0..<header.tokenCount).map { bytes.integer(Int32.self, at: $0 * MemoryLayout<Int32>.size) }
    }
}

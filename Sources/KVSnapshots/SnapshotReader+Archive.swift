internal import ByteStorage
public import CacheArchives
internal import CachePacking
internal import ComputeRuntime
internal import KVCacheModel

extension SnapshotReader {
    /// Whether the snapshot is an archive, which is restored before it is used.
    public var isArchive: Bool { archivePlan != nil }

    /// The archive, whose chunks lie in the mapped file, or in memory where the file is read.
    ///
    /// - Parameter verifyingChunks: whether the checksums of chunks in a mapped file are checked now; those that are read
    ///   are checked in any case.
    /// - Throws: `SnapshotError` if something is wrong, or the snapshot is no archive; `FileError` if the file can't be
    ///   read; `CancellationError`.
    public func archive(verifyingChunks: Bool = true) async throws -> CacheArchive {
        guard let plan = archivePlan else {
            throw SnapshotError(
                .invalidSectionTable,
                at: SnapshotFormat.sectionCountOffset,
                "the snapshot is no archive",
                remedy: "use its cache as it is"
            )
        }
        let chunks = try await archiveChunks(plan, verifying: verifyingChunks)
        let windows = try archiveWindows()
        let sinks = try rows(.sinks) { $0.sinkRowCount }
        let state = try state()
        return CacheArchive(
            geometry: geometry,
            shape: header.shape,
            tokenCount: header.tokenCount,
            plan: plan,
            recipe: recipe,
            layers: layerOutlines.enumerated().map { index, layer in
                ArchiveLayer(layer, sinks: sinks[index], window: windows[index], state: state?[index] ?? [])
            },
            chunks: chunks,
            tokens: try tokens(),
            positions: try positions(),
            metadata: metadata,
            profile: try profile()
        )
    }

    // MARK: -

    /// A unit's record, or a chunk's shifts.
    struct ArchiveRecordPlace: Sendable {
        let range: Range<Int>
        let checksum: UInt32
    }

    /// Bytes of an archive's table; nil for more than a file can have.
    static func archiveTableLength(_ plan: ArchivePlan, layers: [LayerOutline]) -> Int? {
        let blockEnd = layers.reduce(0) { max($0, $1.extent.blockEnd) }
        return SnapshotFormat.product([
            ArchiveChunks.count(blockEnd: blockEnd), plan.units.count + 1, SnapshotFormat.pageTableEntryBytes,
        ])
    }

    /// Chunk by chunk the shifts of its places and each unit's record.
    func archiveRecords() throws -> [ArchiveRecordPlace] {
        guard let plan = archivePlan, let chunks = table[.archiveChunks] else { return [] }
        var table = try source.requiredReader(.archiveTable, code: .invalidArchiveTable)
        let blockEnd = layerOutlines.reduce(0) { max($0, $1.extent.blockEnd) }
        var places: [ArchiveRecordPlace] = []
        var start = chunks.offset
        for chunk in 0..<ArchiveChunks.count(blockEnd: blockEnd) {
            let chunkPlaces = ArchiveChunks.places(of: chunk, blockEnd: blockEnd)
            for index in 0...plan.units.count {
                let entry = table.position
                let length = Int(try table.integer(UInt32.self, "a record's length"))
                let checksum = try table.integer(UInt32.self, "a record's checksum")
                let isRight =
                    index == 0
                    ? length == ArchiveChunks.shiftByteCount(places: chunkPlaces.count)
                    : (length == 0) == codedPlaces(of: plan.units[index - 1].unit).clamped(to: chunkPlaces).isEmpty
                guard isRight, length <= chunks.range.upperBound - start, length > 0 || checksum == 0 else {
                    throw table.error(at: entry, "a record of \(length) bytes can't be here")
                }
                places.append(ArchiveRecordPlace(range: start..<start + length, checksum: checksum))
                start += length
            }
        }
        guard start == chunks.range.upperBound else {
            throw table.error(
                at: max(table.position - SnapshotFormat.pageTableEntryBytes, 0),
                "the records end at byte \(start), their section at \(chunks.range.upperBound)"
            )
        }
        return places
    }

    /// Chunk by chunk the bytes of its shifts and records.
    private func archiveChunks(_ plan: ArchivePlan, verifying: Bool) async throws -> [[SharedBytes]] {
        let records = try archiveRecords()
        let bytes = Slots<SharedBytes>(count: records.count)
        try await forEachConcurrently(count: records.count) { index in
            bytes[index] = try self.bytes(of: records[index], verifying: verifying)
        }
        let perChunk = plan.units.count + 1
        let values = bytes.values
        return stride(from: 0, to: values.count, by: perChunk).map { Array(values[$0..<$0 + perChunk]) }
    }

    private func codedPlaces(of unit: ArchiveUnit) -> Range<Int> {
        let layer = layerOutlines[unit.layers.lowerBound]
        return ArchiveLayer.codedPlaces(extent: layer.extent, sinkCount: layer.sinks)
    }

    /// A record's bytes, checked against their checksum if `verifying`, or if they were read.
    func bytes(of record: ArchiveRecordPlace, verifying: Bool) throws -> SharedBytes {
        let bytes = try file.bytes(record.range)
        if record.range.count > 0, verifying || file.isStable {
            guard Kernels.checksum(bytes.span) == record.checksum else {
                throw SnapshotError(
                    .checksumMismatch,
                    at: record.range.lowerBound,
                    "a record of a chunk, bytes \(record.range), does not have its checksum"
                )
            }
        }
        return bytes
    }

    /// The window of each layer, in eight bits.
    private func archiveWindows() throws -> [SharedBytes] {
        let bytes = try source.content(.archiveWindow) ?? SharedBytes([])
        var start = 0
        return layerOutlines.map { layer in
            let count = EightBitRows.byteCount(layer.geometry, rows: layer.extent.windowRowCount) ?? 0
            defer { start += count }
            return bytes[start..<start + count]
        }
    }

    /// Checks that a plan's units have layers of the same rows, and none that lists its tokens.
    static func check(_ plan: ArchivePlan, layers: [LayerOutline], reader: ByteReader) throws(SnapshotError) {
        if let layer = layers.firstIndex(where: { $0.held == .listed }) {
            throw reader.error(at: 0, "layer \(layer) lists the tokens that it holds, which archives can't")
        }
        for unit in plan.units {
            let places = unit.unit.layers.map { layer in
                ArchiveLayer.codedPlaces(extent: layers[layer].extent, sinkCount: layers[layer].sinks)
            }
            guard places.allSatisfy({ $0 == places[0] }) else {
                throw reader.error(at: 0, "a unit joins layers that hold different tokens")
            }
        }
    }

    /// Checks every record of an archive, and what can be known of it without the model's profile.
    func verifyArchive(progress: ProgressHandler?) async throws {
        guard let plan = archivePlan else { return }
        // Of the chunks alone: what else an archive has is checked where it lies in the file.
        let archive = CacheArchive(
            geometry: geometry,
            shape: header.shape,
            tokenCount: header.tokenCount,
            plan: plan,
            recipe: nil,
            layers: layerOutlines.map { ArchiveLayer($0, sinks: nil, window: SharedBytes([]), state: []) },
            chunks: try await archiveChunks(plan, verifying: true),
            tokens: nil,
            positions: nil,
            metadata: [:],
            profile: nil
        )
        let perChunk = plan.units.count
        let records = try archiveRecords()
        try await forEachConcurrently(count: archive.chunks.count * perChunk, progress: progress) { index in
            let (chunk, unit) = index.quotientAndRemainder(dividingBy: perChunk)
            do {
                try archive.checkRecord(unit: unit, chunk: chunk)
            } catch let error as ArchiveError {
                throw SnapshotError(
                    .invalidArchiveRecord,
                    at: records[chunk * (perChunk + 1) + 1 + unit].range.lowerBound,
                    error.message
                )
            }
        }
    }
}

extension ArchiveLayer {
    fileprivate init(_ layer: LayerOutline, sinks: KVCacheLayer?, window: SharedBytes, state: [LayerState]) {
        self.init(
            geometry: layer.geometry,
            held: layer.held == .last ? .last : .all,
            extent: layer.extent,
            sinkCount: layer.sinks,
            sinks: sinks,
            window: window,
            state: state
        )
    }
}

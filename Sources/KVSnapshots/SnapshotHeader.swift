internal import ByteStorage
public import CachePacking
internal import ComputeRuntime
internal import KVCacheModel

/// The header of a snapshot: what all of its layers share. Formats/snapshot.md, "Header".
public struct SnapshotHeader: Sendable, Equatable {
    /// The version of the format.
    let version: UInt32
    public let layerCount: Int
    public let shape: BlockShape
    /// Tokens of the cache.
    public let tokenCount: Int

    init(_ cache: CompressedCache) {
        let hasComponents = cache.layers.contains { $0.plan.heads.contains { $0.components != nil } }
        version = hasComponents ? SnapshotFormat.componentVersion : SnapshotFormat.versions.lowerBound
        layerCount = cache.layers.count
        shape = cache.shape
        tokenCount = cache.tokenCount
    }

    /// Appends the header's 128 bytes; the checksum is zero until the table is known.
    func encode(into writer: inout ByteWriter, fileLength: Int, sectionCount: Int) {
        writer.append(SnapshotFormat.magic)
        writer.append(version)
        writer.append(UInt32(0))
        writer.append(UInt64(fileLength))
        writer.append(UInt32(sectionCount))
        writer.append(shape.elementType.rawValue)
        writer.append(UInt32(layerCount))
        writer.append(UInt32(shape.blockLength))
        writer.append(UInt32(shape.residualWindow))
        writer.append(UInt32(0))
        writer.append(UInt64(tokenCount))
        writer.appendZeros(upTo: SnapshotFormat.headerBytes)
    }

    /// Checks what must hold before header and table can be trusted, and their checksum.
    ///
    /// - Parameters:
    ///   - front: the first bytes of the file, at least `SnapshotFormat.maximumFrontBytes` unless it has fewer.
    ///   - fileLength: bytes that the file has.
    /// - Returns: the number of sections.
    static func checkPreamble(of front: SharedBytes, fileLength: Int) throws(SnapshotError) -> Int {
        guard fileLength >= SnapshotFormat.headerBytes else {
            throw SnapshotError(
                .truncated,
                at: fileLength,
                "the file has \(fileLength) bytes, too few for the header of a snapshot"
            )
        }
        guard front[0..<SnapshotFormat.magic.count].array == SnapshotFormat.magic else {
            throw SnapshotError(
                .notASnapshot,
                at: 0,
                "the file does not begin like a snapshot",
                remedy: "pass a file that think-compress snapshot wrote"
            )
        }
        let version = front.integer(UInt32.self, at: SnapshotFormat.versionOffset)
        guard SnapshotFormat.versions.contains(version) else {
            throw SnapshotError(
                .unsupportedVersion,
                at: SnapshotFormat.versionOffset,
                "the snapshot has format version \(version), this program reads \(SnapshotFormat.versions)",
                remedy: version < SnapshotFormat.versions.lowerBound
                    ? "the file is of an older version: make the snapshot again with think-compress snapshot"
                    : "the file is of a newer version: read it with a newer think-compress"
            )
        }
        let sectionCount = Int(front.integer(UInt32.self, at: SnapshotFormat.sectionCountOffset))
        guard SnapshotFormat.sectionCounts.contains(sectionCount) else {
            throw SnapshotError(
                .invalidHeader,
                at: SnapshotFormat.sectionCountOffset,
                "the section count is \(sectionCount), must be \(SnapshotFormat.sectionCounts)"
            )
        }
        let tableEnd = SnapshotFormat.headerBytes + sectionCount * SnapshotFormat.tableEntryBytes
        guard tableEnd <= fileLength else {
            throw SnapshotError(.truncated, at: fileLength, "the section table ends at byte \(tableEnd)")
        }
        let length = front.integer(UInt64.self, at: SnapshotFormat.fileLengthOffset)
        guard length <= UInt64(fileLength) else {
            throw SnapshotError(
                .truncated,
                at: fileLength,
                "the file should have \(length) bytes and has \(fileLength)"
            )
        }
        guard length == UInt64(fileLength) else {
            throw SnapshotError(
                .invalidHeader,
                at: SnapshotFormat.fileLengthOffset,
                "the file should have \(length) bytes and has \(fileLength)"
            )
        }
        var covered = front[0..<tableEnd].array
        let stored = front.integer(UInt32.self, at: SnapshotFormat.headerChecksumOffset)
        for index in 0..<4 { covered[SnapshotFormat.headerChecksumOffset + index] = 0 }
        guard Kernels.checksum(SharedBytes(covered).span) == stored else {
            throw SnapshotError(
                .headerChecksumMismatch,
                at: SnapshotFormat.headerChecksumOffset,
                "header and section table do not have their checksum"
            )
        }
        return sectionCount
    }

    /// Reads the fields from `elementType` on, in the order that `encode` has them.
    init(decoding front: SharedBytes) throws(SnapshotError) {
        var reader = ByteReader(front[0..<SnapshotFormat.headerBytes], origin: 0, code: .invalidHeader)
        _ = try reader.bytes(count: SnapshotFormat.sectionCountOffset + 4, "the preamble")
        version = front.integer(UInt32.self, at: SnapshotFormat.versionOffset)
        let limits = CacheGeometry.Limits.self
        let typeOffset = reader.position
        let typeNumber = try reader.integer(UInt32.self, "the element type")
        guard let elementType = ElementType(rawValue: typeNumber) else {
            throw reader.error(at: typeOffset, "the element type is \(typeNumber), must be 1...3")
        }
        layerCount = try reader.integer(UInt32.self, "the number of layers", in: limits.layers)
        let blockLengthOffset = reader.position
        let blockLength = Int(try reader.integer(UInt32.self, "the block length"))
        guard BlockShape.blockLengths.contains(blockLength) else {
            throw reader.error(at: blockLengthOffset, "the block length is \(blockLength), must be 32, 64 or 128")
        }
        let residualWindow = try reader.integer(UInt32.self, "the residual window", in: BlockShape.residualWindows)
        _ = try reader.integer(UInt32.self, "a reserved field", in: 0...0)
        tokenCount = try reader.integer(UInt64.self, "the number of tokens", in: limits.tokens)
        let reserved = reader.position
        guard try reader.bytes(count: reader.remaining, "reserved bytes").array.allSatisfy({ $0 == 0 }) else {
            throw reader.error(at: reserved, "the reserved bytes must be 0")
        }
        shape = BlockShape(elementType: elementType, blockLength: blockLength, residualWindow: residualWindow)
    }
}

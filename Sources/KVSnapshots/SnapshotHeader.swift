internal import ByteStorage
public import CachePacking
internal import ComputeRuntime
public import KVCacheModel

/// The header of a snapshot: the cache's shape. Formats/snapshot.md, "Header".
public struct SnapshotHeader: Sendable, Equatable {
    public let geometry: CacheGeometry
    public let shape: BlockShape
    /// Tokens in blocks and in the residual window.
    public let tokenCount: Int
    /// Tokens in blocks.
    public let blockTokenCount: Int

    var blockCount: Int { blockTokenCount / shape.blockLength }
    var windowTokenCount: Int { tokenCount - blockTokenCount }

    init(_ cache: CompressedCache) {
        geometry = cache.geometry
        shape = cache.shape
        tokenCount = cache.tokenCount
        blockTokenCount = cache.blockTokenCount
    }

    /// Appends the header's 128 bytes; the checksum is zero until the table is known.
    func encode(into writer: inout ByteWriter, fileLength: Int, sectionCount: Int) {
        writer.append(SnapshotFormat.magic)
        writer.append(SnapshotFormat.version)
        writer.append(UInt32(0))
        writer.append(UInt64(fileLength))
        writer.append(UInt32(sectionCount))
        writer.append(shape.elementType.rawValue)
        writer.append(UInt32(geometry.layers))
        writer.append(UInt32(geometry.kvHeads))
        writer.append(UInt32(geometry.headDimension))
        writer.append(UInt32(geometry.queryHeads))
        writer.append(UInt64(tokenCount))
        writer.append(UInt64(blockTokenCount))
        writer.append(UInt32(shape.blockLength))
        writer.append(UInt32(shape.residualWindow))
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
            throw SnapshotError(.notASnapshot, at: 0, "the file does not begin like a snapshot")
        }
        let version = front.integer(UInt32.self, at: SnapshotFormat.versionOffset)
        guard version == SnapshotFormat.version else {
            throw SnapshotError(
                .unsupportedVersion,
                at: SnapshotFormat.versionOffset,
                "the snapshot has format version \(version), this program reads \(SnapshotFormat.version)"
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
        let limits = CacheGeometry.Limits.self
        let typeNumber = try reader.integer(UInt32.self, "the element type", in: 1...3)
        let layers = try reader.integer(UInt32.self, "the number of layers", in: limits.layers)
        let kvHeads = try reader.integer(UInt32.self, "the number of KV heads", in: limits.kvHeads)
        let headDimension = try reader.integer(UInt32.self, "the head dimension", in: limits.headDimension)
        let queryHeadsOffset = reader.position
        let queryHeads = try reader.integer(UInt32.self, "the number of query heads", in: limits.queryHeads)
        guard let elementType = ElementType(rawValue: UInt32(typeNumber)),
            let geometry = try? CacheGeometry(
                layers: layers,
                queryHeads: queryHeads,
                kvHeads: kvHeads,
                headDimension: headDimension
            )
        else {
            throw reader.error(
                at: queryHeadsOffset,
                "\(queryHeads) query heads are no multiple of \(kvHeads) KV heads"
            )
        }
        tokenCount = try reader.integer(UInt64.self, "the number of tokens", in: limits.tokens)
        let blockTokensOffset = reader.position
        blockTokenCount = try reader.integer(UInt64.self, "the number of tokens in blocks", in: 0...tokenCount)
        let blockLengthOffset = reader.position
        let blockLength = try reader.integer(UInt32.self, "the block length", in: 1...Int(UInt32.max))
        guard BlockShape.blockLengths.contains(blockLength) else {
            throw reader.error(at: blockLengthOffset, "the block length is \(blockLength), must be 32, 64 or 128")
        }
        guard blockTokenCount.isMultiple(of: blockLength) else {
            throw reader.error(
                at: blockTokensOffset,
                "\(blockTokenCount) tokens in blocks are no multiple of the block length \(blockLength)"
            )
        }
        let residualOffset = reader.position
        let residualWindow = try reader.integer(
            UInt32.self,
            "the residual window",
            in: BlockShape.residualWindows
        )
        guard tokenCount - blockTokenCount < residualWindow + blockLength else {
            throw reader.error(
                at: residualOffset,
                "\(tokenCount - blockTokenCount) tokens are too many for a residual window of \(residualWindow)"
            )
        }
        let reserved = reader.position
        guard try reader.bytes(count: reader.remaining, "reserved bytes").array.allSatisfy({ $0 == 0 }) else {
            throw reader.error(at: reserved, "the reserved bytes must be 0")
        }
        self.geometry = geometry
        shape = BlockShape(
            kvHeads: kvHeads,
            headDimension: headDimension,
            elementType: elementType,
            blockLength: blockLength,
            residualWindow: residualWindow
        )
    }
}

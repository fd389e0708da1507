internal import CacheArchives
internal import CachePacking
internal import KVCacheModel

/// Which sections a file must have, and how long they must be: Formats/snapshot.md, "Section table".
struct SectionRequirements {
    enum Presence {
        case required, optional, forbidden
    }

    let header: SnapshotHeader
    let layers: [LayerOutline]
    let hasTokens: Bool
    let isArchive: Bool
    let hasBases: Bool

    /// Chunks that the page table has entries of.
    var chunkCount: Int { layers.lazy.map(\.extent).chunkCount }

    func presence(of kind: SectionKind) -> Presence {
        func required(_ condition: Bool) -> Presence { condition ? .required : .forbidden }
        let isOfVersion3 = header.version == SnapshotFormat.versions.upperBound
        let hasWindow = layers.contains { $0.extent.windowRowCount > 0 }
        let hasHeads = layers.contains { !$0.geometry.isEmpty }
        return switch kind {
        case .geometry: .required
        case .metadata, .recipe, .quality, .state, .tokens, .positions: .optional
        case .plan: required(hasHeads && !isArchive)
        case .profile: hasHeads ? .optional : .forbidden
        case .bases: isOfVersion3 && hasHeads && !isArchive ? .optional : .forbidden
        case .pages, .pageTable: required(chunkCount > 0 && !isArchive)
        case .sinks: required(layers.contains { $0.sinkRowCount > 0 })
        case .window: required(hasWindow && !isArchive)
        case .archiveWindow: required(hasWindow && isArchive)
        // A file of this version has the one or the other.
        case .archivePlan: required(isOfVersion3 && !hasBases)
        case .archiveChunks, .archiveTable: required(isArchive && layers.contains { $0.extent.blockEnd > 0 })
        case .heldTokens: required(layers.contains { $0.held == .listed })
        case .chain: required(hasTokens && header.tokenCount >= BlockShape.pageTokens)
        }
    }

    /// The length that a section must have, nil inside for more than can be; nil where its content tells.
    func length(of kind: SectionKind) -> Int?? {
        let product = SnapshotFormat.product
        switch kind {
        case .metadata, .recipe, .geometry, .plan, .bases, .pages, .state, .archivePlan, .archiveChunks, .archiveTable:
            return .none
        case .archiveWindow:
            return SnapshotFormat.sum(
                layers.map { EightBitRows.byteCount($0.geometry, rows: $0.extent.windowRowCount) }
            )
        case .profile: return sum { [$0.geometry.kvHeads, $0.geometry.keyDimension, MemoryLayout<Float>.size] }
        case .quality: return product([header.layerCount + 1, QualitySection.rowBytes])
        case .pageTable: return product([chunkCount, header.layerCount, SnapshotFormat.pageTableEntryBytes])
        case .sinks: return sum { rowFactors($0, rows: $0.sinkRowCount) }
        case .window: return sum { rowFactors($0, rows: $0.extent.windowRowCount) }
        case .heldTokens:
            return sum {
                $0.held == .listed ? [$0.geometry.kvHeads, $0.extent.rowCount, MemoryLayout<UInt32>.size] : [0]
            }
        case .tokens, .positions: return product([header.tokenCount, MemoryLayout<Int32>.size])
        case .chain: return product([header.tokenCount / BlockShape.pageTokens, SnapshotFormat.digestBytes])
        }
    }

    private func rowFactors(_ layer: LayerOutline, rows: Int) -> [Int] {
        [rows, layer.geometry.valuesPerToken, header.shape.elementType.byteCount]
    }

    private func sum(_ factors: (LayerOutline) -> [Int]) -> Int? {
        SnapshotFormat.sum(layers.map { SnapshotFormat.product(factors($0)) })
    }
}

internal import ByteStorage
internal import CacheArchives
public import CachePacking
public import KVCacheModel

/// A layer as a snapshot has it: its shape, and which rows it has where.
public struct LayerOutline: Sendable, Equatable {
    /// Which tokens a layer holds, without the lists.
    public enum Held: UInt32, Sendable {
        case all = 0
        case last = 1
        case listed = 2
        case none = 3
    }

    public let geometry: LayerGeometry
    public let held: Held
    public let sinks: Int
    public let extent: LayerExtent

    /// Sinks that are in blocks.
    public var sinkRowCount: Int { extent.sinkRowCount(sinks: sinks) }

    /// The outline of a layer in memory.
    public init(_ layer: CompressedLayer) {
        geometry = layer.geometry
        held =
            switch layer.held {
            case _ where layer.geometry.isEmpty: .none
            case .all: .all
            case .last: .last
            case .listed: .listed
            }
        sinks = layer.plan.sinks
        extent = layer.extent
    }

    /// The outline of an archive's layer.
    init(_ layer: ArchiveLayer) {
        geometry = layer.geometry
        held = layer.geometry.isEmpty ? .none : layer.held == .all ? .all : .last
        sinks = layer.sinkCount
        extent = layer.extent
    }

    init(geometry: LayerGeometry, held: Held, sinks: Int, extent: LayerExtent) {
        self.geometry = geometry
        self.held = held
        self.sinks = sinks
        self.extent = extent
    }
}

/// The GEOMETRY section: Formats/snapshot.md.
enum GeometrySection {
    static let entryBytes = 40

    static func encode(_ layers: [LayerOutline]) -> [UInt8] {
        var writer = ByteWriter()
        for layer in layers {
            writer.append(UInt32(layer.geometry.kvHeads))
            writer.append(UInt32(layer.geometry.queryHeads))
            writer.append(UInt32(layer.geometry.keyDimension))
            writer.append(UInt32(layer.geometry.valueDimension))
            writer.append(layer.held.rawValue)
            writer.append(UInt32(layer.sinks))
            writer.append(UInt64(layer.extent.rowCount))
            writer.append(UInt64(layer.extent.blockEnd))
        }
        return writer.bytes
    }

    /// Reads the layers, fields in the order that `encode` has them.
    static func decode(_ reader: inout ByteReader, header: SnapshotHeader) throws(SnapshotError) -> [LayerOutline] {
        var layers: [LayerOutline] = []
        /// What layers of all or the last tokens have in blocks.
        var sharedBlockEnd: Int?
        for _ in 0..<header.layerCount {
            let layer = try decodeLayer(&reader, header: header)
            if layer.held == .all || layer.held == .last {
                guard sharedBlockEnd ?? layer.extent.blockEnd == layer.extent.blockEnd else {
                    throw reader.error(
                        at: reader.position - MemoryLayout<UInt64>.size,
                        "a layer has \(layer.extent.blockEnd) tokens in blocks, an earlier one \(sharedBlockEnd ?? 0)"
                    )
                }
                sharedBlockEnd = layer.extent.blockEnd
            }
            layers.append(layer)
        }
        try reader.expectEnd()
        return layers
    }

    private static func decodeLayer(
        _ reader: inout ByteReader,
        header: SnapshotHeader
    ) throws(SnapshotError) -> LayerOutline {
        typealias Limits = CacheGeometry.Limits
        let kvHeads = try reader.integer(UInt32.self, "the number of KV heads", in: 0...Limits.kvHeads.upperBound)
        let queryHeadsOffset = reader.position
        let queryHeads = try reader.integer(UInt32.self, "the number of query heads", in: Limits.queryHeads)
        guard kvHeads == 0 ? queryHeads == 0 : queryHeads % kvHeads == 0 else {
            throw reader.error(
                at: queryHeadsOffset,
                "\(queryHeads) query heads are no multiple of \(kvHeads) KV heads"
            )
        }
        let keyDimension = try reader.integer(
            UInt32.self,
            "the key dimension",
            in: 0...Limits.keyDimension.upperBound
        )
        let valueDimension = try reader.integer(UInt32.self, "the value dimension", in: Limits.valueDimension)
        let heldOffset = reader.position
        guard let held = LayerOutline.Held(rawValue: try reader.integer(UInt32.self, "the held tokens")) else {
            throw reader.error(at: heldOffset, "the held tokens are of no kind that there is")
        }
        let isEmpty = kvHeads == 0 && keyDimension == 0 && valueDimension == 0
        guard held == .none ? isEmpty : kvHeads > 0 && keyDimension > 0 else {
            throw reader.error(
                at: heldOffset,
                "a layer of \(kvHeads) KV heads and the key dimension \(keyDimension) can't hold tokens so"
            )
        }
        let geometry: LayerGeometry
        do {
            geometry =
                held == .none
                ? .none
                : try LayerGeometry(
                    queryHeads: queryHeads,
                    kvHeads: kvHeads,
                    keyDimension: keyDimension,
                    valueDimension: valueDimension
                )
        } catch {
            throw reader.error(at: heldOffset, "\(error)")
        }
        let mayHaveSinks = held == .all || held == .listed
        let sinks = try reader.integer(
            UInt32.self,
            "the number of sinks",
            in: mayHaveSinks ? LayerPlan.sinkCounts : 0...0
        )
        let tokens = header.tokenCount
        let rowsOffset = reader.position
        let rows: ClosedRange<Int> =
            switch held {
            case .all: tokens...tokens
            case .last: 1...max(tokens - 1, 1)
            case .listed: 1...tokens
            case .none: 0...0
            }
        let rowCount = try reader.integer(UInt64.self, "the number of held tokens", in: rows)
        guard held != .last || rowCount < tokens else {
            throw reader.error(at: rowsOffset, "the last \(rowCount) of \(tokens) tokens are all of them")
        }
        guard held != .listed || rowCount >= sinks else {
            throw reader.error(at: rowsOffset, "\(sinks) sinks are more than the \(rowCount) listed tokens")
        }
        let end = held == .last ? tokens : rowCount
        let blocksOffset = reader.position
        let blockEnd = try reader.integer(UInt64.self, "the number of tokens in blocks", in: 0...end)
        let shape = header.shape
        guard blockEnd.isMultiple(of: shape.blockLength) else {
            throw reader.error(
                at: blocksOffset,
                "\(blockEnd) tokens in blocks are no multiple of the block length \(shape.blockLength)"
            )
        }
        let extent = LayerExtent(
            first: end - rowCount,
            end: end,
            blockEnd: blockEnd,
            blockLength: shape.blockLength
        )
        guard extent.windowRowCount < shape.residualWindow + shape.blockLength else {
            throw reader.error(
                at: blocksOffset,
                "\(extent.windowRowCount) tokens are too many for a residual window of \(shape.residualWindow)"
            )
        }
        return LayerOutline(geometry: geometry, held: held, sinks: sinks, extent: extent)
    }
}

extension SnapshotReader {
    /// Why the cache can be reused whole only, or nil if it may be cut to any prefix.
    public var wholeOnlyReason: String? {
        let ofLayers = layerOutlines.enumerated().lazy.compactMap { index, layer in
            CompressedLayer.wholeOnlyReason(
                holdsAll: layer.held == .all || layer.held == .none,
                hasState: false,
                index: index
            )
        }
        // Which layer has state is known once that is read.
        return ofLayers.first
            ?? CompressedLayer.wholeOnlyReason(holdsAll: true, hasState: table[.state] != nil, index: nil)
    }
}

import TestSupport
import ThinkCompress

/// A compressed layer that holds plain numbers, by Formats/snapshot.md and Formats/kivi.md: what `CompressedLayer` must
/// restore, in every bit of float32.
struct LayerModel {
    /// A KV head's keys or values, row by row.
    private struct Rows {
        /// As they came, or as they were restored when their block was cut.
        var exact: [[Float]] = []
        /// As they come back.
        var restored: [[Float]] = []
    }

    let plan: LayerPlan
    let shape: BlockShape
    /// The first row's place.
    let first: Int
    private(set) var rowCount = 0
    /// Rows at places below this one are in blocks.
    private(set) var blockEnd = 0
    private var keys: [Rows]
    private var values: [Rows]

    init(plan: LayerPlan, shape: BlockShape, first: Int = 0) {
        self.plan = plan
        self.shape = shape
        self.first = first
        keys = [Rows](repeating: Rows(), count: plan.geometry.kvHeads)
        values = keys
    }

    private var end: Int { first + rowCount }

    private subscript(part: CachePart) -> [Rows] {
        get { part == .keys ? keys : values }
        set { if part == .keys { keys = newValue } else { values = newValue } }
    }

    // MARK: - Changes

    mutating func append(_ source: KVCacheLayer) {
        for part in CachePart.allCases {
            let numbers = source[part].numbers
            let dimension = plan.geometry.dimension(part)
            for head in 0..<plan.geometry.kvHeads {
                for row in 0..<source.keys.tokens {
                    let start = (head * source.keys.tokens + row) * dimension
                    let row = Array(numbers[start..<start + dimension])
                    self[part][head].exact.append(row)
                    self[part][head].restored.append(row)
                }
            }
        }
        rowCount += source.keys.tokens
        guard !plan.geometry.isEmpty else { return }
        let length = shape.blockLength
        let blockStart = max(blockEnd, first / length * length)
        blockEnd = max(blockEnd, max(end - shape.residualWindow, 0) / length * length)
        for start in stride(from: blockStart, to: blockEnd, by: length) {
            for head in 0..<plan.geometry.kvHeads { packBlock(start, head: head) }
        }
    }

    /// Drops rows from `count` on; those of a block that is cut are from then on as they were restored.
    mutating func truncate(to count: Int) {
        guard !plan.geometry.isEmpty else { return }
        if count < blockEnd { blockEnd = count / shape.blockLength * shape.blockLength }
        for part in CachePart.allCases {
            for head in 0..<plan.geometry.kvHeads {
                self[part][head].exact.removeLast(rowCount - count)
                self[part][head].restored.removeLast(rowCount - count)
                for row in min(blockEnd, count)..<count {
                    let rounded = rounded(self[part][head].restored[row])
                    self[part][head].exact[row] = rounded
                    self[part][head].restored[row] = rounded
                }
            }
        }
        rowCount = count
    }

    // MARK: - Blocks

    private mutating func packBlock(_ start: Int, head: Int) {
        let length = shape.blockLength
        let readable = max(start, first, plan.sinks)..<max(start + length, first, plan.sinks)
        guard readable.lowerBound < start + length else { return }
        let keys = standingIn(self.keys[head].exact, start: start, readable: readable.lowerBound)
        let values = standingIn(self.values[head].exact, start: start, readable: readable.lowerBound)
        let restored = (keys: restoredKeys(keys, plan: plan.heads[head]), values: restoredValues(values, head: head))
        for place in readable {
            self.keys[head].restored[place - first] = restored.keys[place - start]
            self.values[head].restored[place - first] = restored.values[place - start]
        }
    }

    /// A block's rows, the first readable one in the place of those before it.
    private func standingIn(_ rows: [[Float]], start: Int, readable: Int) -> [[Float]] {
        (start..<start + shape.blockLength).map { rows[max($0, readable) - first] }
    }

    private func restoredKeys(_ block: [[Float]], plan: HeadPlan) -> [[Float]] {
        var result = block
        var means = plan.keyMeans[...]
        for channel in 0..<plan.keyDimension {
            let coding = plan.keyRuns.first { $0.channels.contains(UInt16(channel)) }?.coding
            let mean = coding == nil || coding?.isCentered == true ? means.popFirst() ?? 0 : 0
            guard let coding else {
                for row in block.indices { result[row][channel] = mean }
                continue
            }
            guard !coding.isFullPrecision else { continue }
            let numbers = coding.isCentered ? block.map { $0[channel] - mean } : block.map { $0[channel] }
            let group = ReferenceGroup(numbers, coding: coding)
            for row in block.indices { result[row][channel] = group.restored(numbers[row]) + mean }
        }
        return result
    }

    private func restoredValues(_ block: [[Float]], head: Int) -> [[Float]] {
        let plan = plan.heads[head]
        let coding = plan.values
        let isKept = plan.valueKeepMask
        let hasPrunedMeans = plan.valueMeans.count > (coding.isCentered ? plan.keptValueChannelCount : 0)
        var (means, pruned): ([Float], [Float]) = ([], [])
        var given = plan.valueMeans[...]
        for isKept in isKept {
            if isKept {
                if coding.isCentered { means.append(given.popFirst() ?? 0) }
            } else {
                pruned.append(hasPrunedMeans ? given.popFirst() ?? 0 : 0)
            }
        }
        return block.map { row in
            var kept = zip(row, isKept).filter(\.1).map(\.0)[...]
            kept = restoredValues(Array(kept), coding: coding, means: means)[...]
            var standIns = pruned[...]
            return isKept.map { ($0 ? kept.popFirst() : standIns.popFirst()) ?? .nan }
        }
    }

    /// A row of the value channels that a block has.
    private func restoredValues(_ row: [Float], coding: Coding, means: [Float]) -> [Float] {
        guard !coding.isFullPrecision else { return row }
        let isRotated = coding.rotation == .hadamard
        let length = coding.isCentered ? 64 : shape.blockLength
        let row = coding.isCentered ? ReferenceCentering.centered(row, means: means, isRotated: isRotated) : row
        let restored = stride(from: 0, to: row.count, by: length).flatMap { start in
            let numbers = row[start..<min(start + length, row.count)]
            return numbers.map(ReferenceGroup(numbers, coding: coding).restored)
        }
        guard coding.isCentered else { return restored }
        return ReferenceCentering.restored(restored, means: means, isRotated: isRotated)
    }

    private func rounded(_ row: [Float]) -> [Float] {
        guard !row.isEmpty else { return row }
        return KVTensor(row, elementType: shape.elementType, heads: 1, headDimension: row.count).numbers
    }

    // MARK: - Reading

    /// What some of the rows restore to, as numbers `[kvHeads, rows, dimension]`.
    func restored(_ part: CachePart, rows: Range<Int>) -> [Float] {
        self[part].flatMap { $0.restored[rows].joined() }
    }

    /// What the layer restores to, for attention.
    func restored(held: HeldTokens) -> KVCacheLayer {
        func tensor(_ part: CachePart) -> KVTensor {
            KVTensor(
                restored(part, rows: 0..<rowCount),
                elementType: .float32,
                heads: plan.geometry.kvHeads,
                headDimension: plan.geometry.dimension(part)
            )
        }
        return KVCacheLayer(keys: tensor(.keys), values: tensor(.values), held: held)
    }

    /// How a layer differs from this one, in extent or in what some of its rows restore to; nil if it doesn't.
    func difference(from layer: CompressedLayer, rows: Range<Int>? = nil) throws -> String? {
        let extent = layer.extent
        let own = plan.geometry.isEmpty ? extent.first..<extent.first : first..<end
        guard extent.first == own.lowerBound, extent.end == own.upperBound, extent.blockEnd == blockEnd else {
            return "\(extent) instead of \(own), blocks to \(blockEnd)"
        }
        let rows = rows ?? 0..<rowCount
        let restored = try layer.decompress(rows: rows, as: .float32)
        for part in CachePart.allCases {
            let (found, expected) = (restored[part].numbers, self.restored(part, rows: rows))
            guard found.count == expected.count else { return "\(found.count) numbers of \(expected.count)" }
            guard let index = found.indices.first(where: { found[$0] != expected[$0] }) else { continue }
            let (row, channel) = index.quotientAndRemainder(dividingBy: plan.geometry.dimension(part))
            return "\(part): head \(row / rows.count), row \(rows.lowerBound + row % rows.count), channel \(channel): "
                + "\(found[index]) instead of \(expected[index])"
        }
        return nil
    }
}

public import CachePacking
internal import KVCacheModel

/// A stage that chooses which tokens a layer keeps: token eviction.
///
/// It comes first in a recipe, so that all other stages see what stays and nothing else. It decides layer by layer, as
/// it stands in the recipe: what `prepared(for:)` returns in its place has no say in what stays. Formats/selection.md.
public protocol TokenSelectionStage: CodecStage {
    /// Rows that stay of each KV head of a layer that has `rows` of them: at least one, at most all.
    ///
    /// - Parameter sinks: how many of the first rows stay in any case, since later stages keep them as sinks.
    func keptCount(ofRows rows: Int, sinks: Int) -> Int

    /// Which rows of a KV head stay, ascending: `keptCount(ofRows:sinks:)` of them, the first `sinks` among them. It is
    /// asked only where some are dropped.
    ///
    /// - Throws: `CodecError` if the cache is not one that the stage can decide on.
    func keptRows(of statistics: LayerStatistics, head: Int, sinks: Int) throws(CodecError) -> [Int]
}

extension TokenSelectionStage {
    /// Nothing: what stays is all that it decides.
    public func decide(_ statistics: inout LayerStatistics, draft: inout LayerDraft) {}
}

/// What the selection of tokens leaves of one layer.
struct LayerSelection: Sendable {
    let statistics: LayerStatistics
    private let stage: any TokenSelectionStage
    private let sinks: Int
    private let count: Int

    /// - Parameter sinks: what later stages keep as sinks, if the layer begins with the cache's first tokens.
    init(_ statistics: LayerStatistics, by stage: any TokenSelectionStage, sinks: Int) {
        self.statistics = statistics
        self.stage = stage
        self.sinks = statistics.held.beginsWithFirst(sinks) ? min(sinks, statistics.rowCount) : 0
        count =
            statistics.geometry.isEmpty
            ? statistics.rowCount : stage.keptCount(ofRows: statistics.rowCount, sinks: self.sinks)
    }

    /// Whether the layer keeps all that it has.
    var keepsAll: Bool { count == statistics.rowCount }

    /// The statistics of what stays.
    ///
    /// - Throws: as `rows(ofHead:)`; `CodecError` if there is no memory for them.
    func selected() throws(CodecError) -> LayerStatistics {
        guard !keepsAll else { return statistics }
        var rows: [[Int]] = []
        for head in 0..<statistics.geometry.kvHeads { rows.append(try self.rows(ofHead: head)) }
        return try statistics.keeping(rows)
    }

    /// Which rows of a KV head stay; some don't.
    ///
    /// - Throws: `CodecError` if the stage can't decide, or keeps rows that the layer doesn't have.
    func rows(ofHead head: Int) throws(CodecError) -> [Int] {
        let rows = try stage.keptRows(of: statistics, head: head, sinks: sinks)
        let isPossible =
            rows.count == count && (1..<statistics.rowCount).contains(count)
            && zip(rows, rows.dropFirst()).allSatisfy(<)
            && rows.allSatisfy((0..<statistics.rowCount).contains)
        guard isPossible else {
            throw CodecError(
                .unsupportedPlan,
                layer: statistics.layer,
                head: head,
                "\(stage.codec.name) must keep the same number of the layer's \(statistics.rowCount) rows in each KV head, "
                    + "ascending"
            )
        }
        return rows
    }
}

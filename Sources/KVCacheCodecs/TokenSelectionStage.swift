public import CachePacking
internal import KVCacheModel

/// A stage that chooses which tokens a layer keeps: token eviction.
///
/// It comes first in a recipe, so that all other stages see what stays and nothing else. It decides layer by layer and
/// is not prepared for a cache. Formats/selection.md.
public protocol TokenSelectionStage: CodecStage {
    /// Rows that stay of each KV head of a layer that has `rows` of them: at least one, at most all.
    func keptCount(ofRows rows: Int) -> Int

    /// Which rows stay, head by head, ascending: `keptCount(ofRows:)` of each. It is asked only where some are dropped.
    ///
    /// - Throws: `CodecError` if the cache is not one that the stage can decide on.
    func keptRows(of statistics: LayerStatistics) throws(CodecError) -> [[Int]]
}

extension TokenSelectionStage {
    /// Nothing: what stays is all that it decides.
    public func decide(_ statistics: inout LayerStatistics, draft: inout LayerDraft) {}
}

extension LayerStatistics {
    /// The statistics of the rows that a stage keeps.
    ///
    /// - Throws: `CodecError` if it can't decide, keeps rows that the layer doesn't have, or there is no memory.
    func selected(by stage: any TokenSelectionStage) throws(CodecError) -> LayerStatistics {
        let count = geometry.isEmpty ? rowCount : stage.keptCount(ofRows: rowCount)
        guard count != rowCount else { return self }
        let rows = try stage.keptRows(of: self)
        let isPossible =
            rows.count == geometry.kvHeads && (1..<rowCount).contains(count)
            && rows.allSatisfy { list in
                list.count == count && zip(list, list.dropFirst()).allSatisfy(<)
                    && list.allSatisfy((0..<rowCount).contains)
            }
        guard isPossible else {
            throw CodecError(
                .unsupportedPlan,
                layer: layer,
                "\(stage.codec.name) must keep the same number of the layer's \(rowCount) rows in each KV head, ascending"
            )
        }
        return try keeping(rows)
    }
}

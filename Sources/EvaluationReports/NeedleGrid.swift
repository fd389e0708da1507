/// Context lengths and depths of which needles were hidden: a table that has no empty row or column.
public struct NeedleGrid: Sendable, Equatable {
    /// Tokens of prompts, ascending.
    public let contexts: [Int]
    /// Depths from 0, the beginning, to 1, ascending.
    public let depths: [Double]

    /// Cells of the table.
    public var cellCount: Int { contexts.count * depths.count }
}

extension EvaluationReport {
    /// The tables that hold all needles of all recipes: contexts with the same depths share one.
    ///
    /// One table of every context and every depth would be quadratic in what was measured where contexts have depths of
    /// their own.
    public var needleGrids: [NeedleGrid] {
        var depths: [Int: Set<Double>] = [:]
        for cell in recipes.lazy.flatMap({ $0.needle ?? [] }) { depths[cell.context, default: []].insert(cell.depth) }
        return Dictionary(grouping: depths.keys) { depths[$0] ?? [] }
            .map { depths, contexts in NeedleGrid(contexts: contexts.sorted(), depths: depths.sorted()) }
            .sorted { $0.contexts[0] < $1.contexts[0] }
    }
}

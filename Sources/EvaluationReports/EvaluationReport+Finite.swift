extension EvaluationReport {
    /// The report with nil for each number that isn't one, and without needles of no depth.
    var finite: EvaluationReport {
        var report = self
        report.recipes = recipes.map(\.finite)
        return report
    }
}

extension EvaluationReport.RecipeResult {
    fileprivate var finite: Self {
        var result = self
        for number in [
            \Self.ratio, \.bitsPerValue, \.kl, \.top1, \.perplexity, \.perplexityChange, \.attentionError, \.recall,
            \.recallSeen,
        ] where result[keyPath: number]?.isFinite == false {
            result[keyPath: number] = nil
        }
        result.needle = needle?.filter { $0.depth.isFinite }
        return result
    }

    /// Mean over contexts and depths of the share of needles found.
    func meanAccuracy(_ accuracy: KeyPath<EvaluationReport.NeedleCell, Double>) -> Double? {
        let measured = (needle ?? []).map { $0[keyPath: accuracy] }.filter(\.isFinite)
        return measured.isEmpty ? nil : measured.reduce(0, +) / Double(measured.count)
    }
}

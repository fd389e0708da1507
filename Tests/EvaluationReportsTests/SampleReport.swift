import EvaluationReports
import TestSupport
import ThinkCompress

/// Reports such as an evaluation makes, with numbers made up.
enum SampleReport {
    static let recipes = [
        "f16", "kivi(bits=4)", "kivi(bits=2)", "think(keys=0.4)", "think(keys=0.4)+kivi(bits=4)",
        "think(keys=0.4)+kivi(bits=2)", "kivi(keys=4,values=2)", "kivi(bits=8)", "think(keys=0.5)+kivi(bits=2)",
        "think(keys=0.4)+kivi(bits=2,residual=32)",
    ]
    private static let bits = [16.01, 4.71, 2.83, 12.84, 3.93, 2.71, 3.77, 8.72, 2.7, 2.79]
    private static let divergences = [0, 0.0021, 0.0484, 0.0102, 0.0131, 0.0993, 0.0187, 0.0000312, 0.1004, 0.0912]

    /// Measurements on text alone.
    static var text: EvaluationReport {
        var report = EvaluationReport(model: "A model", text: "a text.txt")
        report.prefixTokens = 2048
        report.continuationTokens = 256
        report.trials = 8
        report.recipes = recipes.indices.map { index in
            var result = EvaluationReport.RecipeResult(recipe: recipes[index])
            result.ratio = 16 / bits[index]
            result.bitsPerValue = bits[index]
            result.kl = divergences[index]
            result.top1 = 1 - divergences[index]
            result.perplexity = 11.83 * (1 + divergences[index])
            result.perplexityChange = divergences[index]
            result.attentionError = 4 * divergences[index]
            result.layerAttentionErrors = (1...4).map { Double($0) * 2 * divergences[index] }
            return result
        }
        return report
    }

    /// Needles alone.
    static var needles: EvaluationReport {
        var report = EvaluationReport(model: "A model", text: "a text.txt")
        report.recipes = recipes.enumerated().map { index, recipe in
            var result = EvaluationReport.RecipeResult(recipe: recipe)
            result.needle = [512, 1024, 2048, 4096].flatMap { context in
                [0, 0.25, 0.5, 0.75, 1].map { depth in
                    let lost = Double(index) * Double(context) * (1 - depth) / 40960
                    return EvaluationReport.NeedleCell(
                        context: context,
                        depth: depth,
                        trials: 20,
                        accuracy: 1 - lost,
                        seenAccuracy: 1 - lost / 2
                    )
                }
            }
            return result
        }
        return report
    }

    /// Everything that can be measured.
    static var full: EvaluationReport {
        var report = text
        report.recallPairs = 64
        report.recallTrials = 256
        for (index, result) in needles.recipes.enumerated() {
            report.recipes[index].needle = result.needle
            report.recipes[index].recall = 1 - Double(index) / 20
            report.recipes[index].recallSeen = 1 - Double(index) / 40
        }
        return report
    }

    /// So many recipes of random size and divergence, many of them close to each other.
    static func crowd(count: Int, seed: UInt64) -> EvaluationReport {
        var generator = SplitMix64(seed: seed)
        var report = EvaluationReport(model: "A model", text: "a text.txt")
        report.recipes = (0..<count).map { index in
            let name = recipes.randomElement(using: &generator) ?? "f16"
            var result = EvaluationReport.RecipeResult(recipe: "\(name) \(index)")
            let closeness: Double = [0.02, 0.3, 3].randomElement(using: &generator) ?? 3
            result.bitsPerValue = 2.7 + Double.random(in: 0...closeness, using: &generator)
            result.kl = Double.random(in: 0..<1, using: &generator) < 0.1 ? 0 : closeness * 0.03
            return result
        }
        return report
    }
}

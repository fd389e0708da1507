import EvaluationReports
import Foundation
import KVCacheCodecs
import KVCacheEvaluation
import LlamaDecoder
import TestSupport
import Testing
import ThinkCompress

/// Evaluations of the demo model on short prompts.
@Suite(.serialized) struct EvaluatorTests {
    private static let model = ProjectFiles.root.appending(path: "Tools/DemoModel").path

    private static func text() throws -> String {
        String(try String(contentsOfFile: "\(model)/text/postgresql-manual.txt", encoding: .utf8).prefix(12_000))
    }

    private static func evaluator(_ recipes: [String], text: String? = nil, seed: UInt64 = 1) throws -> Evaluator {
        let opened = try LlamaModel(path: model)
        return try Evaluator(
            decoder: TransformerDecoder(model: opened),
            text: try EvaluationText(text ?? Self.text(), model: opened),
            recipes: recipes.map { try Recipe($0) },
            metadata: ["model.id": "demo"],
            seed: seed
        )
    }

    private static func journal() throws -> EvaluationJournal {
        EvaluationJournal(
            subject: .init(
                metadata: ["model.id": "demo"],
                text: "t",
                textBytes: [1, 2].span.bytes,
                prompts: .plain,
                seed: 1
            )
        )
    }

    @Test func fullPrecisionCostsNothingAndComesFirst() async throws {
        let evaluator = try Self.evaluator(["kivi(bits=2,residual=32)", "kivi(bits=8,residual=32)"])
        let journal = try Self.journal()
        let task = EvaluationTask.text(prefix: 200, continuation: 20)
        try await evaluator.run([task], trials: 2, journal: journal)
        let names = evaluator.recipes.map(\.description)
        #expect(names == ["f16", "kivi(bits=2,residual=32)", "kivi(bits=8,residual=32)"])

        let report = EvaluationReport(journal, recipes: names, tasks: [task])
        #expect(report.recipes.map(\.recipe) == names)
        #expect(report.trials == 2 && report.prefixTokens == 200 && report.continuationTokens == 20)
        let (full, two, eight) = (report.recipes[0], report.recipes[1], report.recipes[2])
        #expect(full.kl == 0 && full.top1 == 1 && full.perplexityChange == 0 && full.attentionError == 0)
        #expect((full.ratio ?? 0) < 1 && (full.ratio ?? 0) > 0.9)
        #expect((two.kl ?? 0) > 0.03 && (two.kl ?? 1) < 0.5)
        #expect((eight.kl ?? 1) < 0.001 && (eight.kl ?? -1) > 0)
        #expect((two.attentionError ?? 0) > 10 * (eight.attentionError ?? 1))
        #expect(two.layerAttentionErrors?.count == 4)
        #expect((two.ratio ?? 0) > (eight.ratio ?? 9) && (eight.ratio ?? 0) > 1)
        #expect((full.perplexity ?? 0) > 5 && (full.perplexity ?? 1000) < 200)
        let change = try #require(two.perplexity) / (try #require(full.perplexity)) - 1
        #expect(abs((two.perplexityChange ?? 9) - change) < 1e-12)
    }

    @Test func selectedTokensAreMeasuredAgainstAll() async throws {
        let recipes = ["streaming(recent=60)", "snapkv(keep=0.5)", "keydiff(keep=0.5)+think(keys=0.4)+kivi(bits=4)"]
        let evaluator = try Self.evaluator(recipes)
        let journal = try Self.journal()
        let tasks: [EvaluationTask] = [
            .text(prefix: 256, continuation: 20), .needles(context: 256, depths: [0.2]),
            .recall(context: 256, pairs: 3, questions: 1),
        ]
        try await evaluator.run(tasks, trials: 1, journal: journal)
        let report = EvaluationReport(journal, recipes: ["f16"] + recipes, tasks: tasks)
        let full = report.recipes[0]
        for (recipe, share) in zip(report.recipes.dropFirst(), [0.25, 0.5, 0.5]) {
            #expect((recipe.kl ?? 0) > 0.001 && (recipe.kl ?? 9) < 3)
            #expect((recipe.attentionError ?? 0) > 0.001)
            // Bits and ratio are of all tokens.
            #expect((recipe.bitsPerValue ?? 99) < 16 * share + 0.2)
            #expect((recipe.ratio ?? 0) > (full.ratio ?? 9) * 0.8 / share)
        }
    }

    @Test func needlesAndPairsAreFoundInFullPrecision() async throws {
        let evaluator = try Self.evaluator(["kivi(bits=4,residual=32)"])
        let journal = try Self.journal()
        let tasks: [EvaluationTask] = [
            .needles(context: 256, depths: [0, 0.5, 1]), .recall(context: 300, pairs: 4, questions: 3),
        ]
        try await evaluator.run(tasks, trials: 3, journal: journal)
        let report = EvaluationReport(journal, recipes: ["f16"], tasks: tasks)
        for result in report.recipes {
            #expect(result.needle?.map(\.context) == [256, 256, 256])
            #expect(result.needle?.map(\.depth) == [0, 0.5, 1])
            #expect(result.needle?.allSatisfy { $0.trials == 3 && $0.accuracy == 1 && $0.seenAccuracy == 1 } == true)
            #expect(result.kl == nil && result.ratio == nil)
        }
        let recall = report.recipes.map { [$0.recall, $0.recallSeen] }
        #expect(recall.allSatisfy { $0.allSatisfy { ($0 ?? 0) >= 0.75 } }, "\(recall)")
        #expect(report.recallPairs == 4 && report.recallTrials == 9 && report.recipes[0].recallTrials == 9)
        #expect(report.prompts == "plain" && report.promptsText?.contains("no chat template") == true)
        #expect(report.recipes.map(\.recipe) == ["f16", "kivi(bits=4,residual=32)"])
    }

    /// Recipes are judged by what full precision answers, with the question unseen and seen.
    @Test func recipesAreJudgedByWhatFullPrecisionAnswers() throws {
        let journal = try Self.journal()
        let tasks: [EvaluationTask] = [
            .needles(context: 100, depths: [0, 1]), .recall(context: 100, pairs: 9, questions: 4),
        ]
        func add(_ recipe: String, _ task: Int, _ trial: Int, _ unseen: [Bool], _ seen: [Bool]) throws {
            try journal.add(
                .answers(unseen: unseen, seen: seen),
                for: TrialKey(task: tasks[task], trial: trial, recipe: recipe)
            )
        }
        try add("f16", 0, 0, [true, false], [true, false])
        try add("f16", 0, 1, [true, false], [true, false])
        try add("f16", 1, 0, [true, true, true, false], [true, true, false, false])
        try add("kivi(bits=2)", 0, 0, [false, true], [true, true])
        try add("kivi(bits=2)", 0, 1, [true, true], [true, true])
        // Of a prompt that full precision was not asked, nothing is known.
        try add("kivi(bits=2)", 0, 2, [true, true], [true, true])
        try add("kivi(bits=2)", 1, 0, [true, false, true, true], [true, true, true, true])
        let report = EvaluationReport(journal, recipes: ["f16"], tasks: tasks)
        let (full, two) = (report.recipes[0], report.recipes[1])
        #expect(full.needle?.map(\.accuracy) == [1, 0] && full.needle?.map(\.trials) == [2, 2])
        #expect(two.needle?.map(\.depth) == [0] && two.needle?.map(\.trials) == [2])
        #expect(two.needle?.map(\.accuracy) == [0.5] && two.needle?.map(\.seenAccuracy) == [1])
        #expect(full.recall == 0.75 && full.recallSeen == 0.5 && full.recallTrials == 4)
        #expect(two.recall == 0.5 && two.recallSeen == 1 && two.recallTrials == 2)
        #expect(report.recallTrials == 4)
    }

    @Test func whatHasBeenMeasuredIsNotMeasuredAgain() async throws {
        let folder = try TemporaryFolder()
        let path = folder.file("results.jsonl")
        let subject = try Self.journal().subject
        let task = EvaluationTask.needles(context: 200, depths: [0.5])
        func run(_ recipe: String) async throws -> Int {
            let journal = try EvaluationJournal(path: path, subject: subject)
            try await Self.evaluator([recipe]).run([task], trials: 2, journal: journal)
            return journal.records.count
        }
        #expect(try await run("f16") == 2)
        let first = try Data(contentsOf: URL(filePath: path))
        // One more recipe: its outcomes are added and the others stay as they are.
        #expect(try await run("kivi(bits=4)") == 4)
        let second = try Data(contentsOf: URL(filePath: path))
        #expect(second.starts(with: first))
        #expect(second.split(separator: UInt8(ascii: "\n")).count == 5)
    }

    @Test func questionsThatHaveNoTokensAreErrors() async throws {
        let folder = try TemporaryFolder()
        var builder = GGUFBuilder.model()
        // Another vocabulary of as many tokens, in which nothing is spelt but these.
        builder["tokenizer.ggml.tokens"] = .strings(
            (0..<28).map { String(repeating: "@", count: $0 + 1) } + ["<s>", "</s>"]
        )
        builder["tokenizer.ggml.merges"] = .strings([])
        try builder.write(to: folder.file("model.gguf"))
        let opened = try LlamaModel(path: folder.file("model.gguf"))
        let evaluator = try Evaluator(
            decoder: TransformerDecoder(model: opened),
            text: try EvaluationText(String(repeating: "@", count: 200), model: opened),
            recipes: [try Recipe("f16")],
            metadata: [:],
            seed: 1
        )
        let task = EvaluationTask.needles(context: 60, depths: [0.5])
        let error = await #expect(throws: EvaluationError.self) {
            try await evaluator.run([task], trials: 1, journal: try Self.journal())
        }
        #expect(error?.message.contains("makes 0 tokens of the question") == true)
    }

    @Test func promptsThatCannotBeMadeAreErrors() async throws {
        let evaluator = try Self.evaluator(["f16"])
        for (task, words) in [
            (EvaluationTask.text(prefix: 4090, continuation: 10), "4096 positions"),
            (.needles(context: 5000, depths: [0]), "4096 positions"),
            (.needles(context: 30, depths: [0]), "too short"),
            (.recall(context: 512, pairs: 500, questions: 1), "500 pairs"),
            (.recall(context: 512, pairs: 5, questions: 6), "6 questions"),
            (.recall(context: 100, pairs: 40, questions: 1), "too short"),
            (.needles(context: 512, depths: []), "depths"), (.needles(context: 512, depths: [0.5, 0]), "depths"),
            (.needles(context: 512, depths: [0, .nan]), "depths"), (.text(prefix: 1, continuation: 5), "has no text"),
        ] {
            let error = await #expect(throws: EvaluationError.self) {
                try await evaluator.run([task], trials: 1, journal: try Self.journal())
            }
            #expect(error?.message.contains(words) == true, "\(error?.message ?? "none")")
        }
        let short = try Self.evaluator(["f16"], text: "Too short a text.")
        let error = await #expect(throws: EvaluationError.self) {
            try await short.run([.needles(context: 200, depths: [0])], trials: 1, journal: try Self.journal())
        }
        #expect(error?.message.contains("pass a longer text") == true)
    }
}

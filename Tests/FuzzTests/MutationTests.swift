import Foundation
import FuzzTargets
import TestSupport
import Testing

/// Mutated inputs of all parsers end in an error of ours or in a value that can be used, and cost little.
@Suite("Mutated inputs") struct MutationTests {
    /// How many of each parser's; `Tools/fuzz` asks for more.
    static let shares: [(target: ParserTarget, count: Int)] = [
        (.snapshot, 3250), (.dump, 2000), (.profile, 2000), (.tokenizer, 2250), (.text, 1500), (.configuration, 2000),
        (.generation, 750), (.tokenizerSettings, 750), (.weightIndex, 750), (.weights, 750), (.gguf, 1000),
        (.journal, 1000), (.profileJournal, 500), (.recipe, 1500),
    ]
    static let total = shares.reduce(0) { $0 + $1.count }
    static let settings = ProcessInfo.processInfo.environment
    static let seed = settings["THINK_COMPRESS_FUZZ_SEED"].flatMap { UInt64($0) } ?? 1
    static let mutations = settings["THINK_COMPRESS_FUZZ_MUTATIONS"].flatMap { Int($0) } ?? total

    @Test("every parser has its share of 20,000") func everyParserHasItsShare() {
        #expect(Self.total == 20_000)
        #expect(Set(Self.shares.map(\.target)) == Set(ParserTarget.allCases))
    }

    @Test("are refused or used", arguments: MutationTests.shares)
    func areRefusedOrUsed(target: ParserTarget, count: Int) async throws {
        let folder = try TemporaryFolder()
        let run = MutationRun(
            target: target,
            seed: Self.seed,
            count: count * Self.mutations / Self.total,
            progress: folder.file("progress")
        )
        let result = await #expect(processExitsWith: .success) { [run = run as MutationRun] in
            try await run()
        }
        if Self.mutations > Self.total { print(run.report) }
        if result == nil { Issue.record("\(run.report)") }
    }

    /// For `Tools/fuzz --save`.
    @Test("one of them is written to a file", .enabled(if: MutationTests.settings["THINK_COMPRESS_FUZZ_SAVE"] != nil))
    func save() async throws {
        let words = (Self.settings["THINK_COMPRESS_FUZZ_SAVE"] ?? "").split(separator: " ")
        let target = try #require(words.first.flatMap { ParserTarget(rawValue: String($0)) })
        let number = try #require(words.last.flatMap { Int($0) })
        let name = "\(target)-\(Self.seed)-\(number)"
        try await Data(Mutator(target, seed: Self.seed).mutation(number))
            .write(to: URL(filePath: FailCaseTests.folder).appending(path: name))
    }

    /// For `Tools/fuzz --guided`, which begins with the same valid inputs.
    @Test(
        "what they are made from is written to a folder",
        .enabled(if: MutationTests.settings["THINK_COMPRESS_FUZZ_CORPUS"] != nil)
    )
    func corpus() async throws {
        let folder = try URL(filePath: #require(Self.settings["THINK_COMPRESS_FUZZ_CORPUS"]))
        for target in ParserTarget.allCases {
            let place = folder.appending(path: target.rawValue)
            try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
            for (index, input) in try await Corpus.inputs(of: target).enumerated() {
                try Data(input).write(to: place.appending(path: "\(index)"))
            }
        }
    }
}

import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Random sequences of what can be done to caches, against a model of plain numbers: appending, cutting, copying,
/// restoring, attending, saving and loading.
///
/// 500 steps; as many as the environment variable THINK_COMPRESS_SEQUENCE_STEPS says where it is set, such as 50000 after
/// changes of packing. A sequence that goes wrong is shrunk and printed.
@Suite struct RandomSequenceTests {
    typealias Layer = CacheSequence.Kind.Layer

    static let kinds = [
        CacheSequence.Kind(
            name: "layers that hold all tokens",
            layers: [Layer(hasMeans: true), Layer(sinks: 40, keyDimension: 5, valueDimension: 20), Layer(held: .none)],
            residualWindow: 20
        ),
        CacheSequence.Kind(
            name: "blocks of 64 tokens, keys alone",
            layers: [Layer(sinks: 4), Layer(sinks: 64, valueDimension: 0, hasMeans: true)],
            elementType: .bfloat16,
            blockLength: 64
        ),
        CacheSequence.Kind(
            name: "sliding-window layers",
            layers: [Layer(held: .last, hasMeans: true), Layer(sinks: 4, keyDimension: 7)],
            elementType: .float32,
            residualWindow: 33
        ),
        CacheSequence.Kind(
            name: "listed tokens and state",
            layers: [
                Layer(held: .listed, sinks: 4), Layer(held: .none, hasState: true),
                Layer(held: .listed, valueDimension: 12, hasMeans: true),
            ],
            blockLength: 128,
            residualWindow: 1
        ),
    ]

    private static let steps =
        ProcessInfo.processInfo.environment["THINK_COMPRESS_SEQUENCE_STEPS"].flatMap(Int.init) ?? 500
    /// Steps of a sequence.
    private static let length = 125

    private static func steps(seed: UInt64) -> [CacheStep] {
        var generator = SplitMix64(seed: seed)
        return (0..<length).map { _ in CacheStep.random(using: &generator) }
    }

    @Test("have every action, even the first")
    func actions() {
        let names = Self.steps(seed: 0).map { String("\($0.action)".prefix { $0.isLetter }) }
        #expect(
            Set(names) == ["begin", "append", "truncate", "fork", "detach", "decompress", "attend", "saveAndLoad"]
        )
    }

    @Test("give what plain numbers give", arguments: kinds)
    func sequences(kind: CacheSequence.Kind) async throws {
        let count = max(Self.steps / Self.kinds.count / Self.length, 1)
        for seed in 0..<UInt64(count) {
            let sequence = CacheSequence(kind: kind, steps: Self.steps(seed: seed))
            guard await sequence.failure() != nil else { continue }
            let smallest = await sequence.shrunk()
            let text = smallest.steps.map(\.description).joined(separator: "\n")
            let failure = await smallest.failure() ?? "nothing, when run again"
            Issue.record("seed \(seed) of \(kind.name): \(failure)\nin\n\(text)")
            return
        }
    }
}

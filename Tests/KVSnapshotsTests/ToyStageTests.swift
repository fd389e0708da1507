import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Keeps the key channels of largest mean square in full precision, and leaves the others to the next stage.
struct OutlierStage: CodecStage {
    /// Channels of each KV head.
    let keys: Int

    static let registration = CodecRegistration(
        number: 1001,
        name: "outliers",
        role: .channelSelection,
        parameterNames: ["keys"],
        example: "outliers(keys=4)",
        help: "keeps so many key channels, those of largest mean square, in full precision"
    ) { (parameters) throws(RecipeError) in
        OutlierStage(keys: try parameters.integer("keys", in: 1...1024) ?? 4)
    }

    var codec: CodecRegistration { Self.registration }
    var parameters: [StageParameter] { [StageParameter("keys", keys)] }

    func decide(_ statistics: inout LayerStatistics, draft: inout LayerDraft) throws(CodecError) {
        for head in draft.heads.indices {
            let squares = try statistics.meanSquares(.keys, head: head)
            let largest = Set(squares.indices.sorted { (-squares[$0], $0) < (-squares[$1], $1) }.prefix(keys))
            draft.heads[head].keyRuns = draft.heads[head].keyRuns.flatMap { run -> [HeadDraft.KeyRun] in
                guard run.coding == nil else { return [run] }
                let outliers = run.channels.filter { largest.contains(Int($0)) }
                let others = run.channels.filter { !largest.contains(Int($0)) }
                return [
                    HeadDraft.KeyRun(channels: outliers, coding: .fullPrecision),
                    HeadDraft.KeyRun(channels: others),
                ]
            }
        }
    }
}

/// The stage of CONTRIBUTING.md, "Add a codec in an afternoon", all the way: nothing but its registry knows it.
@Suite struct ToyStageTests {
    /// Channels 3, 14, 25 and so on of `TestCache` are far louder than the others.
    static let loudest: [UInt16] = [3, 14, 25, 36, 47, 58]
    static let registry = CodecRegistry([OutlierStage.registration, KIVICodec.registration])
    static let text = "outliers(keys=6)+kivi(bits=2,residual=32)"
    /// Of 300 tokens; the others are in the window.
    static let blockTokens = 256

    /// A cache, and what a reader that knows no stage has of its snapshot.
    private struct Journey: Sendable {
        let cache: KVCache
        let compressed: CompressedCache
        let reader: SnapshotReader
        let reopened: CompressedCache

        init() async throws {
            var maker = TestCache()
            maker.layers = 1
            cache = try maker.make()
            compressed = try await CompressedCache(compressing: cache, recipe: Recipe(text, registry: registry))
            var file = SnapshotBytes()
            try await SnapshotWriter().write(compressed, into: &file)
            reader = try SnapshotReader(SharedBytes(file.bytes))
            try await reader.verify()
            reopened = try await reader.cache()
        }
    }

    private static let journey = Task { try await Journey() }

    @Test("its decision is in the plan, beside that of the stage after it")
    func plan() async throws {
        let journey = try await Self.journey.value
        let twoBits = try Coding(width: 2)
        let others = (0..<UInt16(64)).filter { !Self.loudest.contains($0) }
        let heads = journey.reader.plans.flatMap(\.heads)
        #expect(heads.count == 2)
        for head in heads {
            #expect(head.keyRuns.map(\.coding) == [.fullPrecision, twoBits])
            #expect(head.keyRuns.map(\.channels) == [Self.loudest, others])
            #expect(head.values == twoBits)
        }
    }

    @Test("its name and number come back as they are, and only its own registry knows them")
    func recipe() async throws {
        let record = try #require(try await Self.journey.value.reader.recipe)
        #expect(record.stages.map(\.codecNumber) == [1001, 4])
        #expect(record.stages.map(\.text) == ["outliers(keys=6)", "kivi(bits=2,residual=32)"])
        #expect(record.description == Self.text)
        #expect(try Recipe(record, registry: Self.registry).description == Self.text)
        let error = #expect(throws: RecipeError.self) { try Recipe(record, registry: .standard) }
        #expect(error?.message.hasPrefix("there is no codec 'outliers'") == true)
    }

    @Test("keys and values come back as the plan says")
    func restoring() async throws {
        let journey = try await Self.journey.value
        for (original, layer) in zip(journey.cache.layers, journey.reopened.layers) {
            let restored = try layer.decompress(rows: 0..<layer.rowCount, as: .float32)
            let (keys, values) = (original.keys.numbers, original.values.numbers)
            var (expectedKeys, expectedValues) = (keys, values)
            for head in 0..<2 {
                for block in stride(from: 0, to: Self.blockTokens, by: 32) {
                    let tokens = (head * 300 + block..<head * 300 + block + 32)
                    for channel in 0..<64 where !Self.loudest.contains(UInt16(channel)) {
                        let group = ReferenceGroup(tokens.map { keys[$0 * 64 + channel] }, bits: 2)
                        for token in tokens {
                            expectedKeys[token * 64 + channel] = group.restored(keys[token * 64 + channel])
                        }
                    }
                    for start in tokens.flatMap({ [$0 * 64, $0 * 64 + 32] }) {
                        let group = ReferenceGroup(values[start..<start + 32], bits: 2)
                        for index in start..<start + 32 { expectedValues[index] = group.restored(values[index]) }
                    }
                }
            }
            #expect(expectedKeys != keys)
            let hasKeys = restored.keys.numbers == expectedKeys
            let hasValues = restored.values.numbers == expectedValues
            #expect(hasKeys && hasValues)
        }
    }

    @Test("attention over it agrees with attention over what it restores")
    func attention() async throws {
        let journey = try await Self.journey.value
        let attention = Attention(precision: .precise)
        let workers = WorkerThreads(threadCount: 2)
        for (original, layer) in zip(journey.cache.layers, journey.reopened.layers) {
            let queries = try #require(original.queries)[tokens: 29..<32]
            var output = [Float](repeating: .nan, count: 3 * 4 * 64)
            var span = output.mutableSpan
            try attention.attend(queries, over: layer, using: workers, into: &span)
            let restored = try layer.decompress(rows: 0..<layer.rowCount, as: .float32)
            #expect(ReferenceAttention(queries, over: [restored]).relativeError(of: output) < 5e-4)
        }
    }

    @Test("tokens are appended by the plan alone")
    func appending() async throws {
        let journey = try await Self.journey.value
        let new = journey.cache.layers(tokens: 40..<110)
        var (reopened, compressed) = (journey.reopened, journey.compressed)
        try reopened.append(new)
        try compressed.append(new)
        #expect(reopened.layers[0].extent.blockEnd == 320)
        #expect(CacheContent(reopened).difference(from: CacheContent(compressed)) == nil)
    }

    @Test("the guide has this stage, word for word")
    func guide() throws {
        let guide = try String(contentsOf: ProjectFiles.root.appending(path: "CONTRIBUTING.md"), encoding: .utf8)
        let code = try #require(guide.components(separatedBy: "```swift\n").dropFirst().first)
        let stage = try #require(code.components(separatedBy: "```").first)
        #expect(stage.hasPrefix("/// Keeps the key channels of largest mean square"))
        #expect(try String(contentsOfFile: #filePath, encoding: .utf8).contains(stage))
    }
}

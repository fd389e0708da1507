import Foundation
import LlamaDecoder
import TestSupport
import Testing
import ThinkCompress

/// Bytes of a model's files that changed: an error or a model that computes, never a trap.
@Suite struct DamagedModelTests {
    /// Rounds of each case; more on request.
    private static let rounds =
        ProcessInfo.processInfo.environment["THINK_COMPRESS_FUZZ_ROUNDS"].flatMap(Int.init) ?? 60

    @Test(
        arguments: ["config.json", "model.safetensors.index.json", "model-00001-of-00003.safetensors"],
        [1, 2] as [UInt64]
    )
    func changedBytes(name: String, seed: UInt64) async throws {
        let copy = try ModelFolderCopy(of: "llama-2")
        let url = URL(filePath: copy.file(name))
        let content = try Data(contentsOf: url)
        var random = SplitMix64(seed: seed)
        var opened = 0
        for _ in 0..<Self.rounds {
            var damaged = content
            // Weights are data: what matters of their files is the header.
            let length = min(damaged.count, 2000)
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                let place = Int.random(in: 0..<length, using: &random)
                switch Int.random(in: 0..<3, using: &random) {
                case 0: damaged[place] = UInt8.random(in: 0...255, using: &random)
                case 1: damaged[place] = "0123456789-.e\"{}[],:".utf8.randomElement(using: &random) ?? 0
                default: damaged.remove(at: place)
                }
            }
            try damaged.write(to: url)
            guard let model = try? LlamaModel(path: copy.path) else { continue }
            opened += 1
            let decoder = TransformerDecoder(model: model, threadCount: 1)
            _ = try? await decoder.prefill([1, 2, 3, 4], recipe: try Recipe("f16"))
        }
        #expect(opened < Self.rounds)
    }
}

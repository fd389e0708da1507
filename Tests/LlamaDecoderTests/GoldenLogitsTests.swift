import ByteStorage
import EngineFormats
import Foundation
import LlamaDecoder
import TestSupport
import Testing
import ThinkCompress

/// Logits of `transformers` in float32: Tools/make-model-fixtures.
@Suite struct GoldenLogitsTests {
    /// What float32 rounding and approximations of exponentials leave; a wrong window, frequency or bias gives a
    /// hundred times more.
    static let tolerance = 2e-5

    static let models = [
        "llama-2", "llama-3", "llama-linear", "llama-yarn", "llama-dynamic", "mistral", "mistral-longrope", "qwen2",
        "qwen2-window", "qwen2-yarn", "qwen3", "qwen3-window", "gemma3", "gemma3-capped",
    ]

    @Test(arguments: models) func logitsOfTinyModelsAgree(name: String) async throws {
        let folder = ProjectFiles.fixture("models/\(name)")
        let expected = try SafetensorsFile(MappedFile.bytes(path: "\(folder)/expected.safetensors"))
        let decoder = TransformerDecoder(model: try LlamaModel(path: folder))
        let logits = try await decoder.logits(try expected.integers("tokens"))
        #expect(try relativeError(logits, expected.floats("logits")) < Self.tolerance)
    }

    @Test(arguments: models) func continuingACacheGivesTheSameLogits(name: String) async throws {
        let folder = ProjectFiles.fixture("models/\(name)")
        let expected = try SafetensorsFile(MappedFile.bytes(path: "\(folder)/expected.safetensors"))
        let tokens = try expected.integers("tokens")
        let decoder = TransformerDecoder(model: try LlamaModel(path: folder))
        let start = tokens.count - 20
        var cache = try await decoder.prefill(Array(tokens[..<start]), recipe: try Recipe("f32")).cache
        var logits = try decoder.extend(&cache, with: Array(tokens[start..<tokens.count - 3]), logits: .all)
        for token in tokens.suffix(3) { logits += try decoder.extend(&cache, with: [token]) }
        // Where keys depend on how long the text was, they aren't those of one pass.
        let isStepwise = expected.tensors["cachedLogits"] != nil
        #expect(isStepwise == (decoder.model.configuration.rotary.lengthIndependentTokens != nil))
        let all = try expected.floats(isStepwise ? "cachedLogits" : "logits")
        #expect(relativeError(logits, all.suffix(logits.count)) < Self.tolerance)
        #expect(cache.tokens == tokens)
    }

    @Test func logitsOfTheDemoModelAgree() async throws {
        let expected = try SafetensorsFile(
            MappedFile.bytes(path: ProjectFiles.fixture("demo-model.expected.safetensors"))
        )
        let decoder = TransformerDecoder(model: try DemoModel.open())
        let width = decoder.model.configuration.vocabularySize
        let logits = try await decoder.logits(try expected.integers("tokens"))
        let chosen = try expected.integers("positions").flatMap { logits[Int($0) * width..<(Int($0) + 1) * width] }
        #expect(try relativeError(chosen, expected.floats("logits")) < Self.tolerance)

        let long = try await decoder.prefill(try expected.integers("longTokens"), recipe: try Recipe("f32"))
        #expect(try relativeError(long.logits, expected.floats("longLogits")) < Self.tolerance)
    }
}

/// The Frobenius norm of the difference over that of `right`.
func relativeError(_ left: [Float], _ right: some Collection<Float>) -> Double {
    guard left.count == right.count else { return .infinity }
    func square(_ value: Float) -> Double { Double(value) * Double(value) }
    let difference = zip(left, right).reduce(0) { $0 + square($1.0 - $1.1) }
    return (difference / right.reduce(0) { $0 + square($1) }).squareRoot()
}

extension SafetensorsFile {
    private func words(_ name: String) throws -> [UInt32] {
        let bytes = try #require(tensors[name]).bytes
        return bytes.span.withUnsafeBytes { buffer in
            (0..<buffer.count / 4).map {
                UInt32(littleEndian: buffer.loadUnaligned(fromByteOffset: $0 * 4, as: UInt32.self))
            }
        }
    }

    func integers(_ name: String) throws -> [Int32] { try words(name).map(Int32.init(bitPattern:)) }

    func floats(_ name: String) throws -> [Float] { try words(name).map(Float.init(bitPattern:)) }
}

/// The model of the demo.
enum DemoModel {
    static let path = ProjectFiles.root.appending(path: "Tools/DemoModel").path

    static func open() throws -> LlamaModel { try LlamaModel(path: path) }
}

import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Codes, scales and errors against what the paper's own code made in float32.
@Suite struct KIVIGoldenTests {
    /// How near to a rounding tie the reference's position may be for codes to differ: the stored scale and minimum are
    /// float16, which moves positions by about 15 * 2^-11.
    static let tieMargin: Float = 0.03
    /// How much larger the squared error may be than the reference's, for the same reason.
    static let errorAllowance = 1.01
    /// Relative rounding of a scale or minimum to float16.
    static let halfPrecision: Float = 1 / 2048

    struct Case: Sendable, CustomStringConvertible {
        let file: String
        let bits: Int
        let layer: Int
        var description: String { "\(file) layer \(layer), \(bits) bits" }
    }

    static let cases = [("reference-a", 0), ("reference-a", 1), ("reference-b", 0)].flatMap { file, layer in
        [2, 4].map { Case(file: file, bits: $0, layer: layer) }
    }

    @Test("agrees with the paper's code", arguments: cases)
    func agreesWithReference(_ test: Case) async throws {
        let cache = try CacheDump.read(path: ProjectFiles.fixture("\(test.file).safetensors"))
        let expected = try SafetensorsFile(
            MappedFile.bytes(path: ProjectFiles.fixture("\(test.file).expected.safetensors"))
        )
        let recipe = try Recipe("kivi(bits=\(test.bits),residual=0)")
        let compressed = try await CompressedCache(compressing: cache, recipe: recipe)
        let layer = compressed.layers[test.layer]
        let source = cache.layers[test.layer]
        #expect(layer.blockTokenCount == cache.tokenCount / 32 * 32)
        let restored = try layer.decompress(rows: 0..<layer.blockTokenCount, as: .float32)
        for part in ["keys", "values"] {
            let isKeys = part == "keys"
            let reference = try Reference(
                expected,
                prefix: "layers.\(test.layer).kivi\(test.bits).\(part)",
                bits: test.bits,
                isKeys: isKeys
            )
            try check(
                layer,
                isKeys: isKeys,
                original: (isKeys ? source.keys : source.values),
                restored: (isKeys ? restored.keys : restored.values).numbers,
                reference: reference,
                bits: test.bits
            )
        }
    }

    private func check(
        _ layer: CompressedLayer,
        isKeys: Bool,
        original: KVTensor,
        restored: [Float],
        reference: Reference,
        bits: Int
    ) throws {
        let numbers = original.numbers
        let dimension = layer.geometry.keyDimension
        let tokens = layer.blockTokenCount
        var ourError = 0.0
        var referenceError = 0.0
        var differing = 0
        for head in 0..<layer.geometry.kvHeads {
            for token in 0..<tokens {
                let view = PackedBlock(layer: layer, block: token / 32, head: head, bits: bits)
                for channel in 0..<dimension {
                    let x = numbers[(head * original.tokens + token) * dimension + channel]
                    let scale = reference.scale(head: head, token: token, channel: channel)
                    let minimum = reference.minimum(head: head, token: token, channel: channel)
                    let code = reference.code(head: head, token: token, channel: channel)
                    let packed = isKeys ? view.key(token % 32, channel) : view.value(token % 32, channel)
                    #expect(abs(packed.scale - scale) <= scale * Self.halfPrecision)
                    #expect(abs(packed.minimum - minimum) <= abs(minimum) * Self.halfPrecision)
                    if packed.code != code {
                        differing += 1
                        let position = (x - minimum) / scale
                        #expect(abs(abs(position - position.rounded(.down)) - 0.5) < Self.tieMargin)
                    }
                    let ours = Double(x) - Double(restored[(head * tokens + token) * dimension + channel])
                    let theirs = Double(x) - Double(Float(code) * scale + minimum)
                    ourError += ours * ours
                    referenceError += theirs * theirs
                }
            }
        }
        #expect(ourError <= referenceError * Self.errorAllowance)
        #expect(differing < tokens * dimension * layer.geometry.kvHeads / 50)
    }
}

/// Codes, scales and minima as the reference has them.
private struct Reference {
    private let codes: [UInt32]
    private let scales: [Float]
    private let minima: [Float]
    private let shape: [Int]
    private let groupShape: [Int]
    private let bits: Int
    private let isKeys: Bool

    init(_ file: SafetensorsFile, prefix: String, bits: Int, isKeys: Bool) throws {
        let code = try #require(file.tensors["\(prefix).code"])
        let scale = try #require(file.tensors["\(prefix).scale"])
        let minimum = try #require(file.tensors["\(prefix).min"])
        codes = code.words
        scales = scale.words.map(Float.init(bitPattern:))
        minima = minimum.words.map(Float.init(bitPattern:))
        shape = code.shape
        groupShape = scale.shape
        self.bits = bits
        self.isKeys = isKeys
    }

    func code(head: Int, token: Int, channel: Int) -> Int {
        let perWord = 32 / bits
        let (row, column, place) =
            isKeys ? (token / perWord, channel, token % perWord) : (token, channel / perWord, channel % perWord)
        let word = codes[(head * shape[1] + row) * shape[2] + column]
        return Int(word >> UInt32(place * bits) & (1 << UInt32(bits) - 1))
    }

    func scale(head: Int, token: Int, channel: Int) -> Float { scales[group(head, token, channel)] }
    func minimum(head: Int, token: Int, channel: Int) -> Float { minima[group(head, token, channel)] }

    private func group(_ head: Int, _ token: Int, _ channel: Int) -> Int {
        let (row, column) = isKeys ? (token / 32, channel) : (token, channel / 32)
        return (head * groupShape[1] + row) * groupShape[2] + column
    }
}

extension SafetensorsFile.Tensor {
    var words: [UInt32] {
        let bytes = bytes.array
        return stride(from: 0, to: bytes.count, by: 4).map { start in
            (0..<4).reduce(0) { $0 | UInt32(bytes[start + $1]) << UInt32(8 * $1) }
        }
    }
}

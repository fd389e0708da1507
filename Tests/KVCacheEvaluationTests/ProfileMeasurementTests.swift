import Foundation
import KVCacheEvaluation
import LlamaDecoder
import TestSupport
import Testing
import TextTokenization
import ThinkCompress

/// What errors cost models: a tiny one of random weights, and the demo model.
@Suite(.serialized) struct ProfileMeasurementTests {
    private static let tiny = ProjectFiles.fixture("models/llama-3")
    private static let demo = ProjectFiles.root.appending(path: "Tools/DemoModel").path

    private static func text() throws -> String {
        String(try String(contentsOfFile: "\(demo)/text/postgresql-manual.txt", encoding: .utf8).prefix(1_500))
    }

    private static func settings(_ effort: ProfileSettings.Effort, prefix: Int = 200, seed: UInt64 = 1)
        -> ProfileSettings
    {
        ProfileSettings(
            metadata: ["model.id": "tiny"],
            texts: ["d"],
            effort: effort,
            context: 512,
            prefix: prefix,
            seed: seed
        )
    }

    private static func measurement(
        _ settings: ProfileSettings,
        model: String = tiny,
        text: String? = nil
    ) throws -> ProfileMeasurement {
        let decoder = TransformerDecoder(model: try LlamaModel(path: model))
        return try ProfileMeasurement(decoder: decoder, texts: [try text ?? Self.text()], settings: settings)
    }

    private static func measure(_ settings: ProfileSettings, model: String = tiny) async throws -> [LayerProfile] {
        try await measurement(settings, model: model).measure(journal: ProfileJournal(settings: settings))
    }

    @Test func queriesAloneAreMeasuredByNoEffort() async throws {
        let settings = Self.settings(.queries)
        let measurement = try Self.measurement(settings)
        let layers = try await measurement.measure(journal: ProfileJournal(settings: settings))
        #expect(layers.count == 2 && layers.allSatisfy { $0.sensitivity == nil })
        let model = try LlamaModel(path: Self.tiny)
        for (index, layer) in layers.enumerated() {
            #expect(try layer.outputWeights == model.outputWeightSquares(layer: index).map { Float($0) })
        }
        #expect(layers.allSatisfy { $0.meanSquaredQueries.count == 64 && $0.meanSquaredQueries.allSatisfy { $0 > 0 } })
        #expect(measurement.metadata["profile.effort"] == "0" && measurement.metadata["profile.method"] == nil)
        #expect(measurement.metadata["profile.tokens"] == "\(measurement.tokenCount)")
    }

    @Test(arguments: [ProfileSettings.Effort.layers, .heads, .bands])
    func theSameSeedGivesTheSameNumbers(effort: ProfileSettings.Effort) async throws {
        let first = try await Self.measure(Self.settings(effort))
        #expect(try await Self.measure(Self.settings(effort)) == first)
        for layer in first {
            let sensitivity = try #require(layer.sensitivity)
            #expect(sensitivity.keys.count == 64 && sensitivity.values.count == 64)
            #expect(layer.outputWeights?.count == 64)
            for numbers in [sensitivity.keys, sensitivity.values, sensitivity.valueVariances] {
                #expect(numbers.allSatisfy { $0 >= 0 && $0.isFinite } && numbers.contains { $0 > 0 })
            }
        }
        let other = try await Self.measure(Self.settings(effort, seed: 2))
        #expect(other != first)
        #expect(other.map(\.meanSquaredQueries) == first.map(\.meanSquaredQueries))
    }

    /// By the text of Formats/profile.md, with other noise: what each layer's errors cost is about the same.
    @Test func sensitivitiesAreThoseOfDifferencesByHand() async throws {
        let prefix = 384
        let text = try Self.text()
        let settings = Self.settings(.layers, prefix: prefix)
        let profile = try await Self.measure(settings)
        let decoder = TransformerDecoder(model: try LlamaModel(path: Self.tiny))
        let tokens = try decoder.model.tokenizer.encode(text, addingSpecialTokens: false)
        let beginning = decoder.model.tokenizer.leadingTokens
        let length = prefix + 64 - beginning.count
        let places = tokens.count - length + 1
        var sums = [[Double]](repeating: [0, 0], count: 2)
        for index in 0..<3 {
            let start = (2 * index + 1) * places / 6
            let read = beginning + tokens[start..<start + length]
            let cache = try await decoder.fullCache(Array(read[..<prefix]), elementType: .float32)
            // The text, and 64 tokens that carry noise again.
            let copy = 4 + (2 * index + 1) * (prefix - 132 - 64) / 6
            let following = Array(read[prefix...]) + read[copy..<copy + 64]
            let continuation = try decoder.probedContinuation(of: cache, with: following)
            for (number, layer) in cache.layers.enumerated() {
                for (part, tensor) in [layer.keys, layer.values].enumerated() {
                    var random = SplitMix64(seed: UInt64(index * 100 + number * 10 + part))
                    let (noisy, errors) = Self.noisy(tensor, using: &random)
                    let changed =
                        part == 0
                        ? KVCacheLayer(keys: noisy, values: layer.values)
                        : KVCacheLayer(keys: layer.keys, values: noisy)
                    let logits = try decoder.logits(of: continuation, replacing: number, by: changed)
                    let cost = divergence(continuation.logits, logits, width: 128)
                    let sensitivity = try #require(profile[number].sensitivity)
                    let expected = zip(part == 0 ? sensitivity.keys : sensitivity.values, errors).reduce(0) {
                        $0 + Double($1.0) * $1.1
                    }
                    sums[number][part] += cost / expected / 3
                }
            }
        }
        #expect(sums.joined().allSatisfy { (0.4...2.5).contains($0) }, "\(sums)")
    }

    /// Noise of 0.3 of each channel's standard deviation, uniform, and its mean squares.
    private static func noisy(_ tensor: KVTensor, using random: inout SplitMix64) -> (KVTensor, [Double]) {
        var numbers = tensor.numbers
        let (count, dimension) = (tensor.tokens, tensor.headDimension)
        var errors: [Double] = []
        for head in 0..<tensor.heads {
            for channel in 0..<dimension {
                let column = (4..<count).map { numbers[(head * count + $0) * dimension + channel] }
                let mean = column.reduce(0, +) / Float(column.count)
                let variance = column.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Float(column.count)
                let width = 0.3 * (3 * variance).squareRoot()
                var sum = 0.0
                for token in 4..<count - 128 {
                    let noise = Float.random(in: -width...width, using: &random)
                    numbers[(head * count + token) * dimension + channel] += noise
                    sum += Double(noise * noise)
                }
                errors.append(sum / Double(count - 132))
            }
        }
        return (KVTensor(numbers, elementType: .float32, heads: tensor.heads, headDimension: dimension), errors)
    }

    /// A continuation after an unchanged cache is the same, and errors in no token that is seen cost nothing.
    @Test func anUnchangedLayerChangesNothing() async throws {
        let decoder = TransformerDecoder(model: try LlamaModel(path: Self.tiny))
        let tokens = try decoder.model.tokens(of: Self.text())
        let prefix = try await decoder.fullCache(Array(tokens[..<200]), elementType: .float32)
        let continuation = try decoder.probedContinuation(of: prefix, with: Array(tokens[200..<230]))
        let whole = try await decoder.logits(Array(tokens[..<230]))
        let largest = zip(continuation.logits, whole[(200 * 128)...]).reduce(0) { max($0, abs($1.0 - $1.1)) }
        #expect(largest < 1e-3)
        for index in prefix.layers.indices {
            let logits = try decoder.logits(of: continuation, replacing: index, by: prefix.layers[index])
            #expect(logits == continuation.logits)
        }
    }

    @Test func outputWeightsAreSquaredByValueChannel() throws {
        let model = try LlamaModel(path: ProjectFiles.fixture("models/llama-3"))
        let file = try SafetensorsFile(
            MappedFile.bytes(path: ProjectFiles.fixture("models/llama-3/model.safetensors"))
        )
        let tensor = try #require(file.tensors["model.layers.1.self_attn.o_proj.weight"])
        let shape = model.configuration.attention
        let weights = KVTensor(
            bytes: tensor.bytes,
            elementType: try #require(ElementType(name: tensor.elementType)),
            heads: 1,
            tokens: tensor.shape[0],
            headDimension: tensor.shape[1]
        ).numbers
        let squares = try model.outputWeightSquares(layer: 1)
        #expect(squares.count == shape.kvHeads * shape.valueDimension)
        let group = shape.queryHeads / shape.kvHeads
        for (head, channel) in [(0, 0), (1, 3), (1, shape.valueDimension - 1)] {
            var sum = 0.0
            for row in 0..<tensor.shape[0] {
                for member in 0..<group {
                    let column = (head * group + member) * shape.valueDimension + channel
                    let weight = Double(weights[row * tensor.shape[1] + column])
                    sum += weight * weight / Double(group)
                }
            }
            #expect(abs(squares[head * shape.valueDimension + channel] - sum) < 1e-9 * sum)
        }
    }

    // MARK: - Going on

    @Test func anInterruptedMeasurementGoesOn() async throws {
        let folder = try TemporaryFolder()
        let path = folder.file("p.journal")
        let settings = Self.settings(.layers)
        let measurement = try Self.measurement(settings)
        let whole = try await measurement.measure(journal: try ProfileJournal(path: path, settings: settings))
        let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n")
        // The first line, pieces of the text, variances of three prefixes, and four probes of each.
        let kinds = lines.map { line in line.dropFirst(2).prefix { $0 != "\"" } }
        #expect(kinds.count { $0 == "variances" } == 3)
        #expect(kinds.count { $0 == "noise" } == 12)
        let some = lines.prefix(8).joined(separator: "\n") + "\n" + lines[8].prefix(10)
        try Data(some.utf8).write(to: URL(filePath: path))
        let again = try await measurement.measure(journal: try ProfileJournal(path: path, settings: settings))
        #expect(again == whole)
        #expect(try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n") == lines)
        // Nothing is measured anew.
        _ = try await measurement.measure(journal: try ProfileJournal(path: path, settings: settings))
        #expect(try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n") == lines)
    }

    @Test func journalsOfOtherSettingsAreRefusedAndKept() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("p.journal")
        _ = try ProfileJournal(path: path, settings: Self.settings(.layers))
        let before = try Data(contentsOf: URL(filePath: path))
        let others: [(ProfileSettings, String)] = [
            (Self.settings(.heads), "another effort"),
            (Self.settings(.layers, prefix: 300), "another length of prefixes"),
            (Self.settings(.layers, seed: 2), "another seed"),
        ]
        for (settings, message) in others {
            let error = #expect(throws: EvaluationError.self) { try ProfileJournal(path: path, settings: settings) }
            #expect(error?.path == path && error?.message.contains(message) == true)
        }
        #expect(try Data(contentsOf: URL(filePath: path)) == before)
    }

    @Test(
        arguments: [
            "hello", "hello\n", "{\"format\":\"think-compress evaluation\",\"version\":3}\n",
        ]
    )
    func otherFilesAreRefusedAndKept(content: String) throws {
        let folder = try TemporaryFolder()
        let path = folder.file("p.journal")
        try Data(content.utf8).write(to: URL(filePath: path))
        #expect(throws: EvaluationError.self) { try ProfileJournal(path: path, settings: Self.settings(.layers)) }
        #expect(try String(contentsOfFile: path, encoding: .utf8) == content)
    }

    @Test(
        arguments: [
            #"{"noise":{"probe":{"layer":0,"isOfKeys":true},"prefix":0,"sensitivity":-1}}"#,
            #"{"queries":{"piece":0,"squares":[[-1]]}}"#, #"{"queries":{"piece":0,"squares":[[1e39]]}}"#,
            #"{"other":{}}"#, "x",
        ]
    )
    func damagedLinesAreNamed(line: String) throws {
        let folder = try TemporaryFolder()
        let path = folder.file("p.journal")
        _ = try ProfileJournal(path: path, settings: Self.settings(.layers))
        let heading = try String(contentsOfFile: path, encoding: .utf8)
        try Data("\(heading)\(line)\n".utf8).write(to: URL(filePath: path))
        let error = #expect(throws: EvaluationError.self) {
            try ProfileJournal(path: path, settings: Self.settings(.layers))
        }
        #expect(error?.message.contains("line 2 is damaged") == true)
    }

    /// What a journal holds of other shapes is measured anew, and does no harm.
    @Test func recordsOfOtherShapesAreIgnored() async throws {
        let folder = try TemporaryFolder()
        let path = folder.file("p.journal")
        let settings = Self.settings(.layers)
        _ = try ProfileJournal(path: path, settings: settings)
        let heading = try String(contentsOfFile: path, encoding: .utf8)
        let lines = [
            #"{"queries":{"piece":0,"squares":[[1]]}}"#, #"{"variances":{"layers":[[],[]],"prefix":1}}"#,
            #"{"noise":{"prefix":7,"probe":{"isOfKeys":true,"layer":99},"sensitivity":1}}"#,
        ]
        try Data((heading + lines.joined(separator: "\n") + "\n").utf8).write(to: URL(filePath: path))
        let measured = try await Self.measurement(settings).measure(
            journal: try ProfileJournal(path: path, settings: settings)
        )
        #expect(measured == (try await Self.measure(settings)))
    }

    @Test func shortTextsAndPrefixesAreRefused() throws {
        for (settings, text, message) in [
            (Self.settings(.layers, prefix: 384), "The lantern. The kettle.", "the longest text has"),
            (Self.settings(.layers, prefix: 100), try Self.text(), "too short"),
            (Self.settings(.layers, prefix: 5000), try Self.text(), "512 positions"),
        ] {
            let error = #expect(throws: EvaluationError.self) { try Self.measurement(settings, text: text) }
            #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
        }
    }
}

/// The mean divergence of some predictions from others, in nats.
private func divergence(_ exact: [Float], _ other: [Float], width: Int) -> Double {
    func logarithms(_ logits: ArraySlice<Float>) -> [Double] {
        let total = log(logits.reduce(0) { $0 + exp(Double($1)) })
        return logits.map { Double($0) - total }
    }
    let rows = stride(from: 0, to: exact.count, by: width).map { row in
        zip(logarithms(exact[row..<row + width]), logarithms(other[row..<row + width])).reduce(0) {
            $0 + exp($1.0) * ($1.0 - $1.1)
        }
    }
    return rows.reduce(0, +) / Double(rows.count)
}

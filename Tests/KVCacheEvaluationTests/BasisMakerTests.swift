import ComputeRuntime
import Foundation
import LlamaDecoder
import Synchronization
import TestSupport
import Testing
import ThinkCompress

@testable import KVCacheEvaluation

/// Bases of models and dumps: Formats/profile.md, "How bases are made".
@Suite(.serialized) struct BasisMakerTests {
    private static let tiny = ProjectFiles.fixture("models/llama-3")

    private static func text(characters: Int = 1_500) throws -> String {
        let path = ProjectFiles.root.appending(path: "Tools/DemoModel/text/postgresql-manual.txt").path
        return String(try String(contentsOfFile: path, encoding: .utf8).prefix(characters))
    }

    private static let (tokens, dimension, theta) = (160, 8, 100.0)

    /// A cache of one layer and KV head, whose keys before rotary embedding lie on a line, but for the first four, and
    /// whose values are twice the tokens' numbers in one channel.
    private static func cache(
        positions: [Int32]? = nil,
        metadata: [String: String] = ["rope.theta": "\(theta)", "model.id": "m"]
    ) throws -> KVCache {
        var generator = SplitMix64(seed: 5)
        let direction = (0..<dimension).map { _ in generator.normal() }
        var keys: [Float] = []
        var values: [Float] = []
        for token in 0..<tokens {
            let length = token < 4 ? 1000 : generator.normal()
            var key = (0..<dimension).map { Double(3 + length * direction[$0]) }
            for pair in 0..<dimension / 2 {
                let frequency = Float(pow(theta, -2 * Double(pair) / Double(dimension)))
                let angle = Double(Float(positions?[token] ?? Int32(token)) * frequency)
                let (one, other) = (key[pair], key[pair + dimension / 2])
                key[pair] = one * cos(angle) - other * sin(angle)
                key[pair + dimension / 2] = other * cos(angle) + one * sin(angle)
            }
            keys += key.map { Float($0) }
            values += (0..<dimension).map { $0 == 2 ? 2 * generator.normal() : 0 }
        }
        let layer = KVCacheLayer(
            keys: KVTensor(keys, elementType: .float32, heads: 1, headDimension: dimension),
            values: KVTensor(values, elementType: .float32, heads: 1, headDimension: dimension)
        )
        return try KVCache(layers: [layer], positions: positions, metadata: metadata)
    }

    private static func profile(_ cache: KVCache, unit: BasisUnit? = nil) async throws -> DumpedProfile {
        try await DumpedProfile(paths: ["a.safetensors"], digests: ["d"], unit: unit) { _ in cache }
    }

    @Test("keys that are turned back vary where they did before", arguments: [false, true])
    func turnsKeysBack(hasPositions: Bool) async throws {
        let positions = hasPositions ? (0..<Int32(Self.tokens)).map { 3 * $0 + 50 } : nil
        let profile = try await Self.profile(Self.cache(positions: positions))
        let bases = try #require(profile.layers[0].bases)
        #expect(profile.undoesRotation && !profile.hasQueries)
        #expect(bases.rotaryFrequencies.count == 4 && bases.rotaryFrequencies[0] == 1)
        #expect(abs(bases.rotaryFrequencies[1] - Float(pow(Self.theta, -0.25))) < 1e-6)
        let archive = bases.archives[0]
        #expect(archive.unit.numbers == [0, 1, 0, 1, 3] && archive.basis.componentCount == 16)
        // A line of keys and one of values; keys as they are cached are not on one.
        let variances = archive.basis.variances
        #expect(variances[1] > 0.1 && variances[2] < 1e-5 * variances[1])
        #expect(bases.keys[0].variances[4] > 1e-2 * bases.keys[0].variances[0])
        #expect(bases.values[0].variances[1] == 0 && bases.values[0].matrix.array[2] == 127)
        // Values and keys are weighted by how much they vary: a channel of eight has all variance of the values.
        let expected = bases.values[0].weights[0]
        #expect(
            abs(bases.values[0].variances[0] - 8 * expected * expected * meanVariance(bases)) < 1e-3
                * bases.values[0].variances[0]
        )
        #expect(profile.layers[0].meanSquaredQueries == [Float](repeating: 1, count: 8))
        #expect(profile.metadata["profile.bases.weights"] == "variances" && profile.metadata["model.id"] == "m")
        #expect(profile.metadata["profile.bases"] == "layer" && profile.metadata["profile.bases.texts"] == "d")
    }

    /// The mean variance of the values' channels, by the only one that varies.
    private func meanVariance(_ bases: LayerBases) -> Float {
        bases.values[0].variances[0] / (bases.values[0].weights[2] * bases.values[0].weights[2]) / 8
    }

    @Test func withoutRotaryEmbeddingKeysStay() async throws {
        let profile = try await Self.profile(Self.cache(metadata: [:]))
        let bases = try #require(profile.layers[0].bases)
        #expect(!profile.undoesRotation && bases.rotaryFrequencies.isEmpty)
        #expect(bases.archives[0].basis.variances[4] > 1e-3 * bases.archives[0].basis.variances[0])
    }

    @Test(
        "rotary embeddings of metadata",
        arguments: [
            (#"{"factor": 4.0, "rope_type": "linear"}"#, 0.25),
            (#"{"factors": [2, 1, 1, 1], "rope_type": "default"}"#, 0.5),
        ] as [(String, Float)]
    )
    func scaledRotaryEmbeddings(scaling: String, frequency: Float) async throws {
        let metadata = ["rope.theta": "100.0", "rope.scaling": scaling]
        let profile = try await Self.profile(Self.cache(metadata: metadata))
        #expect(profile.layers[0].bases?.rotaryFrequencies[0] == frequency)
    }

    @Test(
        "rotary embeddings that can't be are refused",
        arguments: [
            ["rope.theta": "x"], ["rope.theta": "0.5"], ["rope.theta": "1e4", "rope.scaling": "{"],
            ["rope.theta": "1e4", "rope.scaling": #"{"rope_type": "su"}"#],
            ["rope.theta": "1e4", "rope.scaling": #"{"sliding_attention": {}}"#],
        ]
    )
    func impossibleRotaryEmbeddings(metadata: [String: String]) async throws {
        let error = await #expect(throws: ModelError.self) { try await Self.profile(Self.cache(metadata: metadata)) }
        #expect(error?.path == "a.safetensors")
    }

    @Test func queriesWeighKeys() async throws {
        let plain = try Self.cache()
        let queries = KVTensor(
            (0..<2 * 3 * 8).map { $0 % 8 == 1 ? 3 : 1 },
            elementType: .float32,
            heads: 2,
            headDimension: 8
        )
        let layer = KVCacheLayer(keys: plain.layers[0].keys, values: plain.layers[0].values, queries: queries)
        let cache = try KVCache(layers: [layer], metadata: ["rope.theta": "100.0"])
        let profile = try await Self.profile(cache, unit: .head)
        #expect(profile.hasQueries && profile.layers[0].meanSquaredQueries == [1, 9, 1, 1, 1, 1, 1, 1])
        let weights = try #require(profile.layers[0].bases?.keys[0].weights)
        #expect(abs(weights[1] / weights[0] - 3) < 1e-5)
        // Before rotary embedding the channel's partner, of the other half, shares in it.
        let before = try #require(profile.layers[0].bases?.archives[0].basis.weights)
        #expect(before[5] > 1.01 * weights[5] && before[1] < 0.99 * weights[1] && before[0] == before[4])
        #expect(abs(before[1] * before[1] + before[5] * before[5] - 10 * weights[5] * weights[5]) < 1e-3)
    }

    @Test func dumpsThatDoNotFitAreRefused() async throws {
        let cache = try Self.cache()
        let other = try Self.cache(metadata: ["rope.theta": "100.0", "model.id": "n"])
        let mixed = await #expect(throws: EvaluationError.self) {
            try await DumpedProfile(paths: ["a", "b"], digests: ["d", "e"]) { $0 == 0 ? cache : other }
        }
        #expect(mixed?.path == "b" && mixed?.message.contains("another model.id") == true)
        let layer = cache.layers[0]
        let listed = KVCacheLayer(
            keys: layer.keys,
            values: layer.values,
            held: .listed([(0..<UInt32(Self.tokens)).map { $0 * 2 }])
        )
        let dropped = try KVCache(layers: [listed], tokenCount: 2 * Self.tokens)
        let lacking = await #expect(throws: EvaluationError.self) { try await Self.profile(dropped) }
        #expect(lacking?.message.contains("layer 0 lacks tokens") == true)
        let short = try KVCache(layers: [
            KVCacheLayer(keys: layer.keys[tokens: 0..<5], values: layer.values[tokens: 0..<5])
        ])
        let tooShort = await #expect(throws: EvaluationError.self) { try await Self.profile(short) }
        #expect(tooShort?.message.contains("5 tokens") == true)
        var numbers = layer.values.numbers
        numbers[700] = .nan
        let broken = KVTensor(numbers, elementType: .float32, heads: 1, headDimension: 8)
        let infinite = try KVCache(layers: [KVCacheLayer(keys: layer.keys, values: broken)])
        let notFinite = await #expect(throws: EvaluationError.self) { try await Self.profile(infinite) }
        #expect(notFinite?.message.contains("not finite") == true && notFinite?.path == "a.safetensors")
    }

    /// A profile's reader refuses what would come of them.
    @Test("numbers that a profile can't have are refused by layer", arguments: CachePart.allCases)
    func numbersOutOfRangeAreRefused(part: CachePart) async throws {
        let plain = try Self.cache().layers[0]
        func refusal(size: Float) async throws -> EvaluationError? {
            let numbers = plain[part].numbers.map { $0 * size }
            let scaled = KVTensor(numbers, elementType: .float32, heads: 1, headDimension: Self.dimension)
            let layer = KVCacheLayer(
                keys: part == .keys ? scaled : plain.keys,
                values: part == .values ? scaled : plain.values
            )
            let cache = try KVCache(layers: [plain, layer], metadata: ["rope.theta": "100.0"])
            return await #expect(throws: EvaluationError.self) { try await Self.profile(cache) }
        }
        let large = try #require(try await refusal(size: 1e30))
        #expect(
            large.path == "a.safetensors" && large.message.contains("layer 1 has \(part) that are not finite, or too")
        )
        let small = try #require(try await refusal(size: 1e-24))
        #expect(small.message.contains("that vary too much, or too little"), "\(small)")
    }

    @Test func unitsOfTooManyChannelsAreRefusedBeforeTheWork() async throws {
        let wide = try LayerGeometry(kvHeads: 17, keyDimension: 512, valueDimension: 512)
        let geometry = try CacheGeometry([.none, wide])
        let error = #expect(throws: EvaluationError.self) {
            try BasisMaker(geometry: geometry, frequencies: [[], []], unit: .layer)
        }
        #expect(error?.message.contains("layer 1 would be of 17408 channels") == true)
        #expect(error?.message.contains("--basis head") == true)
        for unit in [BasisUnit.head, .layers] {
            #expect(throws: Never.self) { try BasisMaker(geometry: geometry, frequencies: [[], []], unit: unit) }
        }
        let frequency = #expect(throws: EvaluationError.self) {
            try BasisMaker(geometry: geometry, frequencies: [[], [1, 4.5]], unit: .head)
        }
        #expect(frequency?.message.contains("layer 1 are turned by 4.5 radians") == true)
        // Of dumps, before the second is read.
        let zeros = KVTensor(
            [Float](repeating: 0, count: 8 * 17 * 512),
            elementType: .float32,
            heads: 17,
            headDimension: 512
        )
        let cache = try KVCache(layers: [KVCacheLayer(keys: zeros, values: zeros)])
        let dumped = await #expect(throws: EvaluationError.self) {
            try await DumpedProfile(paths: ["a", "b"], digests: ["d", "e"], unit: .layer) { index in
                #expect(index == 0)
                return cache
            }
        }
        #expect(dumped?.path == "a" && dumped?.message.contains("17408 channels") == true)
    }

    private static func measurement(_ decoder: TransformerDecoder, unit: BasisUnit?) throws -> BasisMeasurement {
        try BasisMeasurement(decoder: decoder, texts: [text()], digests: ["d"], prefix: 200, unit: unit)
    }

    /// A model's caches, computed side by side layer by layer, are those of one prompt after the other.
    @Test("bases of a model are those of its caches", arguments: [BasisUnit.layer, .layers])
    func modelsAreTheirCaches(unit: BasisUnit) async throws {
        let model = try LlamaModel(path: Self.tiny)
        let decoder = TransformerDecoder(model: model)
        let geometry = model.configuration.geometry
        let measurement = try Self.measurement(decoder, unit: unit)
        let plain = geometry.layers.map { shape in
            LayerProfile(meanSquaredQueries: [Float](repeating: 1, count: shape.kvHeads * shape.keyDimension))
        }
        let told = Mutex<[Double]>([])
        let layers = try await measurement.adding(
            to: plain,
            progress: ProgressHandler { fraction in told.withLock { $0.append(fraction) } }
        )
        let fractions = told.withLock { $0 }
        #expect(fractions == fractions.sorted() && fractions.last == 1)
        #expect(zip(fractions, fractions.dropFirst()).allSatisfy { $1 - $0 < 0.2 })
        let prefixes = try ProfileMeasurement.prefixes(of: [Self.text()], model: model, prefix: 200, count: 6)
        var caches: [KVCache] = []
        for prefix in prefixes {
            let tokens = Array(prefix[..<200])
            caches.append(
                try await decoder.fullCache(tokens, elementType: .float32, metadata: model.metadata(producer: ""))
            )
        }
        let dumped = try await DumpedProfile(
            paths: caches.map { _ in "a" },
            digests: ["d"],
            unit: unit
        ) { index in
            let cache = caches[index]
            // Without the queries, which would weigh keys.
            let layers = cache.layers.map { KVCacheLayer(keys: $0.keys, values: $0.values) }
            return try KVCache(layers: layers, tokens: cache.tokens, metadata: cache.metadata)
        }
        #expect(dumped.layers.map(\.bases) == layers.map(\.bases))
    }

    @Test func windowsGiveTheTokensThatTheyHold() async throws {
        let cache = try SmallModel.gemma3.cache()
        let profile = try await Self.profile(cache)
        #expect(profile.layers.allSatisfy { $0.bases?.archives.count == 1 })
    }

    @Test(arguments: [nil, BasisUnit.head, .layers])
    func modelsHaveBasesOfEveryLayer(unit: BasisUnit?) async throws {
        let model = try LlamaModel(path: Self.tiny)
        let decoder = TransformerDecoder(model: model)
        let measurement = try Self.measurement(decoder, unit: unit)
        let geometry = model.configuration.geometry
        let ones = geometry.layers.map { shape in
            LayerProfile(
                meanSquaredQueries: [Float](repeating: 1, count: shape.kvHeads * shape.keyDimension),
                sensitivity: LayerSensitivity(
                    keys: [Float](repeating: 2, count: shape.kvHeads * shape.keyDimension),
                    values: [Float](repeating: 6, count: shape.kvHeads * shape.valueDimension),
                    valueVariances: [Float](repeating: 1, count: shape.kvHeads * shape.valueDimension)
                )
            )
        }
        let layers = try await measurement.adding(to: ones)
        #expect(try await measurement.adding(to: ones) == layers)
        let folder = try TemporaryFolder()
        let metadata = measurement.metadata(of: ones)
        try ModelProfile.write(
            layers,
            geometry: geometry,
            metadata: metadata,
            to: folder.file("p"),
            replacingExisting: false
        )
        let file = try SafetensorsFile(MappedFile.bytes(path: folder.file("p")))
        #expect(try ModelProfile.read(file, metadata: [:], geometry: geometry) == layers)
        #expect(metadata["profile.bases.prefixes"] == "6" && metadata["profile.bases.weights"] == "sensitivities")
        let units = layers.compactMap(\.bases).flatMap(\.archives)
        #expect(Set(units.flatMap(\.basis.weights)) == [Float(0.5).squareRoot(), Float(1.5).squareRoot()])
        let rotary = model.configuration.rotary(ofLayer: 0).frequencies(tokenCount: 200)
        #expect(layers.allSatisfy { $0.bases?.rotaryFrequencies == rotary })
        // The tiny model has few parameters.
        #expect(metadata["profile.bases"] == (unit ?? .head).rawValue)
        let isCut = units.contains { $0.basis.componentCount < $0.basis.channelCount }
        #expect(isCut == (unit == nil))
    }

    @Test func prefixesAreAsManyAsTextsHavePlacesFor() throws {
        let decoder = TransformerDecoder(model: try LlamaModel(path: Self.tiny))
        let tokens = try decoder.model.tokens(of: Self.text(characters: 400)).count
        let prefix = tokens - ProfileSettings.continuation - 2
        let measurement = try BasisMeasurement(
            decoder: decoder,
            texts: [Self.text(characters: 400)],
            digests: ["d"],
            prefix: prefix
        )
        #expect(measurement.metadata(of: [])["profile.bases.prefixes"] == "3")
        #expect(measurement.metadata(of: [])["profile.bases.weights"] == "variances")
        #expect(measurement.cost == 3 * prefix * 2)
    }
}

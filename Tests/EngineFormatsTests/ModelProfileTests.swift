import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Profiles of models in files: Formats/profile.md.
@Suite struct ModelProfileTests {
    /// A layer with a cache, one without, and one whose values are narrower than its keys.
    private static func geometry() throws -> CacheGeometry {
        try CacheGeometry([
            LayerGeometry(queryHeads: 4, kvHeads: 2, keyDimension: 3, valueDimension: 3), .none,
            LayerGeometry(kvHeads: 1, keyDimension: 4, valueDimension: 2),
        ])
    }

    private static let metadata = ["model.id": "m", "rope.theta": "10000.0", "profile.method": "noise"]

    private static func layers(hasSensitivities: Bool, hasOutputWeights: Bool = true) throws -> [LayerProfile] {
        try geometry().layers.enumerated().map { index, shape in
            if shape.isEmpty { return .empty }
            func numbers(_ dimension: Int, _ first: Float) -> [Float] {
                (0..<shape.kvHeads * dimension).map { first + Float($0 + index) / 8 }
            }
            return LayerProfile(
                meanSquaredQueries: numbers(shape.keyDimension, 0),
                sensitivity: hasSensitivities
                    ? LayerSensitivity(
                        keys: numbers(shape.keyDimension, 1),
                        values: numbers(shape.valueDimension, 2),
                        valueVariances: numbers(shape.valueDimension, 3)
                    ) : nil,
                outputWeights: hasOutputWeights ? numbers(shape.valueDimension, 4) : nil
            )
        }
    }

    private static func builder(
        hasSensitivities: Bool = true,
        hasOutputWeights: Bool = true
    ) throws -> SafetensorsBuilder {
        var builder = SafetensorsBuilder(metadata: metadata)
        let layers = try layers(hasSensitivities: hasSensitivities, hasOutputWeights: hasOutputWeights)
        for (index, (layer, shape)) in zip(layers, try geometry().layers).enumerated() where !shape.isEmpty {
            func add(_ name: String, _ dimension: Int, _ numbers: [Float]?) {
                guard let numbers else { return }
                builder.tensors.append(.init("layers.\(index).\(name)", [shape.kvHeads, dimension], floats: numbers))
            }
            add("q2", shape.keyDimension, layer.meanSquaredQueries)
            add("key_sensitivity", shape.keyDimension, layer.sensitivity?.keys)
            add("value_sensitivity", shape.valueDimension, layer.sensitivity?.values)
            add("value_variance", shape.valueDimension, layer.sensitivity?.valueVariances)
            add("o2", shape.valueDimension, layer.outputWeights)
        }
        return builder
    }

    private static func file(_ builder: SafetensorsBuilder) throws -> SafetensorsFile {
        try SafetensorsFile(SharedBytes(builder.file))
    }

    private static func read(
        _ builder: SafetensorsBuilder,
        metadata: [String: String] = metadata
    ) throws -> [LayerProfile] {
        try ModelProfile.read(file(builder), metadata: metadata, geometry: geometry())
    }

    @Test("a profile is read with all that it has", arguments: [false, true], [false, true])
    func readsEverything(hasSensitivities: Bool, hasOutputWeights: Bool) throws {
        let builder = try Self.builder(hasSensitivities: hasSensitivities, hasOutputWeights: hasOutputWeights)
        let expected = try Self.layers(hasSensitivities: hasSensitivities, hasOutputWeights: hasOutputWeights)
        #expect(try Self.read(builder) == expected)
    }

    @Test("what is written is read back", arguments: [false, true], [false, true])
    func writes(hasSensitivities: Bool, hasOutputWeights: Bool) throws {
        let folder = try TemporaryFolder()
        let layers = try Self.layers(hasSensitivities: hasSensitivities, hasOutputWeights: hasOutputWeights)
        try ModelProfile.write(
            layers,
            geometry: Self.geometry(),
            metadata: Self.metadata,
            to: folder.file("p"),
            replacingExisting: false
        )
        let file = try SafetensorsFile(MappedFile.bytes(path: folder.file("p")))
        #expect(file.metadata == Self.metadata)
        #expect(Array(file.tensors.names).count == (hasSensitivities ? 8 : 2) + (hasOutputWeights ? 2 : 0))
        #expect(try ModelProfile.read(file, metadata: Self.metadata, geometry: Self.geometry()) == layers)
    }

    @Test("shapes follow from the file alone")
    func geometryOfAFile() throws {
        let shapes = try #require(try ModelProfile.geometry(of: Self.file(Self.builder()))).layers
        #expect(shapes.map(\.kvHeads) == [2, 0, 1])
        #expect(shapes.map(\.keyDimension) == [3, 0, 4])
        #expect(shapes.map(\.valueDimension) == [3, 0, 2])
        let ofWeights = try ModelProfile.geometry(of: Self.file(Self.builder(hasSensitivities: false)))
        #expect(ofWeights?.layers == shapes)
        let ofQueries = try ModelProfile.geometry(
            of: Self.file(Self.builder(hasSensitivities: false, hasOutputWeights: false))
        )
        #expect(ofQueries?.layers.map(\.valueDimension) == [0, 0, 0])
        #expect(try ModelProfile.geometry(of: Self.file(SafetensorsBuilder())) == nil)
        #expect(try ModelProfile.geometry(of: Self.file(SafetensorsBuilder(CacheDumpTests.makeCache()))) == nil)
        var strange = try Self.builder(hasSensitivities: false)
        strange.tensors[0].shape = [6]
        #expect(throws: EngineFormatError.self) { try ModelProfile.geometry(of: Self.file(strange)) }
        strange.tensors[0].name = "layers.999999999.q2"
        #expect(throws: EngineFormatError.self) { try ModelProfile.geometry(of: Self.file(strange)) }
        strange.tensors[0] = .init("layers.0.q2", [0, 6], floats: [])
        #expect(throws: EngineFormatError.self) { try ModelProfile.geometry(of: Self.file(strange)) }
    }

    @Test("equal weights are the same model, other ones are refused")
    func otherModels() throws {
        let builder = try Self.builder()
        let error = #expect(throws: EngineFormatError.self) {
            try Self.read(builder, metadata: ["rope.theta": "500000.0"])
        }
        #expect(error?.message.contains("another rope.theta") == true)
        var known = builder
        known.metadata["model.fingerprint"] = "f"
        #expect(try Self.read(known, metadata: ["model.id": "renamed", "model.fingerprint": "f"]).count == 3)
        #expect(throws: EngineFormatError.self) { try Self.read(known, metadata: ["model.fingerprint": "g"]) }
        var shorter = builder
        shorter.tensors.removeAll { $0.name == "layers.2.q2" }
        let missing = #expect(throws: EngineFormatError.self) { try Self.read(shorter) }
        #expect(missing?.message.contains("1 layers") == true)
    }

    @Test(
        "sensitivities and output weights are whole or not there",
        arguments: ["key_sensitivity", "value_sensitivity", "value_variance", "o2"]
    )
    func missingTensors(name: String) throws {
        var builder = try Self.builder()
        builder.tensors.removeAll { $0.name == "layers.2.\(name)" }
        let error = #expect(throws: EngineFormatError.self) { try Self.read(builder) }
        #expect(error?.tensor == "layers.2.\(name)" && error?.message.contains("is missing") == true)
    }

    @Test(
        "numbers are finite and not negative",
        arguments: ["q2", "key_sensitivity", "value_sensitivity", "value_variance", "o2"],
        [-1, Float.nan, .infinity]
    )
    func impossibleNumbers(name: String, number: Float) throws {
        var builder = try Self.builder()
        let place = try #require(builder.tensors.firstIndex { $0.name == "layers.0.\(name)" })
        var floats = [Float](repeating: 1, count: 6)
        floats[4] = number
        builder.tensors[place] = .init("layers.0.\(name)", [2, 3], floats: floats)
        let error = #expect(throws: EngineFormatError.self) { try Self.read(builder) }
        #expect(error?.tensor == "layers.0.\(name)" && error?.message.contains("not negative") == true)
    }

    @Test("tensors of another shape are refused")
    func otherShapes() throws {
        var builder = try Self.builder()
        let place = try #require(builder.tensors.firstIndex { $0.name == "layers.2.value_variance" })
        builder.tensors[place].shape = [2, 1]
        let error = #expect(throws: EngineFormatError.self) { try Self.read(builder) }
        #expect(error?.message.contains("must be F32 [1, 2]") == true)
    }

    @Test("the profile of the evaluation's model is one of its shape")
    func evaluationModel() throws {
        let path = ProjectFiles.root.appending(path: "Tools/Evaluation/SmolLM2-135M-Instruct.profile").path
        let file = try SafetensorsFile(MappedFile.bytes(path: path))
        let geometry = try #require(try ModelProfile.geometry(of: file))
        #expect(geometry == (try CacheGeometry(layers: 30, queryHeads: 0, kvHeads: 3, headDimension: 64)))
        let layers = try ModelProfile.read(
            file,
            metadata: ["model.id": "SmolLM2-135M-Instruct.Q4_1"],
            geometry: geometry
        )
        #expect(layers.allSatisfy { $0.sensitivity?.values.allSatisfy { $0 > 0 } == true })
        #expect(file.metadata[ModelProfile.MetadataKey.method] == "gradients")
    }

    @Test("a cache takes sensitivities of its shape, in all layers or none")
    func cachesWithProfiles() throws {
        let cache = try CacheDumpTests.makeCache()
        let zeros = [Float](repeating: 0, count: 12)
        let whole = LayerProfile(
            meanSquaredQueries: zeros,
            sensitivity: LayerSensitivity(keys: zeros, values: zeros, valueVariances: zeros)
        )
        let read = try cache.withProfile([whole, whole])
        #expect(read.layers[1].profile?.sensitivity?.keys == zeros)
        let plain = LayerProfile(meanSquaredQueries: zeros)
        let narrow = LayerProfile(
            meanSquaredQueries: zeros,
            sensitivity: LayerSensitivity(keys: zeros, values: [1], valueVariances: zeros)
        )
        let weighty = LayerProfile(meanSquaredQueries: zeros, outputWeights: zeros + [1])
        for profile in [[whole], [whole, plain], [narrow, narrow], [weighty, weighty]] {
            let error = #expect(throws: KVCacheError.self) { try cache.withProfile(profile) }
            #expect(error?.code == .invalidProfile)
        }
    }
}

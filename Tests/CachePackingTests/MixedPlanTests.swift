import TestSupport
import Testing
import ThinkCompress

/// Plans of several key runs: 2, 4 and 8 bits, full precision, and pruned channels.
@Suite struct MixedPlanTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let keyDimension: Int
        let valueDimension: Int
        var elementType = ElementType.float16
        var testDescription: String { "\(keyDimension) and \(valueDimension), \(elementType.name)" }

        var geometry: LayerGeometry {
            get throws {
                try LayerGeometry(kvHeads: 4, keyDimension: keyDimension, valueDimension: valueDimension)
            }
        }
    }

    static let cases = [
        Case(keyDimension: 64, valueDimension: 64), Case(keyDimension: 20, valueDimension: 33),
        Case(keyDimension: 5, valueDimension: 1, elementType: .float32), Case(keyDimension: 48, valueDimension: 7),
        Case(keyDimension: 130, valueDimension: 160, elementType: .bfloat16), Case(keyDimension: 24, valueDimension: 0),
    ]

    @Test(
        "restore each channel as its coding says",
        arguments: cases,
        [(32, false), (32, true), (64, true), (128, false), (128, true)]
    )
    func restores(_ test: Case, options: (blockLength: Int, hasMeans: Bool)) throws {
        let geometry = try test.geometry
        let shape = BlockShape(elementType: test.elementType, blockLength: options.blockLength, residualWindow: 10)
        let plan = try LayerPlan.mixed(geometry: geometry, hasMeans: options.hasMeans, seed: UInt64(test.keyDimension))
        #expect(plan.heads.allSatisfy { $0.keyRuns.count == 4 })
        #expect(Set(plan.heads.map(\.values)).count == (test.valueDimension > 0 ? plan.heads.count : 1))
        var generator = SplitMix64(seed: 2)
        let source = KVCacheLayer.random(geometry, elementType: test.elementType, rows: 300, using: &generator)
        let layer = try CompressedLayer(packing: source, by: plan, shape: shape)
        #expect(layer.extent.blockEnd == 290 / options.blockLength * options.blockLength)
        var model = LayerModel(plan: plan, shape: shape)
        model.append(source)
        #expect(try model.difference(from: layer) == nil)
        // The model is no copy of the source: what is coded or pruned is not what came.
        #expect(model.restored(.keys, rows: 0..<300) != source.keys.numbers)
        #expect((model.restored(.values, rows: 0..<300) != source.values.numbers) == (test.valueDimension > 0))
    }

    @Test("go through a snapshot unchanged", arguments: cases, [nil, 3])
    func snapshots(_ test: Case, level: Int?) async throws {
        let geometry = try test.geometry
        let shape = BlockShape(elementType: test.elementType, blockLength: 32, residualWindow: 10)
        let plan = try LayerPlan.mixed(geometry: geometry, sinks: 4, hasMeans: true, seed: 3)
        var generator = SplitMix64(seed: 4)
        let source = KVCacheLayer.random(geometry, elementType: test.elementType, rows: 300, using: &generator)
        let cache = try CompressedCache([CompressedLayer(packing: source, by: plan, shape: shape)])
        var sink = SnapshotBytes()
        try await SnapshotWriter(compressionLevel: level).write(cache, into: &sink)
        let reopened = try await SnapshotReader(SharedBytes(sink.bytes)).cache()
        #expect(reopened.layers[0].plan == plan)
        #expect(CacheContent(reopened).difference(from: CacheContent(cache)) == nil)
    }
}

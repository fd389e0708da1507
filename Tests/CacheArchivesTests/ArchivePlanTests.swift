import TestSupport
import Testing
import ThinkCompress

/// What plans must keep: Formats/archive.md, "ARCHIVE PLAN".
@Suite struct ArchivePlanTests {
    private static func geometry(values: Int = 2) throws -> CacheGeometry {
        try CacheGeometry([
            LayerGeometry(queryHeads: 0, kvHeads: 2, keyDimension: 4, valueDimension: values), .none,
            LayerGeometry(queryHeads: 0, kvHeads: 1, keyDimension: 4, valueDimension: values),
        ])
    }

    private static func unit(
        _ layers: Range<Int>,
        _ heads: Range<Int>,
        keys: Bool = true,
        values: Bool = true
    ) -> ArchiveUnit {
        ArchiveUnit(layers: layers, heads: heads, hasKeys: keys, hasValues: values)
    }

    private static func plan(
        step: Float = 1,
        frequencies: [[Float]] = [[1], [], []],
        units: [ArchiveUnit] = [unit(0..<1, 0..<2), unit(2..<3, 0..<1)],
        weight: Float = 1,
        mean: Float = 0,
        components: Int? = nil,
        digest: [UInt8]? = nil,
        hasBasis: Bool = false
    ) throws -> ArchivePlan {
        let geometry = try Self.geometry()
        return try ArchivePlan(
            step: step,
            rotaryFrequencies: frequencies,
            units: units.map { unit in
                let channels = unit.channelCount(in: geometry)
                return ArchivePlan.Unit(
                    unit: unit,
                    basis: hasBasis ? .profile : .channels(weights: [Float](repeating: weight, count: channels)),
                    componentCount: components ?? channels,
                    means: [Float](repeating: mean, count: channels)
                )
            },
            basisDigest: digest,
            geometry: geometry
        )
    }

    @Test func aPlanThatKeepsTheRules() throws {
        let plan = try Self.plan()
        #expect(plan.layerGroups == [0..<1, 1..<2, 2..<3])
        #expect(try Self.plan(step: 0x1p-40, weight: 0x1p60, mean: -65504).step == 0x1p-40)
        _ = try Self.plan(components: 1, digest: [UInt8](repeating: 0, count: 32), hasBasis: true)
    }

    @Test func brokenRules() throws {
        func expectRefused(_ plan: @autoclosure () throws -> ArchivePlan, _ what: Comment) {
            let error = #expect(throws: ArchiveError.self, what) { _ = try plan() }
            #expect(error?.code == .invalidPlan, what)
        }
        for step in [0, -1, .nan, .infinity, 0x1p-41, 0x1p41] as [Float] {
            expectRefused(try Self.plan(step: step), "step \(step)")
        }
        for frequencies in [[[1, 1, 1], [], []], [[5], [], []], [[.nan], [], []], [[], [1], []], [[]]] as [[[Float]]] {
            expectRefused(try Self.plan(frequencies: frequencies), "frequencies \(frequencies)")
        }
        for weight in [0, -1, .nan, .infinity, 0x1p-61, 0x1p61] as [Float] {
            expectRefused(try Self.plan(weight: weight), "weight \(weight)")
        }
        for mean in [.nan, .infinity] as [Float] { expectRefused(try Self.plan(mean: mean), "mean \(mean)") }
        expectRefused(try Self.plan(components: 1), "components without a basis")
        let digest = [UInt8](repeating: 1, count: 32)
        expectRefused(try Self.plan(components: 0, digest: digest, hasBasis: true), "no components")
        expectRefused(try Self.plan(components: 7, digest: digest, hasBasis: true), "more components than channels")
        expectRefused(try Self.plan(hasBasis: true), "a basis without a digest")
    }

    @Test func coverage() throws {
        let (first, last) = (Self.unit(0..<1, 0..<2), Self.unit(2..<3, 0..<1))
        let good: [[ArchiveUnit]] = [
            [first, last], [last, first],
            [Self.unit(0..<1, 0..<2, values: false), Self.unit(0..<1, 0..<1, keys: false)]
                + [Self.unit(0..<1, 1..<2, keys: false), last],
        ]
        for units in good { try ArchivePlan.checkCoverage(units, geometry: Self.geometry()) }
        let bad: [[ArchiveUnit]] = [
            [], [first], [first, last, last], [first, last, Self.unit(0..<1, 1..<2)], [Self.unit(0..<1, 0..<1), last],
            [first, Self.unit(2..<3, 0..<1, values: false)], [first, last, Self.unit(1..<2, 0..<1)],
            [first, Self.unit(2..<4, 0..<1)], [first, Self.unit(2..<3, 0..<2)],
        ]
        for units in bad {
            #expect(throws: ArchiveError.self, "\(units.map(\.numbers))") {
                try ArchivePlan.checkCoverage(units, geometry: Self.geometry())
            }
        }
        let keys = [Self.unit(0..<1, 0..<2, values: false), Self.unit(2..<3, 0..<1, values: false)]
        try ArchivePlan.checkCoverage(keys, geometry: Self.geometry(values: 0))
    }

    @Test func groupsOfLayersThatUnitsJoin() throws {
        let geometry = try CacheGeometry(
            (0..<5).map { _ in try LayerGeometry(queryHeads: 0, kvHeads: 1, keyDimension: 2, valueDimension: 2) }
        )
        let units = [
            Self.unit(3..<5, 0..<1), Self.unit(0..<2, 0..<1, values: false), Self.unit(1..<3, 0..<1, keys: false),
            Self.unit(0..<1, 0..<1, keys: false), Self.unit(2..<3, 0..<1, values: false),
        ]
        let plan = try ArchivePlan(
            step: 1,
            rotaryFrequencies: [[Float]](repeating: [], count: 5),
            units: units.map {
                let channels = $0.channelCount(in: geometry)
                let ones = [Float](repeating: 1, count: channels)
                return ArchivePlan.Unit(
                    unit: $0,
                    basis: .channels(weights: ones),
                    componentCount: channels,
                    means: ones
                )
            },
            basisDigest: nil,
            geometry: geometry
        )
        #expect(plan.layerGroups == [0..<3, 3..<5])
    }
}

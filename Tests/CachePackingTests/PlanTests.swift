import TestSupport
import Testing
import ThinkCompress

/// Plans keep the format's rules: each rule that is broken is named, with its place.
@Suite struct PlanTests {
    /// Heads of 8 key channels and 4 value channels.
    private static func geometry(valueDimension: Int = 4) throws -> LayerGeometry {
        try LayerGeometry(kvHeads: 1, keyDimension: 8, valueDimension: valueDimension)
    }

    // MARK: - Codings

    @Test("a coding has one of the widths", arguments: [-1, 0, 6, 7, 16, 256 + 2])
    func widths(width: Int) {
        #expect(throws: PlanError(.coding(byte: 0), "a width is \(width), must be of [1, 2, 3, 4, 5, 8]")) {
            try Coding(width: width)
        }
    }

    struct Bytes: Sendable, CustomTestStringConvertible {
        let bytes: [UInt8]
        let byte: Int
        let message: String
        var testDescription: String { "\(bytes)" }
    }

    @Test(
        "a coding's bytes are checked one by one",
        arguments: [
            Bytes(bytes: [6, 1, 0, 0], byte: 0, message: "a width is 6, must be 0 or of [1, 2, 3, 4, 5, 8]"),
            Bytes(bytes: [255, 9, 9, 9], byte: 0, message: "a width is 255, must be 0 or of [1, 2, 3, 4, 5, 8]"),
            Bytes(bytes: [2, 0, 0, 0], byte: 1, message: "scales of kind 0 for codes of 2 bits"),
            Bytes(bytes: [2, 3, 9, 9], byte: 1, message: "scales of kind 3 for codes of 2 bits"),
            Bytes(bytes: [0, 1, 9, 9], byte: 1, message: "scales of kind 1 for codes of 0 bits"),
            Bytes(bytes: [0, 0, 1, 9], byte: 2, message: "full precision has no ranges, and they are 1"),
            Bytes(bytes: [8, 1, 200, 1], byte: 3, message: "a rotation of kind 1 with scales of kind 1"),
            Bytes(bytes: [0, 0, 0, 2], byte: 3, message: "a rotation of kind 2 with scales of kind 0"),
            Bytes(bytes: [], byte: 0, message: "0 bytes of a coding are there"),
            Bytes(bytes: [7], byte: 0, message: "a width is 7, must be 0 or of [1, 2, 3, 4, 5, 8]"),
            Bytes(bytes: [2], byte: 1, message: "1 bytes of a coding are there"),
            Bytes(bytes: [0, 0], byte: 2, message: "2 bytes of a coding are there"),
            Bytes(bytes: [8, 1, 200], byte: 3, message: "3 bytes of a coding are there"),
        ]
    )
    func codingBytes(_ test: Bytes) {
        #expect(throws: PlanError(.coding(byte: test.byte), test.message)) { try Coding(bytes: test.bytes) }
    }

    @Test("codings come back from their bytes, and differ if any byte does")
    func codingRoundTrips() throws {
        let all: [[UInt8]] = [[0, 0, 0, 0], [2, 1, 0, 0], [4, 1, 0, 0], [8, 1, 0, 0], [3, 2, 1, 1], [2, 1, 7, 0]]
        let codings = try all.map { try Coding(bytes: $0) }
        #expect(codings.map(\.bytes) == all)
        #expect(Set(codings).count == all.count)
        #expect(codings[0] == .fullPrecision)
        #expect(try codings[1] == Coding(width: 2))
        #expect(codings.map(\.isFullPrecision) == [true, false, false, false, false, false])
        #expect(codings.map(\.ranges.isKnown) == [true, true, true, true, true, false])
    }

    // MARK: - Head plans

    /// A plan that breaks a rule, in a layer of 8 key channels.
    struct Fault: Sendable, CustomTestStringConvertible {
        /// The width, 0 for full precision, and the channels of each run.
        let runs: [(width: Int, channels: [UInt16])]
        var valueWidth = 2
        var means: [Float] = []
        var valueDimension = 4
        var valueChannels: [UInt16]?
        var valueMeans: [Float] = []
        let error: PlanError
        var testDescription: String { error.message }
    }

    static let faults = [
        Fault(runs: [], error: PlanError(.keyRunCount, "0 key runs, must be 1...4")),
        Fault(
            runs: [(2, [0]), (4, [1]), (8, [2]), (0, [3]), (2, [4])],
            error: PlanError(.keyRunCount, "5 key runs, must be 1...4")
        ),
        Fault(
            runs: [(2, [0])],
            valueDimension: 0,
            error: PlanError(.valueCoding(byte: 0), "a coding for values, and the layer has none")
        ),
        Fault(
            runs: [(2, [0]), (4, [1]), (2, [2])],
            error: PlanError(.runCoding(run: 2, byte: 0), "two runs have the same coding")
        ),
        Fault(
            runs: [(0, [0]), (0, [1])],
            error: PlanError(.runCoding(run: 1, byte: 0), "two runs have the same coding")
        ),
        Fault(
            runs: [(2, [0]), (4, [])],
            error: PlanError(.runCount(run: 1), "a run of 0 channels after 1 of 8")
        ),
        Fault(
            runs: [(2, [0, 1, 2, 3, 4, 5, 6, 7]), (4, [7])],
            error: PlanError(.runCount(run: 1), "a run of 1 channels after 8 of 8")
        ),
        Fault(
            runs: [(2, [0, 1, 2, 3, 4, 5, 6, 7, 8])],
            error: PlanError(.runCount(run: 0), "a run of 9 channels after 0 of 8")
        ),
        Fault(
            runs: [(2, [0, 1]), (4, [2, 3, 4])],
            means: [1, 2],
            error: PlanError(.meanCount, "2 means for 3 pruned channels")
        ),
        Fault(
            runs: [(2, [0, 1, 2, 3, 4, 5, 6, 7])],
            means: [1],
            error: PlanError(.meanCount, "1 means for 0 pruned channels")
        ),
        Fault(runs: [(2, [0, 1]), (4, [5, 8])], error: PlanError(.channel(3), "a channel is 8, must be below 8")),
        Fault(runs: [(2, [65535])], error: PlanError(.channel(0), "a channel is 65535, must be below 8")),
        Fault(runs: [(2, [0, 1, 1])], error: PlanError(.channel(2), "channel 1 comes twice or out of order")),
        Fault(runs: [(2, [3, 1])], error: PlanError(.channel(1), "channel 1 comes twice or out of order")),
        Fault(
            runs: [(2, [0, 5]), (4, [1, 5])],
            error: PlanError(.channel(3), "channel 5 comes twice or out of order")
        ),
        Fault(
            runs: [(2, [0, 1, 2, 3, 4])],
            means: [1, 2, .infinity],
            error: PlanError(.mean(2), "a mean is inf, must be finite")
        ),
        Fault(
            runs: [(2, [0, 1, 2, 3, 4, 5, 6])],
            means: [.nan],
            error: PlanError(.mean(0), "a mean is nan, must be finite")
        ),
        Fault(
            runs: [(2, [0])],
            valueDimension: 1,
            valueChannels: [0],
            error: PlanError(.valuePruning, "pruned value channels of 1")
        ),
        Fault(
            runs: [(2, [0])],
            valueChannels: [],
            error: PlanError(.valueChannelCount, "0 value channels of 4, must be 1...3")
        ),
        Fault(
            runs: [(2, [0])],
            valueChannels: [0, 1, 2, 3],
            error: PlanError(.valueChannelCount, "4 value channels of 4, must be 1...3")
        ),
        Fault(
            runs: [(2, [0])],
            valueChannels: [0, 4],
            error: PlanError(.valueChannel(1), "a channel is 4, must be below 4")
        ),
        Fault(
            runs: [(2, [0])],
            valueChannels: [2, 1],
            error: PlanError(.valueChannel(1), "channel 1 comes twice or out of order")
        ),
        Fault(
            runs: [(2, [0, 1, 2, 3, 4, 5, 6])],
            means: [1],
            valueChannels: [2, 3],
            valueMeans: [1],
            error: PlanError(.mean(2), "2 means of 3 are there")
        ),
        Fault(
            runs: [(2, [0])],
            valueChannels: [2, 3],
            valueMeans: [1, .nan],
            error: PlanError(.mean(1), "a mean is nan, must be finite")
        ),
        Fault(
            runs: [(2, [0])],
            valueChannels: [2, 3],
            valueMeans: [1, 1, 1],
            error: PlanError(.mean(2), "3 means of values, must be 2")
        ),
    ]

    private static func coding(_ width: Int) throws -> Coding {
        try width == 0 ? .fullPrecision : Coding(width: width)
    }

    @Test("a plan names the first rule that it breaks", arguments: faults)
    func headPlans(_ fault: Fault) throws {
        let geometry = try Self.geometry(valueDimension: fault.valueDimension)
        let runs = try fault.runs.map { HeadPlan.KeyRun(try Self.coding($0.width), channels: $0.channels) }
        let values = try Self.coding(fault.valueWidth)
        #expect(throws: fault.error) {
            try HeadPlan(
                keyRuns: runs,
                values: values,
                keyMeans: fault.means,
                valueChannels: fault.valueChannels,
                valueMeans: fault.valueMeans,
                geometry: geometry
            )
        }
    }

    @Test("codings that differ in how ranges are chosen make runs of their own")
    func rangeRules() throws {
        let geometry = try Self.geometry()
        let rule = Coding.RangeRule(rawValue: 9)
        let runs = try [
            HeadPlan.KeyRun(Coding(width: 2), channels: [0]),
            HeadPlan.KeyRun(Coding(width: 2, ranges: rule), channels: [1]),
        ]
        let plan = try HeadPlan(keyRuns: runs, values: .fullPrecision, geometry: geometry)
        let layer = LayerPlan(geometry: geometry, heads: [plan])
        let shape = BlockShape(elementType: .float16, blockLength: 32, residualWindow: 0)
        var compressed = CompressedLayer(shape: shape, index: 3, plan: layer)
        var generator = SplitMix64(seed: 1)
        let rows = KVCacheLayer.random(geometry, elementType: .float16, rows: 1, using: &generator)
        let error = #expect(throws: CodecError.self) { try compressed.append(keys: rows.keys, values: rows.values) }
        #expect(error?.code == .unsupportedPlan && error?.layer == 3)
        #expect(error?.message.contains("ranges are chosen by rule 9, which this version doesn't know") == true)
        #expect(compressed.tokenCount == 0)
    }

    @Test("the keep mask has the channels of all runs")
    func keepMask() throws {
        let geometry = try Self.geometry()
        let runs = try [
            HeadPlan.KeyRun(Coding(width: 8), channels: [1, 6]), HeadPlan.KeyRun(.fullPrecision, channels: [0]),
        ]
        let plan = try HeadPlan(keyRuns: runs, values: .fullPrecision, geometry: geometry)
        #expect(plan.keepMask == [true, true, false, false, false, false, true, false])
        #expect(plan.keptChannelCount == 3)
        let full = HeadPlan(fullPrecision: geometry)
        #expect(full.keepMask == [Bool](repeating: true, count: 8))
        #expect(full.values.isFullPrecision)
        #expect(full.valueChannels == [0, 1, 2, 3] && full.keptValueChannelCount == 4)
        #expect(full.valueKeepMask == [true, true, true, true])
        let pruned = try HeadPlan(
            keyRuns: runs,
            values: .fullPrecision,
            valueChannels: [0, 3],
            valueMeans: [1, 2],
            geometry: geometry
        )
        #expect(pruned.valueChannels == [0, 3] && pruned.keptValueChannelCount == 2)
        #expect(pruned.valueKeepMask == [true, false, false, true])
    }
}

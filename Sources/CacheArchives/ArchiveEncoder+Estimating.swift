public import ComputeRuntime

extension ArchiveEncoder {
    /// Components of some rows, to estimate sizes by.
    public struct Sample: Sendable {
        fileprivate struct Unit: Sendable {
            let componentCount: Int
            /// `[componentCount][padded rows]`.
            let numbers: [Float]
            let rows: ArchiveRows
            /// How many rows there are for one that was taken.
            let share: Double
            let chunks: Int
        }

        fileprivate let units: [Unit]
        fileprivate let shiftBytes: Int
    }

    /// Rows of a unit that are sampled at the most, and at least one of so many.
    private static let sampledRows = 512
    private static let sampledShare = 8

    /// Components of one of eight rows, or fewer of long caches.
    public func sample(progress: ProgressHandler? = nil) async throws -> Sample {
        let slots = Slots<Sample.Unit>(count: units.count)
        try await forEachConcurrently(count: units.count, progress: progress) { index in
            let places = gathering.places[index]
            let spacing = max(Self.sampledShare, (places.count + Self.sampledRows - 1) / Self.sampledRows)
            let chosen = Swift.stride(
                from: places.lowerBound + min(spacing / 2, max(places.count - 1, 0)),
                to: places.upperBound,
                by: spacing
            ).map { $0 }
            var lists = [[Int]](repeating: [], count: ArchivePlan.shifts.count)
            for place in chosen { lists[Int(shifts[place])].append(place) }
            let rows = ArchiveRows(places: Array(lists.joined()), segments: lists.map(\.count))
            slots[index] = Sample.Unit(
                componentCount: transforms[index].componentCount,
                numbers: components(unit: index, rows: rows),
                rows: rows,
                share: rows.count > 0 ? Double(places.count) / Double(rows.count) : 0,
                chunks: ArchiveChunks.count(of: places)
            )
        }
        return Sample(units: slots.values, shiftBytes: ShiftBytes.count(places: blockEnd))
    }

    /// About how many bytes chunks will have with a step.
    ///
    /// - Throws: `ArchiveError` if the step is too small for the numbers.
    public func estimatedByteCount(_ sample: Sample, step: Float) async throws -> Int {
        let slots = Slots<Int>(count: units.count)
        try await forEachConcurrently(count: units.count) { index in
            let unit = sample.units[index]
            var costs = ComponentCosts()
            var cost = 0
            let codes = try rounded(
                unit.numbers,
                componentCount: unit.componentCount,
                rows: unit.rows,
                step: step,
                isEstimate: true
            )
            let stride = ArchiveRecord.padded(unit.rows.count)
            unsafe codes.withUnsafeBufferPointer { codes in
                guard let base = codes.baseAddress else { return }
                for component in 0..<unit.componentCount {
                    cost += unsafe costs.best(base + component * stride, segments: unit.rows.segments)?.cost ?? 0
                }
            }
            let head = unit.chunks * (unit.componentCount + ArchiveRecord.headBytes)
            slots[index] = Int(Double(cost) * unit.share / 2048) + head
        }
        return slots.values.reduce(sample.shiftBytes) { $0 + $1 }
    }
}

extension ArchiveRows {
    /// Rows of places that are in order of coding.
    init(places: [Int], segments: [Int]) {
        self.places = places
        self.segments = segments
    }
}

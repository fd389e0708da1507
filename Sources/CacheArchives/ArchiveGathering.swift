internal import CThinkKernels
internal import CachePacking
internal import ComputeRuntime
internal import KVCacheModel

/// Gathers the channels of units from a cache.
struct ArchiveGathering: Sendable {
    let cache: KVCache
    let units: [ArchiveUnit]
    let rotaryFrequencies: [[Float]]
    let rotary: RotaryTables
    /// Of each unit's rows.
    let places: [Range<Int>]
    let blockEnd: Int

    /// Rows that are widened together.
    private static let tile = 128

    /// Calls `body` with tiles of a head's rows in float32, keys turned back, row after row.
    private func forEachTile(
        _ run: UnitRows.Run,
        places: Range<Int>,
        _ body: (_ rows: UnsafeMutablePointer<Float>, _ places: Range<Int>) -> Void
    ) {
        let tensor = cache.layers[run.layer][run.part]
        let first = cache.tokenCount - tensor.tokens
        var rows = [Float](repeating: 0, count: Self.tile * run.dimension)
        var start = places.lowerBound
        while start < places.upperBound {
            let chunk = start / ArchivePlan.chunkPlaces
            let chunkPlaces = ArchiveChunks.places(of: chunk, blockEnd: blockEnd)
            let end = min(start + Self.tile, places.upperBound, chunkPlaces.upperBound)
            unsafe rows.withUnsafeMutableBufferPointer { rows in
                guard let base = rows.baseAddress else { return }
                unsafe tensor.widenRows(head: run.head, from: start - first, count: end - start, into: base)
                let frequencies = rotaryFrequencies[run.layer]
                if run.part == .keys, !frequencies.isEmpty {
                    let angles = rotary.angles(frequencies, chunk: chunk, places: chunkPlaces)
                    let offset = (start - chunkPlaces.lowerBound) * angles.pairs
                    unsafe angles.cosines.withUnsafeBufferPointer { cosines in
                        unsafe angles.sines.withUnsafeBufferPointer { sines in
                            unsafe Kernels.best.rotate_back(
                                base,
                                end - start,
                                run.dimension,
                                angles.pairs,
                                cosines.baseAddress.map { unsafe $0 + offset },
                                sines.baseAddress.map { unsafe $0 + offset }
                            )
                        }
                    }
                }
                unsafe body(base, start..<end)
            }
            start = end
        }
    }

    /// The means of a unit's channels over its rows, rounded to float16; zeros without rows.
    func means(unit index: Int) -> [Float] {
        let restored = UnitRows(unit: units[index], geometry: cache.geometry)
        var means = [Float](repeating: 0, count: units[index].channelCount(in: cache.geometry))
        let places = places[index]
        guard !places.isEmpty else { return means }
        for run in restored.runs {
            var sums = [Double](repeating: 0, count: run.dimension)
            unsafe forEachTile(run, places: places) { rows, places in
                for row in 0..<places.count {
                    for channel in 0..<run.dimension {
                        unsafe sums[channel] += Double(rows[row * run.dimension + channel])
                    }
                }
            }
            for channel in 0..<run.dimension {
                // Keys that are turned back may be a little larger than keys can be.
                let mean = Float(sums[channel] / Double(places.count))
                means[run.channel + channel] = min(max(mean, -Coding.maximumMagnitude), Coding.maximumMagnitude)
            }
        }
        return Float16Numbers.numbers(of: Float16Numbers.bits(of: means))
    }

    /// The channels of rows less their means: `[channels][padded rows]`, in the order of the rows.
    func channels(unit index: Int, rows: ArchiveRows, means: [Float]) -> [Float] {
        let restored = UnitRows(unit: units[index], geometry: cache.geometry)
        let stride = ArchiveRecord.padded(rows.count)
        var result = [Float](repeating: 0, count: means.count * stride)
        guard let first = rows.places.min(), let last = rows.places.max() else { return result }
        // Which number each place has in order, if any.
        var order = [UInt32](repeating: .max, count: last + 1 - first)
        for (number, place) in rows.places.enumerated() { order[place - first] = UInt32(number) }
        unsafe result.withUnsafeMutableBufferPointer { result in
            guard let result = result.baseAddress else { return }
            for run in restored.runs {
                let means = Array(means[run.channel..<run.channel + run.dimension])
                unsafe forEachTile(run, places: first..<last + 1) { numbers, places in
                    unsafe order.withUnsafeBufferPointer { order in
                        unsafe tck_center_columns(
                            numbers,
                            order.baseAddress.map { unsafe $0 + (places.lowerBound - first) },
                            places.count,
                            run.dimension,
                            means,
                            result + run.channel * stride,
                            stride
                        )
                    }
                }
            }
        }
        return result
    }
}

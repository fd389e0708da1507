internal import CacheArchives
internal import CachePacking
internal import ComputeRuntime
internal import KVCacheCodecs
internal import KVCacheModel

/// Finds the step that meets a goal.
///
/// Steps are 2^(n / 256): estimates by a sample of the rows lead to one, whose archive tells by how much they were wrong.
struct StepSearch {
    let encoder: ArchiveEncoder
    let cache: KVCache

    /// Steps of an octave.
    private static let perOctave = 256
    /// The octaves of steps that are looked at.
    private static let octaves = -30...30
    /// The octave where searching begins.
    private static let typical = 0
    /// By how much less than the goal an archive may take before a smaller step is tried, in thousandths.
    private static let tolerance = 8
    /// How often an archive is made again.
    private static let corrections = 3

    func archive(_ goal: ArchiveCodec.Goal, progress: ProgressHandler?) async throws -> CacheArchive {
        switch goal {
        case .step(let step):
            return try await encoder.encode(step: Float(step.doubleValue), progress: progress)
        case .quality(let quality):
            return try await encoder.encode(step: Float(quality.step.doubleValue), progress: progress)
        case .bits(let bits):
            return try await archive(
                byteCount: Int(bits.doubleValue * Double(encoder.codedValueCount) / 8),
                goal: "bits=\(bits)",
                progress: progress
            )
        case .ratio(let ratio):
            let total = Double(2 * cache.valueCount) / ratio.doubleValue
            let byteCount = Int(total) - encoder.uncodedByteCount
            guard byteCount > 0 else {
                guard cache.valueCount * 2 > encoder.uncodedByteCount else {
                    throw CodecError(
                        .unsupportedPlan,
                        "the prompt is too short for an archive: what tells how to read it takes more than the cache; take "
                            + "another recipe"
                    )
                }
                let most = FixedPointNumber(
                    units: Int(Double(2 * cache.valueCount) / Double(encoder.uncodedByteCount) * 100),
                    places: 2
                )
                throw CodecError(
                    .unsupportedPlan,
                    "an archive of a cache of \(cache.tokenCount) tokens can't be \(ratio) times smaller, as its window and what "
                        + "tells how to read it take too much: less than ratio=\(most), or a longer prompt"
                )
            }
            return try await archive(byteCount: byteCount, goal: "ratio=\(ratio)", progress: progress)
        }
    }

    /// The archive of the smallest step whose chunks take at most so many bytes, about.
    private func archive(byteCount: Int, goal: String, progress: ProgressHandler?) async throws -> CacheArchive {
        guard encoder.codedValueCount > 0 else { return try await encoder.encode(step: 1, progress: progress) }
        let sample = try await encoder.sample(progress: progress?.part(0...0.2))
        var known: [Int: Int] = [:]
        var leastNumber = Int.min
        var tooSmall: ArchiveError?
        func estimate(_ number: Int) async throws -> Int {
            if let bytes = known[number] { return bytes }
            if number < leastNumber { return Int.max / 2 }
            var bytes = Int.max / 2
            do {
                bytes = try await encoder.estimatedByteCount(sample, step: Self.step(number))
            } catch let error as ArchiveError where error.code == .stepTooSmall { tooSmall = error }
            known[number] = bytes
            return bytes
        }
        var target = byteCount
        var best: CacheArchive?
        var round = 0
        while round <= Self.corrections {
            let number = try await smallest(within: target, estimate)
            guard let number else {
                // Where every step is too small the numbers are at fault.
                if let tooSmall, known.values.allSatisfy({ $0 == Int.max / 2 }) { throw tooSmall }
                throw CodecError(
                    .unsupportedPlan,
                    "no step gives an archive of \(goal): what tells how to read its chunks takes more; ask for more"
                )
            }
            let part = 0.2 + 0.8 * Double(round) / Double(Self.corrections + 1)
            let archive: CacheArchive
            do {
                archive = try await encoder.encode(
                    step: Self.step(number),
                    progress: progress?.part(part...part + 0.8 / Double(Self.corrections + 1))
                )
            } catch let error as ArchiveError where error.code == .stepTooSmall {
                // A row that isn't in the sample has larger numbers: no step as small will do.
                leastNumber = Self.number(of: error.leastStep ?? 0, above: number)
                known = known.filter { $0.key >= leastNumber }
                tooSmall = error
                guard leastNumber < Self.octaves.upperBound * Self.perOctave else { throw error }
                continue
            }
            round += 1
            let actual = archive.chunkByteCount
            let isBetter =
                best.map { former in
                    actual <= byteCount
                        ? former.chunkByteCount > byteCount || actual > former.chunkByteCount
                        : former.chunkByteCount > actual
                } ?? true
            if isBetter { best = archive }
            if actual <= byteCount, (byteCount - actual) * 1000 <= byteCount * Self.tolerance { break }
            // The next estimate that should come out right.
            let expected = try await estimate(number)
            let corrected = Int(Double(byteCount) * 0.997 * Double(expected) / Double(max(actual, 1)))
            if corrected == target { break }
            target = corrected
        }
        guard var best else { preconditionFailure("the last round made an archive") }
        // Estimates that stay too low end here: the goal is a promise.
        while best.chunkByteCount > byteCount {
            let step = best.plan.step * 1.015_625
            guard step <= Self.step(Self.octaves.upperBound * Self.perOctave) else { break }
            best = try await encoder.encode(step: step)
        }
        progress?(1)
        return best
    }

    /// The smallest step whose estimate is within a number of bytes; nil if none is.
    private func smallest(within target: Int, _ estimate: (Int) async throws -> Int) async throws -> Int? {
        // Octave by octave until two enclose it.
        var high = Self.typical
        while try await estimate(high * Self.perOctave) > target {
            high += 1
            if high > Self.octaves.upperBound { return nil }
        }
        while try await estimate((high - 1) * Self.perOctave) <= target {
            high -= 1
            if high <= Self.octaves.lowerBound { return high * Self.perOctave }
        }
        var (low, top) = ((high - 1) * Self.perOctave, high * Self.perOctave)
        var (lowBytes, topBytes) = (try await estimate(low), try await estimate(top))
        while top - low > 1 {
            // On the line between both, but not too near to either, so that few trials are enough.
            let span = Double(top - low)
            let share = Double(lowBytes - target) / Double(max(lowBytes - topBytes, 1))
            let middle = low + Int(min(max(span * share, span / 16, 1), max(span - span / 16, 1), span - 1).rounded())
            let bytes = try await estimate(middle)
            if bytes <= target { (top, topBytes) = (middle, bytes) } else { (low, lowBytes) = (middle, bytes) }
            // A thousandth of a bit is near enough.
            if topBytes <= target, (target - topBytes) * 1000 <= target * 2 { break }
        }
        return top
    }

    /// The number of the least step that is at least another, and has a larger number than one.
    private static func number(of step: Float, above number: Int) -> Int {
        var (low, high) = (number, octaves.upperBound * perOctave)
        while high - low > 1 {
            let middle = (low + high) / 2
            if Self.step(middle) >= step { high = middle } else { low = middle }
        }
        return high
    }

    /// 2^(number / 256), by square roots and products alone, which are the same everywhere.
    static func step(_ number: Int) -> Float {
        let octave = Int((Double(number) / Double(perOctave)).rounded(.down))
        var rest = number - octave * perOctave
        var root = 2.0
        var step = Double(sign: .plus, exponent: octave, significand: 1)
        var bit = perOctave / 2
        while bit > 0 {
            root = root.squareRoot()
            if rest >= bit {
                step *= root
                rest -= bit
            }
            bit /= 2
        }
        return Float(step)
    }
}

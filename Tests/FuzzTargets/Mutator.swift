import TestSupport
import ThinkCompress

/// Damages valid inputs, the same way for the same seed and number.
public struct Mutator: Sendable {
    private let target: ParserTarget
    private let seed: UInt64
    private let inputs: [[UInt8]]
    /// About as long as the headers of the GGUF files are.
    private static let ggufHeaderBytes = 3000

    public init(_ target: ParserTarget, seed: UInt64) async throws {
        self.target = target
        self.seed = seed
        inputs = try await Corpus.inputs(of: target)
    }

    /// The input of a number, which follows from nothing but the target, the seed and the number.
    public func mutation(_ number: Int) -> [UInt8] {
        // Seeds beside each other give the same numbers, shifted; mixed ones don't.
        var mixer = SplitMix64(seed: seed ^ UInt64(truncatingIfNeeded: number) << 32)
        var generator = SplitMix64(seed: mixer.next())
        var bytes = inputs[Int.random(in: inputs.indices, using: &generator)]
        // One mutation in half of all, for an input that is valid but for one thing gets furthest.
        for _ in 0..<[1, 1, 1, 2, 3, 8][Int.random(in: 0..<6, using: &generator)] {
            let other = inputs[Int.random(in: inputs.indices, using: &generator)]
            bytes = mutate(bytes, splicing: other, using: &generator)
        }
        return bytes
    }

    private func mutate(_ bytes: [UInt8], splicing other: [UInt8], using generator: inout SplitMix64) -> [UInt8] {
        switch target.syntax {
        case .bytes:
            return mutateSnapshot(bytes, splicing: other, using: &generator)
        case .gguf:
            // Weights are data: what matters is before them, and seldom in its length.
            let header = 0..<min(bytes.count, Self.ggufHeaderBytes)
            return Int.random(in: 0..<4, using: &generator) == 0
                ? Self.mutateBytes(bytes, in: header, splicing: other, using: &generator)
                : Self.mutateInPlace(bytes, in: header, using: &generator)
        case .text:
            return Self.mutateBytes(bytes, in: 0..<bytes.count, splicing: other, using: &generator)
        case .json:
            guard Int.random(in: 0..<8, using: &generator) > 0 else {
                return Self.mutateBytes(bytes, in: 0..<bytes.count, splicing: other, using: &generator)
            }
            return JSONTokens(bytes).mutated(splicing: other, using: &generator)
        case .safetensors:
            guard bytes.count >= 8, Int.random(in: 0..<8, using: &generator) > 0 else {
                return Self.mutateBytes(bytes, in: 0..<bytes.count, splicing: other, using: &generator)
            }
            let length = Int(min(SnapshotSurgery(bytes).integer(UInt64.self, at: 0), UInt64(bytes.count - 8)))
            let header = Array(bytes[8..<8 + length])
            let mutated =
                Bool.random(using: &generator)
                ? JSONTokens(header).mutated(splicing: header, using: &generator)
                : Self.mutateBytes(header, in: 0..<length, splicing: header, using: &generator)
            return SafetensorsBuilder.file(header: mutated, data: Array(bytes[(8 + length)...]))
        }
    }

    /// Mostly what a reader must understand: header, table and the small sections, rather than codes.
    private func mutateSnapshot(_ bytes: [UInt8], splicing other: [UInt8], using generator: inout SplitMix64) -> [UInt8]
    {
        let file = SnapshotSurgery(bytes)
        let sections = file.sections.filter { $0.kind != 6 && !$0.range.isEmpty }
        let choice = Int.random(in: 0..<8, using: &generator)
        if choice < 2, bytes.count > SnapshotSurgery.headerBytes {
            let end = SnapshotSurgery.headerBytes + sections.count * SnapshotSurgery.entryBytes
            return Self.mutateInPlace(bytes, in: 16..<min(end, bytes.count), using: &generator)
        }
        guard choice < 7, let section = sections.randomElement(using: &generator) else {
            return Self.mutateBytes(bytes, in: 0..<bytes.count, splicing: other, using: &generator)
        }
        return Self.mutateInPlace(bytes, in: section.range, using: &generator)
    }

    private static let integers: [UInt64] = [
        0, 1, 2, 7, 8, 31, 32, 33, 64, 127, 128, 255, 256, 257, 1 << 15, (1 << 16) - 1, 1 << 16, (1 << 31) - 1, 1 << 31,
        (1 << 32) - 1, 1 << 32, 1 << 48, (1 << 63) - 1, 1 << 63, .max - 7, .max - 1, .max,
    ]

    /// Changes bytes and integers, not the length.
    private static func mutateInPlace(
        _ bytes: [UInt8],
        in range: Range<Int>,
        using generator: inout SplitMix64
    ) -> [UInt8] {
        guard !range.isEmpty else { return bytes }
        var bytes = bytes
        let place = Int.random(in: range, using: &generator)
        switch Int.random(in: 0..<4, using: &generator) {
        case 0: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
        case 1: bytes[place] = [0, 1, 0x7F, 0x80, 0xFF].randomElement(using: &generator) ?? 0
        case 2: bytes[place] = UInt8.random(in: 0...255, using: &generator)
        default:
            let size = [1, 2, 4, 8].randomElement(using: &generator) ?? 4
            let value = integers.randomElement(using: &generator) ?? 0
            // Fields lie at multiples of their size.
            let start = place / size * size
            guard start + size <= bytes.count else { break }
            for index in 0..<size { bytes[start + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
        }
        return bytes
    }

    /// Changes, removes, repeats or inserts bytes.
    static func mutateBytes(
        _ bytes: [UInt8],
        in range: Range<Int>,
        splicing other: [UInt8],
        using generator: inout SplitMix64
    ) -> [UInt8] {
        guard !range.isEmpty else { return other }
        let place = Int.random(in: range, using: &generator)
        let end = min(place + (1 << Int.random(in: 0..<10, using: &generator)), range.upperBound)
        switch Int.random(in: 0..<9, using: &generator) {
        case 0: return Array(bytes[..<place])
        case 1: return Array(bytes[..<place] + bytes[end...])
        case 2: return Array(bytes[..<end] + bytes[place...])
        case 3:
            let count = 1 << Int.random(in: 0..<8, using: &generator)
            return bytes[..<place] + (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
                + bytes[place...]
        case 4:
            // The end of another input.
            let start = Int.random(in: 0...other.count, using: &generator)
            return Array(bytes[..<place] + other[start...])
        default: return mutateInPlace(bytes, in: range, using: &generator)
        }
    }
}

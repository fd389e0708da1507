import TestSupport
import Testing
import ThinkCompress

@testable import CacheArchives

/// Coding by a step.
@Suite struct ArchiveEncoderTests {
    /// A layer of one KV head of two channels, of which some tokens are larger; values are keys times a factor.
    private static func encoder(
        large: [Int: Float],
        shifts: [Int: UInt8],
        factor: Float = 1
    ) async throws -> ArchiveEncoder {
        let count = 64
        let numbers = (0..<count).flatMap { token in [large[token] ?? Float(token % 7), Float(token % 3)] }
        let keys = KVTensor(numbers, elementType: .float32, heads: 1, headDimension: 2)
        let values = KVTensor(numbers.map { $0 * factor }, elementType: .float32, heads: 1, headDimension: 2)
        return try await ArchiveEncoder(
            KVCache(layers: [KVCacheLayer(keys: keys, values: values)], tokenCount: count),
            units: .channels(weights: [[.keys: [1, 1], .values: [1, 1]]]),
            shape: BlockShape(elementType: .float16, blockLength: 32, residualWindow: 0),
            sinks: 0,
            shifts: (0..<count).map { shifts[$0] ?? 0 },
            recipe: nil
        )
    }

    private static func shifts(_ archive: CacheArchive) -> [UInt8] {
        ShiftBytes.decode(archive.chunks[0][0], places: 64)
    }

    @Test func stepsAreAsFineAsNumbersAllow() async throws {
        let encoder = try await Self.encoder(large: [5: 30000, 9: 10000, 11: 100], shifts: [5: 3, 9: 3, 11: 3, 20: 2])
        let archive = try await encoder.encode(step: 1)
        var expected = [UInt8](repeating: 0, count: 64)
        (expected[9], expected[11], expected[20]) = (1, 3, 2)
        #expect(Self.shifts(archive) == expected)
        let restored = try await ArchiveRestoration(archive, bases: nil).layers(0..<1, as: .float32)[0]
        for (token, number) in [(5, Float(30000)), (9, 10000), (11, 100), (3, 3)] {
            let step = 1 / Float(1 << expected[token])
            #expect(abs(restored.keys.numbers[2 * token] - number) <= step / 2 * 1.01, "token \(token)")
        }
        // What fits stays as it is.
        let coarse = try await encoder.encode(step: 8)
        #expect(Self.shifts(coarse).enumerated().allSatisfy { $1 == ([5: 3, 9: 3, 11: 3, 20: 2][$0] ?? 0) })
    }

    @Test func numbersThatNoStepAllowsAreAnError() async throws {
        let encoder = try await Self.encoder(large: [5: 60000], shifts: [5: 1])
        let error = await #expect(throws: ArchiveError.self) { try await encoder.encode(step: 1) }
        #expect(error?.code == .stepTooSmall)
        let least = try #require(error?.leastStep)
        #expect((1.7...1.9).contains(least))
        _ = try await encoder.encode(step: least)
    }

    @Test func theLeastStepIsThatOfAllUnits() async throws {
        // The first unit that doesn't fit is not the one that asks for most.
        let encoder = try await Self.encoder(large: [2: 40000], shifts: [2: 1], factor: 1.5)
        let error = await #expect(throws: ArchiveError.self) { try await encoder.encode(step: 1, threads: 1) }
        _ = try await encoder.encode(step: try #require(error?.leastStep))
    }

    @Test func estimatesAllowFinerStepsThatWillNotBe() async throws {
        let encoder = try await Self.encoder(large: [4: 30000, 12: 30000], shifts: [4: 3, 12: 3])
        let sample = try await encoder.sample()
        #expect(try await encoder.estimatedByteCount(sample, step: 1) > 0)
        await #expect(throws: ArchiveError.self) { try await encoder.estimatedByteCount(sample, step: 0.1) }
    }
}

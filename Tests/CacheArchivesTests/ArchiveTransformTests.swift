import TestSupport
import Testing
import ThinkCompress

@testable import CacheArchives

/// Components of channels, and back.
@Suite struct ArchiveTransformTests {
    /// An orthogonal matrix by Gram and Schmidt, its rows rounded to bytes with a scale, as profiles have them.
    static func basis(components: Int, channels: Int, seed: UInt64) -> ComponentBasis {
        var generator = SplitMix64(seed: seed)
        var rows: [[Double]] = []
        while rows.count < components {
            var row = (0..<channels).map { _ in Double(generator.normal()) }
            for other in rows {
                let product = zip(row, other).reduce(0) { $0 + $1.0 * $1.1 }
                for index in row.indices { row[index] -= product * other[index] }
            }
            let length = row.reduce(0) { $0 + $1 * $1 }.squareRoot()
            rows.append(row.map { $0 / length })
        }
        let scales = rows.map { Float($0.map(\.magnitude).max() ?? 1) / 127 }
        let bytes = zip(rows, scales).flatMap { row, scale in
            row.map { UInt8(bitPattern: Int8(($0 / Double(scale)).rounded())) }
        }
        return ComponentBasis(
            matrix: SharedBytes(bytes),
            scales: scales,
            variances: [Float](repeating: 1, count: components),
            weights: (0..<channels).map { _ in Float.random(in: 0.2..<3, using: &generator) }
        )
    }

    @Test(arguments: [(24, 24), (12, 24), (1, 8)])
    func codingAndRestoringAreInverse(components: Int, channels: Int) {
        let basis = Self.basis(components: components, channels: channels, seed: 3)
        let transform = ArchiveTransform(basis, isForCoding: true)
        #expect(transform.channelCount == channels && transform.componentCount == components)
        #expect(!transform.isDiagonal)
        var generator = SplitMix64(seed: 4)
        // Components that are restored and coded again are the same.
        for _ in 0..<20 {
            let numbers = (0..<components).map { _ in generator.normal() }
            let restored = (0..<channels).map { channel in
                numbers.indices.reduce(Float(0)) { $0 + numbers[$1] * transform.restoring[$1 * channels + channel] }
            }
            let again = (0..<components).map { component in
                restored.indices.reduce(Float(0)) { $0 + restored[$1] * transform.coding[$1 * components + component] }
            }
            for (left, right) in zip(numbers, again) { #expect(abs(left - right) < 1e-4) }
        }
    }

    @Test func channelsAreWeighted() {
        let transform = ArchiveTransform(weights: [2, 0.25])
        #expect(transform.isDiagonal && transform.coding == [2, 0.25] && transform.restoring == [0.5, 4])
    }

    @Test func restoringNeedsNoInverse() {
        let basis = Self.basis(components: 3, channels: 4, seed: 1)
        let transform = ArchiveTransform(basis, isForCoding: false)
        #expect(transform.coding.isEmpty)
        let expected = unsafe basis.matrix.withUnsafeBytes { bytes in
            (0..<12).map { unsafe Float(Int8(bitPattern: bytes[$0])) * basis.scales[$0 / 4] / basis.weights[$0 % 4] }
        }
        #expect(transform.restoring == expected)
    }
}

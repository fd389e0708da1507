import Foundation
import TestSupport
import Testing
import ThinkCompress

@testable import KVCacheEvaluation

/// Covariances, weights and components: Formats/profile.md, "How bases are made".
@Suite struct BasisTests {
    /// Numbers as a buffer.
    private static func buffer(_ numbers: [Double]) throws -> DoubleBuffer {
        let buffer = try DoubleBuffer(count: numbers.count)
        for (place, number) in numbers.enumerated() { buffer[place] = number }
        return buffer
    }

    /// Vectors `[tokens][width]` whose channels depend on each other.
    private static func vectors(tokens: Int, width: Int, seed: UInt64) -> [[Double]] {
        var generator = SplitMix64(seed: seed)
        return (0..<tokens).map { _ in
            let common = Double(generator.normal())
            return (0..<width).map { Double($0) + common * Double($0 % 3) + Double(generator.normal()) }
        }
    }

    /// The covariance about the mean, number by number.
    private static func covariance(_ vectors: [[Double]]) -> [[Double]] {
        let width = vectors[0].count
        let means = (0..<width).map { channel in vectors.reduce(0) { $0 + $1[channel] } / Double(vectors.count) }
        return (0..<width).map { row in
            (0..<width).map { column in
                vectors.reduce(0) { $0 + ($1[row] - means[row]) * ($1[column] - means[column]) } / Double(vectors.count)
            }
        }
    }

    /// `U` of a basis.
    private static func rows(_ basis: ComponentBasis) -> [[Double]] {
        let bytes = basis.matrix.array.map { Double(Int8(bitPattern: $0)) }
        return basis.scales.enumerated().map { component, scale in
            bytes[component * basis.channelCount..<(component + 1) * basis.channelCount].map { $0 * Double(scale) }
        }
    }

    @Test(arguments: [1, 2, 7, 40])
    func eigenvectorsGiveTheMatrixBack(width: Int) throws {
        var generator = SplitMix64(seed: UInt64(width))
        var numbers = [Double](repeating: 0, count: width * width)
        for row in 0..<width {
            for column in 0...row { numbers[row * width + column] = Double(generator.normal()) }
        }
        // What is above the diagonal isn't read.
        let matrix = try Self.buffer(numbers)
        for row in 0..<width { for column in row + 1..<max(width, row + 1) { matrix[row * width + column] = .nan } }
        let values = try VectorCovariance.eigenvectors(of: matrix, width: width)
        #expect(values == values.sorted())
        for row in 0..<width {
            for column in 0...row {
                let sum = (0..<width).reduce(0.0) {
                    $0 + values[$1] * matrix[$1 * width + row] * matrix[$1 * width + column]
                }
                #expect(abs(sum - numbers[row * width + column]) < 1e-12)
            }
        }
    }

    @Test func covariancesAreMeansOverPrefixesWithMeansOfTheirOwn() throws {
        let width = 5
        let prefixes = [
            Self.vectors(tokens: 30, width: width, seed: 1), Self.vectors(tokens: 50, width: width, seed: 2),
        ]
        let covariance = try VectorCovariance(channelCount: width)
        for (index, prefix) in prefixes.enumerated() {
            let moved = prefix.map { $0.map { $0 + 100 * Double(index) } }
            #expect(try covariance.add(Self.buffer(Array(moved.joined()))))
        }
        let expected = prefixes.map(Self.covariance)
        for channel in 0..<width {
            let mean = (expected[0][channel][channel] + expected[1][channel][channel]) / 2
            #expect(abs(covariance.variances[channel] - mean) < 1e-9)
        }
        #expect(try !covariance.add(Self.buffer([1, 2, 3, .nan, 5, 1, 2, 3, 4, 5])))
        #expect(try !covariance.add(Self.buffer([1, 2, 3, .infinity, 5, 1, 2, 3, 4, 5])))
        #expect(try !covariance.add(Self.buffer([1, 2, 3, 1e20, 5, 1, 2, 3, 4, 5])))
    }

    @Test func componentsAreThoseOfTheWeightedCovariance() throws {
        let width = 12
        let vectors = Self.vectors(tokens: 200, width: width, seed: 4)
        let covariance = try VectorCovariance(channelCount: width)
        #expect(try covariance.add(Self.buffer(Array(vectors.joined()))))
        let weights = (0..<width).map { Float(1 + $0 % 4) / 2 }
        let basis = try covariance.basis(weights: weights)
        #expect(basis.weights == weights && basis.componentCount == width)
        #expect(basis.variances == basis.variances.sorted(by: >))
        let rows = Self.rows(basis)
        let expected = Self.covariance(vectors)
        let largest = Double(basis.variances[0])
        for row in 0..<width {
            for column in 0..<width {
                let sum = (0..<width).reduce(0.0) {
                    $0 + Double(basis.variances[$1]) * rows[$1][row] * rows[$1][column]
                }
                let weighted = expected[row][column] * Double(weights[row] * weights[column])
                #expect(abs(sum - weighted) < 0.02 * largest)
            }
            let bytes = basis.matrix.array[row * width..<(row + 1) * width].map { Int8(bitPattern: $0) }
            #expect(bytes.first { abs(Int($0)) == 127 } == 127 && !bytes.contains(-128))
            let length = rows[row].reduce(0) { $0 + $1 * $1 }
            #expect(abs(length - 1) < 0.02)
        }
    }

    /// Errors of channels before rotary embedding, turned token by token.
    @Test func sensitivitiesBeforeRotationAreThoseOfTurnedErrors() throws {
        let (dimension, positions) = (6, Array(7..<90))
        let frequencies: [Float] = [1, 0.03]
        let after = [3, 0.5, 2, 1, 7, 4, 1, 2, 3, 4, 5, 6.0]
        let turns = RotaryTurns(positions: positions, frequencies: frequencies)
        let squares = turns.meanSquaredCosines(of: 3..<80)
        let before = ChannelCosts.beforeRotation(after, squaredCosines: squares, dimension: dimension)
        for head in 0..<2 {
            for channel in 0..<dimension {
                var cost = 0.0
                for position in positions[3..<80] {
                    var error = [Double](repeating: 0, count: dimension)
                    error[channel] = 1
                    for (pair, frequency) in frequencies.enumerated() {
                        let angle = Double(Float(position) * frequency)
                        let (one, other) = (error[pair], error[pair + 2])
                        error[pair] = one * cos(angle) - other * sin(angle)
                        error[pair + 2] = other * cos(angle) + one * sin(angle)
                    }
                    for place in 0..<dimension { cost += error[place] * error[place] * after[head * dimension + place] }
                }
                #expect(abs(before[head * dimension + channel] - cost / 77) < 1e-12)
            }
        }
        // Without a partner nothing changes.
        #expect(before[4] == after[4] && before[11] == after[11])
    }

    @Test func weightsHaveTheModelsMeanAndAFloor() throws {
        let geometry = try CacheGeometry(layers: 2, kvHeads: 1, headDimension: 2)
        let costs = ChannelCosts(
            keys: [[4, 0], [2, 6]],
            values: [[0, 0], [8, 12]],
            squaredCosines: [[], []],
            geometry: geometry
        )
        let units = BasisUnit.layer.units(of: geometry)
        // The mean of all is 4, of the layers 1 and 7.
        #expect(
            costs.weights(of: units[0], areTurned: true).map { $0 * $0 }.map { Double($0) }.isNear([
                1, 2.5e-5, 2.5e-5, 2.5e-5,
            ])
        )
        #expect(
            costs.weights(of: units[1], areTurned: true).map { $0 * $0 }.map { Double($0) }.isNear([0.5, 1.5, 2, 3])
        )
        let nothing = ChannelCosts(
            keys: [[0, 0], [0, 0]],
            values: [[0, 0], [0, 0]],
            squaredCosines: [[], []],
            geometry: geometry
        )
        #expect(nothing.weights(of: units[0], areTurned: false) == [1, 1, 1, 1])
    }

    // MARK: - Units

    @Test(arguments: BasisUnit.allCases)
    func unitsHaveAllChannelsOnce(unit: BasisUnit) throws {
        let wide = try LayerGeometry(kvHeads: 2, keyDimension: 8, valueDimension: 4)
        let latent = try LayerGeometry(kvHeads: 1, keyDimension: 6, valueDimension: 0)
        let geometry = try CacheGeometry([wide, wide, .none, latent] + [LayerGeometry](repeating: wide, count: 8))
        let units = unit.units(of: geometry)
        #expect(
            units.reduce(0) { $0 + $1.channelCount(in: geometry) }
                == geometry.layers.reduce(0) { $0 + $1.valuesPerToken }
        )
        #expect(Set(units).count == units.count)
        switch unit {
        case .head:
            #expect(units.count == 21 && units[1].numbers == [0, 1, 1, 1, 3] && units[4].numbers == [3, 1, 0, 1, 1])
        case .layer: #expect(units.count == 11 && units[1].numbers == [1, 1, 0, 2, 3])
        case .layers:
            #expect(
                units.map(\.numbers) == [
                    [0, 2, 0, 2, 1], [0, 2, 0, 2, 2], [3, 1, 0, 1, 1], [4, 6, 0, 2, 1], [4, 6, 0, 2, 2],
                    [10, 2, 0, 2, 1],
                    [10, 2, 0, 2, 2],
                ]
            )
        }
    }

    @Test func unitsFollowFromTheModelsSize() throws {
        // SmolLM2-135M, and a model of 7 billion parameters without grouped heads.
        let small = try CacheGeometry(layers: 30, kvHeads: 3, headDimension: 64)
        let large = try CacheGeometry(layers: 32, kvHeads: 32, headDimension: 128)
        #expect(BasisUnit.best(for: small, parameterCount: 134_000_000) == (.layer, 5_360_000))
        #expect(BasisUnit.best(for: small, parameterCount: 60_000_000) == (.layer, 2_400_000))
        #expect(BasisUnit.best(for: small, parameterCount: 20_000_000).unit == .head)
        #expect(BasisUnit.best(for: large, parameterCount: 6_700_000_000).unit == .head)
        #expect(BasisUnit.best(for: small, parameterCount: nil) == (.layer, nil))
        #expect(BasisUnit.best(for: large, parameterCount: nil) == (.head, nil))
    }

    /// A basis of numbered bytes.
    private static func basis(_ variances: [Float], channels: Int) -> ComponentBasis {
        ComponentBasis(
            matrix: SharedBytes((0..<variances.count * channels).map { UInt8(truncatingIfNeeded: $0) }),
            scales: variances.map { $0 + 1 },
            variances: variances,
            weights: [Float](repeating: 1, count: channels)
        )
    }

    /// What is left of units' bases.
    ///
    /// - Parameter cutsEach: whether those that are known are cut before the next is added.
    private static func cut(_ bases: [ComponentBasis], byteLimit: Int, cutsEach: Bool = false) throws
        -> [ComponentBasis]
    {
        var cut = BasisCut(byteLimit: byteLimit)
        for (layer, basis) in bases.enumerated() {
            let unit = ArchiveUnit(layers: layer..<layer + 1, heads: 0..<1, hasKeys: true, hasValues: false)
            cut.add(basis, of: unit)
            if cutsEach { try cut.cut() }
        }
        try cut.cut()
        #expect(cut.archives.map(\.unit.layers.lowerBound) == Array(bases.indices))
        return cut.archives.map(\.basis)
    }

    @Test func componentsOfLeastVarianceAreLeftOut() throws {
        let bases = [
            Self.basis([9, 5, 1], channels: 4), Self.basis([0, 0], channels: 2), Self.basis([7, 6, 5], channels: 3),
        ]
        // 12, 10 and 11 bytes a component; one each are 33.
        func counts(_ limit: Int) throws -> [Int] { try Self.cut(bases, byteLimit: limit).map(\.componentCount) }
        #expect(try counts(0) == [1, 1, 1] && counts(43) == [1, 1, 1] && counts(44) == [1, 1, 2])
        #expect(try counts(56) == [2, 1, 2] && counts(67) == [2, 1, 3] && counts(1000) == [3, 2, 3])
        let cut = try Self.cut(bases, byteLimit: 56)[0]
        #expect(cut.matrix.array == (0..<8).map { UInt8($0) } && cut.scales == [10, 6] && cut.weights.count == 4)
    }

    /// Of units of many sizes, so that a small component might fit where a larger one before it doesn't.
    @Test(arguments: 0..<8 as Range<UInt64>)
    func unitsThatComeOneByOneAreCutLikeAllTogether(seed: UInt64) throws {
        var generator = SplitMix64(seed: seed)
        let bases = (0..<12).map { _ in
            let channels = Int.random(in: 1...30, using: &generator)
            let variances = (0..<channels).map { _ in Float(Int.random(in: 0..<40, using: &generator)) }
            return Self.basis(variances.sorted(by: >), channels: channels)
        }
        let whole = bases.reduce(0) { $0 + $1.componentCount * BasisUnit.componentBytes(channels: $1.channelCount) }
        for limit in stride(from: 0, through: whole + 100, by: 97) {
            #expect(
                try Self.cut(bases, byteLimit: limit, cutsEach: true) == Self.cut(bases, byteLimit: limit),
                "\(limit) of \(whole) bytes"
            )
        }
    }
}

extension [Double] {
    /// Whether all numbers are others to float32.
    fileprivate func isNear(_ others: [Double]) -> Bool {
        count == others.count && zip(self, others).allSatisfy { abs($0 - $1) <= 1e-6 * Swift.max($1, 1e-6) }
    }
}

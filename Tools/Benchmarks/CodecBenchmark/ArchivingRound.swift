import BenchmarkSupport
import Foundation
import ThinkCompress

/// Archives synthetic layers and restores them to float16, by one thread and by two, interleaved with memcpy of the same
/// float16 bytes.
///
/// Components of a unit are independent normal numbers whose variances fall evenly on a logarithmic scale, over 5 octaves
/// of standard deviation, as they do in SmolLM2-135M's profile.
struct ArchivingRound {
    /// What is archived: units of some layers and KV heads.
    struct Shape {
        let name: String
        let layers: Int
        let kvHeads: Int
        let dimension: Int
        /// Keys, and values, of so many layers and KV heads together.
        let unitLayers: Int
        let unitHeads: Int

        static let all = [
            Shape(name: "a head's keys, 64", layers: 4, kvHeads: 8, dimension: 64, unitLayers: 1, unitHeads: 1),
            Shape(name: "a head's keys, 128", layers: 2, kvHeads: 8, dimension: 128, unitLayers: 1, unitHeads: 1),
            Shape(name: "6 layers' keys, 1152", layers: 6, kvHeads: 3, dimension: 64, unitLayers: 6, unitHeads: 3),
        ]
    }

    struct Figure {
        let name: String
        let bits: Double
        let memcpy: Double
        /// GB/s of float16 by one thread and by two.
        let encode: [Double]
        let decode: [Double]

        static let header =
            "archives (GB/s of float16)    bits   decode  / memcpy  2 threads   encode  / memcpy  2 threads    memcpy"

        var numbers: [String: Double] {
            [
                "bitsPerValue": bits, "memcpyGBps": memcpy, "decodeGBps": decode[0], "encodeGBps": encode[0],
                "decodeToMemcpy": decode[0] / memcpy, "encodeToMemcpy": encode[0] / memcpy,
                "decodeScaling": decode[1] / decode[0], "encodeScaling": encode[1] / encode[0],
            ]
        }

        var row: String {
            func cells(_ rates: [Double]) -> String {
                String(format: "%8.3f %9.4f %9.2fx", rates[0], rates[0] / memcpy, rates[1] / rates[0])
            }
            return name.padding(toLength: 26, withPad: " ", startingAt: 0) + String(format: "%8.3f ", bits)
                + cells(decode) + cells(encode) + String(format: "%10.1f", memcpy)
        }
    }

    let tokens: Int

    func measure(rounds: Int) async throws -> [Figure] {
        var figures: [Figure] = []
        for shape in Shape.all { figures.append(try await measure(shape, rounds: rounds)) }
        return figures
    }

    private func measure(_ shape: Shape, rounds: Int) async throws -> Figure {
        let sample = SyntheticArchive(shape, tokens: tokens)
        let cache = try sample.cache()
        guard let bases = ArchiveBases(cache.layers.map { $0.profile ?? .empty }) else {
            throw ValidationFailure("the sample has no bases")
        }
        let encoder = try await ArchiveEncoder(
            cache,
            units: .profile(bases),
            shape: BlockShape(elementType: .float16, blockLength: 32, residualWindow: 0),
            sinks: 0,
            shifts: [UInt8](repeating: 0, count: tokens),
            recipe: nil
        )
        // About 0.85 bits: the step at which variances' halves of an octave are spent so.
        let archive = try await encoder.encode(step: SyntheticArchive.step)
        let restoration = try ArchiveRestoration(archive, bases: bases)
        let byteCount = cache.valueCount * 2
        let source = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 64)
        let destination = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 64)
        defer {
            source.deallocate()
            destination.deallocate()
        }
        memset(source, 1, byteCount)
        var (copies, encodings, decodings) = ([Double](), [[Double](), []], [[Double](), []])
        for round in 0...rounds {
            let copy = seconds { memcpy(destination, source, byteCount) }
            if round > 0 { copies.append(copy) }
            for threads in 1...2 {
                let clock = ContinuousClock()
                let decoding = try await clock.measure {
                    for group in restoration.layerGroups {
                        _ = try await restoration.layers(group, as: .float16, threads: threads)
                    }
                }
                let encoding = try await clock.measure {
                    _ = try await encoder.encode(step: SyntheticArchive.step, threads: threads)
                }
                guard round > 0 else { continue }
                decodings[threads - 1].append(decoding / .seconds(1))
                encodings[threads - 1].append(encoding / .seconds(1))
            }
        }
        let gigabytes = Double(byteCount) / 1e9
        return Figure(
            name: shape.name,
            bits: archive.bitsPerValue ?? 0,
            memcpy: gigabytes / median(copies),
            encode: encodings.map { gigabytes / median($0) },
            decode: decodings.map { gigabytes / median($0) }
        )
    }

    private struct ValidationFailure: Error, CustomStringConvertible {
        let description: String

        init(_ description: String) {
            self.description = description
        }
    }
}

/// A cache and a profile whose components are independent normal numbers.
private struct SyntheticArchive {
    let shape: ArchivingRound.Shape
    let tokens: Int

    /// Standard deviations of components, from the first to the last, in octaves.
    private static let octaves: ClosedRange<Double> = -5...0
    static let step: Float = 0.8

    init(_ shape: ArchivingRound.Shape, tokens: Int) {
        self.shape = shape
        self.tokens = tokens
    }

    private var channels: Int { shape.unitLayers * shape.unitHeads * shape.dimension }

    private func deviation(_ component: Int) -> Double {
        let share = Double(component) / Double(max(channels - 1, 1))
        return exp2(Self.octaves.upperBound - share * (Self.octaves.upperBound - Self.octaves.lowerBound))
    }

    /// The cosine transform's matrix, which is orthogonal: of a component and a channel.
    private func matrix() -> [Double] {
        let count = channels
        return (0..<count * count).map { index in
            let (component, channel) = (index / count, index % count)
            let scale = (component == 0 ? 1.0 : 2.0) / Double(count)
            return scale.squareRoot() * cos(.pi * (Double(channel) + 0.5) * Double(component) / Double(count))
        }
    }

    func cache() throws -> KVCache {
        let (count, matrix) = (channels, matrix())
        let basis = basis(matrix)
        var units: [ArchiveUnit] = []
        for layer in stride(from: 0, to: shape.layers, by: shape.unitLayers) {
            for head in stride(from: 0, to: shape.kvHeads, by: shape.unitHeads) {
                for isOfKeys in [true, false] {
                    units.append(
                        ArchiveUnit(
                            layers: layer..<layer + shape.unitLayers,
                            heads: head..<head + shape.unitHeads,
                            hasKeys: isOfKeys,
                            hasValues: !isOfKeys
                        )
                    )
                }
            }
        }
        var numbers = [[[Float16]]](
            repeating: [[Float16]](
                repeating: [Float16](repeating: 0, count: shape.kvHeads * tokens * shape.dimension),
                count: 2
            ),
            count: shape.layers
        )
        var random = NormalNumbers()
        // Few vectors, repeated: making them takes longer than archiving.
        let vectors = (0..<256).map { _ in
            let components = (0..<count).map { Float(deviation($0)) * random.next() }
            return (0..<count).map { channel in
                (0..<count).reduce(Float(0)) { $0 + components[$1] * Float(matrix[$1 * count + channel]) }
            }
        }
        for unit in units {
            for token in 0..<tokens {
                let vector = vectors[(token * 167 + units.count) % 256]
                for (number, layer) in unit.layers.enumerated() {
                    for (place, head) in unit.heads.enumerated() {
                        for channel in 0..<shape.dimension {
                            let from = (number * unit.heads.count + place) * shape.dimension + channel
                            let to = (head * tokens + token) * shape.dimension + channel
                            numbers[layer][unit.hasKeys ? 0 : 1][to] = Float16(vector[from])
                        }
                    }
                }
            }
        }
        let layers = (0..<shape.layers).map { layer in
            func tensor(_ numbers: [Float16]) -> KVTensor {
                KVTensor(
                    bytes: SharedBytes(numbers.withUnsafeBytes { Array($0) }),
                    elementType: .float16,
                    heads: shape.kvHeads,
                    tokens: tokens,
                    headDimension: shape.dimension
                )
            }
            let own = units.filter { $0.layers.lowerBound == layer }
            return KVCacheLayer(
                keys: tensor(numbers[layer][0]),
                values: tensor(numbers[layer][1]),
                profile: LayerProfile(
                    meanSquaredQueries: [Float](repeating: 1, count: shape.kvHeads * shape.dimension),
                    bases: LayerBases(
                        archives: own.map { LayerBases.Archive(unit: $0, basis: basis) },
                        // Keys are turned by an angle of 0, which takes as long as any other.
                        rotaryFrequencies: [Float](repeating: 0, count: shape.dimension / 2)
                    )
                )
            )
        }
        return try KVCache(layers: layers)
    }

    private func basis(_ matrix: [Double]) -> ComponentBasis {
        let count = channels
        var bytes = [UInt8](repeating: 0, count: count * count)
        var scales = [Float](repeating: 0, count: count)
        for component in 0..<count {
            let row = matrix[component * count..<(component + 1) * count]
            let scale = Float(row.reduce(0) { max($0, abs($1)) } / 127)
            scales[component] = scale
            for (channel, entry) in row.enumerated() {
                bytes[component * count + channel] = UInt8(bitPattern: Int8((entry / Double(scale)).rounded()))
            }
        }
        return ComponentBasis(
            matrix: SharedBytes(bytes),
            scales: scales,
            variances: (0..<count).map { Float(deviation($0) * deviation($0)) },
            weights: [Float](repeating: 1, count: count)
        )
    }
}

/// Normal numbers, the same each time.
private struct NormalNumbers {
    private var state: UInt64 = 0x9E37_79B9_7F4A_7C15

    mutating func next() -> Float {
        let radius = (-2 * log(uniform())).squareRoot()
        return Float(radius * cos(2 * .pi * uniform()))
    }

    /// A number above 0 and up to 1.
    private mutating func uniform() -> Double {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return Double((state >> 11) + 1) * 0x1p-53
    }
}

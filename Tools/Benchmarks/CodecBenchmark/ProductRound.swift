import BenchmarkSupport
import COpenBLAS
import CThinkKernels
import Foundation

/// Products of a matrix with a vector, as a decoder's step of one token has them, against a plain read of the matrix
/// and against OpenBLAS on the same numbers in float32; one thread.
struct ProductRound {
    static let shapes = [Shape(rows: 4096, columns: 14336), Shape(rows: 14336, columns: 4096)]
    static let types = [
        (name: "BF16", tag: TCK_WEIGHT_BF16), (name: "F16", tag: TCK_WEIGHT_F16), (name: "F32", tag: TCK_WEIGHT_F32),
        (name: "Q4_1", tag: TCK_WEIGHT_Q4_1), (name: "Q8_0", tag: TCK_WEIGHT_Q8_0),
        (name: "Q4_K", tag: TCK_WEIGHT_Q4_K),
        (name: "Q6_K", tag: TCK_WEIGHT_Q6_K),
    ]

    struct Shape {
        let rows: Int
        let columns: Int

        var count: Int { rows * columns }
    }

    struct Figure {
        let name: String
        /// GB/s of the matrix.
        let multiply: Double
        let read: Double
        /// Time of OpenBLAS for the float32 matrix over ours.
        let speedup: Double

        static let header = "multiply rows                 GB/s    / plain read    plain read    OpenBLAS's time / ours"

        var numbers: [String: Double] {
            [
                "multiplyGBps": multiply, "readGBps": read, "multiplyToRead": multiply / read,
                "openBLASTimeToOurs": speedup,
            ]
        }

        var row: String {
            name.padding(toLength: 24, withPad: " ", startingAt: 0)
                + String(format: "%10.2f%16.2f%14.2f%26.2f", multiply, multiply / read, read, speedup)
        }
    }

    /// The numbers of all types; matrices lie one after another in their bytes.
    private let memory: ProductMemory

    init() { memory = ProductMemory(byteCount: 2 * Self.shapes[0].count * MemoryLayout<Float>.size) }

    func measure(rounds: Int) -> [Figure] {
        openblas_set_num_threads(1)
        return Self.shapes.flatMap { shape in measure(shape, rounds: rounds) }
    }

    /// Everything is done once per round, each time with bytes that the caches no longer have.
    private func measure(_ shape: Shape, rounds: Int) -> [Figure] {
        var reads = Self.types.map { _ in [Double]() }
        var products = reads
        var peers: [Double] = []
        // The first round warms pages and doesn't count.
        for round in 0...rounds {
            var counted: [(Int, Double, Double)] = []
            for (index, type) in Self.types.enumerated() {
                let read = seconds { memory.read(shape, type: type.tag) }
                let product = seconds { memory.multiply(shape, type: type.tag) }
                counted.append((index, read, product))
            }
            let peer = seconds { memory.multiplyWithOpenBLAS(shape) }
            if round == 0 { continue }
            for (index, read, product) in counted {
                reads[index].append(read)
                products[index].append(product)
            }
            peers.append(peer)
        }
        return Self.types.indices.map { index in
            let gigabytes = Double(memory.byteCount(of: shape, type: Self.types[index].tag)) / 1e9
            return Figure(
                name: "\(Self.types[index].name), \(shape.rows) x \(shape.columns)",
                multiply: gigabytes / median(products[index]),
                read: gigabytes / median(reads[index]),
                speedup: median(peers) / median(products[index])
            )
        }
    }
}

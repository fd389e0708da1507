import BenchmarkSupport
import COpenBLAS
import CThinkKernels
import Foundation

/// What archives are coded with, by each instruction set of this machine: symbols decoded, with a table of its own for
/// each call, and products in order against OpenBLAS's, which may add up in any order; one thread.
struct ArchiveKernelRound {
    struct Figure {
        let name: String
        let unit: String
        let rate: Double

        static let header = "archive coding"

        var numbers: [String: Double] { [unit: rate] }

        var row: String {
            name.padding(toLength: 52, withPad: " ", startingAt: 0) + String(format: "%8.3f ", rate) + unit
        }
    }

    /// Random bits, the same each time.
    private struct SeededBits {
        private var state: UInt64 = 0x9E37_79B9_7F4A_7C15

        mutating func next() -> UInt64 {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return state >> 32
        }
    }

    // Sets that differ in attention alone would be measured twice.
    private static let names = ["scalar", "avx2", "avx512", "neon"]
    private static var sets: [tck_kernels] { names.compactMap { name in tck_kernels_named(name)?.pointee } }
    private static let callLengths = [16, 128, 1024]
    /// Decoders that are side by side, as those of an archive's units are.
    private static let decodersAtOnce = 4
    private static let rows = 1024
    /// The inner dimension and the columns.
    private static let dimensions = [64, 128, 384, 1152]

    func measure(rounds: Int) -> [Figure] {
        openblas_set_num_threads(1)
        return Self.callLengths.flatMap { decode(callLength: $0, rounds: rounds) }
            + Self.dimensions.flatMap { multiply(dimension: $0, rounds: rounds) }
    }

    private func name(_ kernels: tck_kernels) -> String { String(cString: kernels.name) }

    /// Each piece of work is done once per round, and once before.
    private func rates(_ works: [(name: String, work: () -> Void)], unit: String, amount: Double, rounds: Int)
        -> [Figure]
    {
        var times = works.map { _ in [Double]() }
        for round in 0...rounds {
            for (index, work) in works.enumerated() {
                let time = seconds { work.work() }
                if round > 0 { times[index].append(time) }
            }
        }
        return works.indices.map {
            Figure(name: works[$0].name, unit: unit, rate: amount / 1e9 / median(times[$0]))
        }
    }

    private func decode(callLength: Int, rounds: Int) -> [Figure] {
        let count = 1 << 21
        var generator = SeededBits()
        // The scales of q = 8...20, of both families.
        let tables = (0..<count / callLength).map { _ in
            UInt32(generator.next() % 2) * UInt32(TCK_SYMBOL_SCALES) + 8 + UInt32(generator.next() % 13)
        }
        let symbols = tables.flatMap { table in
            let lookup = tck_symbol_lookup(table)!
            return (0..<callLength).map { _ in
                Int16(Int8(truncatingIfNeeded: lookup[Int(generator.next() % UInt64(TCK_FREQUENCY_TOTAL))] >> 24))
            }
        }
        let words = UnsafeMutablePointer<UInt16>.allocate(capacity: count)
        defer { words.deallocate() }
        var encoder = tck_start_encoder(words, count)
        symbols.withUnsafeBufferPointer { symbols in
            for (index, table) in tables.enumerated().reversed() {
                tck_best_kernels().pointee.encode_symbols(
                    &encoder,
                    table,
                    symbols.baseAddress! + index * callLength,
                    callLength
                )
            }
        }
        var states = [UInt8](repeating: 0, count: Int(TCK_SYMBOL_STATE_BYTES))
        let start = UnsafeRawPointer(tck_finish_symbols(&encoder, &states)!)
        let wordCount = (UnsafeRawPointer(words + count) - start) / 2
        let decoded = UnsafeMutablePointer<Int16>.allocate(capacity: callLength * Self.decodersAtOnce)
        defer { decoded.deallocate() }
        func works(sideBySide: Int) -> [(name: String, work: () -> Void)] {
            Self.sets.map { kernels in
                (
                    name: "decode \(sideBySide) x \(callLength) symbols a call, \(name(kernels))",
                    work: {
                        let decoders = UnsafeMutableBufferPointer<tck_symbol_decoder>.allocate(capacity: sideBySide)
                        defer { decoders.deallocate() }
                        decoders.initialize(repeating: tck_start_decoder(states, start, wordCount))
                        var calls = decoders.indices.map {
                            tck_symbol_call(
                                decoder: decoders.baseAddress! + $0,
                                table: 0,
                                symbols: decoded + $0 * callLength
                            )
                        }
                        for table in tables {
                            for index in calls.indices { calls[index].table = table }
                            kernels.decode_symbols(calls, calls.count, callLength)
                        }
                        precondition(decoders.indices.allSatisfy { tck_has_ended(decoders.baseAddress! + $0) })
                    }
                )
            }
        }
        return [1, Self.decodersAtOnce].flatMap { sideBySide in
            rates(
                works(sideBySide: sideBySide),
                unit: "G symbols/s",
                amount: Double(count * sideBySide),
                rounds: rounds
            )
        }
    }

    private func multiply(dimension: Int, rounds: Int) -> [Figure] {
        let rows = Self.rows
        let left = (0..<dimension * rows).map { Float($0 % 13) - 6 }
        let right = (0..<dimension * dimension).map { Float($0 % 11) - 5 }
        let outputs = UnsafeMutablePointer<Float>.allocate(capacity: rows * dimension)
        defer { outputs.deallocate() }
        var works = Self.sets.map { kernels in
            (
                name: "multiply in order, \(rows) x \(dimension) x \(dimension), \(name(kernels))",
                work: {
                    kernels.multiply_in_order(
                        left,
                        1,
                        rows,
                        rows,
                        right,
                        dimension,
                        dimension,
                        dimension,
                        outputs,
                        dimension
                    )
                }
            )
        }
        works.append(
            (
                name: "multiply in any order, \(dimension), OpenBLAS",
                work: {
                    let (rows, columns) = (blasint(rows), blasint(dimension))
                    cblas_sgemm(
                        CblasRowMajor,
                        CblasTrans,
                        CblasNoTrans,
                        rows,
                        columns,
                        columns,
                        1,
                        left,
                        rows,
                        right,
                        columns,
                        0,
                        outputs,
                        columns
                    )
                }
            )
        )
        let amount = Double(rows * dimension * dimension)
        return rates(works, unit: "G multiplications/s", amount: amount, rounds: rounds)
    }
}

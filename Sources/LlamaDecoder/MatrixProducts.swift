internal import ByteStorage
internal import COpenBLAS
internal import CThinkKernels
internal import ComputeRuntime
internal import Foundation

/// Products of activations with weights, on all workers.
///
/// Weights stay in their own type: for one row a kernel reads them as they are, for more a panel of rows at a time is
/// converted for a float32 matrix product. Callers hold `SingleThreadedProducts`, since products are spread over threads
/// here, and since results would depend on how OpenBLAS spreads them.
struct MatrixProducts: Sendable {
    /// Up to so many rows, as many products with a vector are faster than one with a matrix, whose weights must be
    /// converted first.
    private static let vectorRows = 3
    /// Numbers of a panel: what fits in the second-level cache beside the activations.
    private static let panelNumbers = 1 << 17
    /// Weight rows that a thread begins with are a multiple of this, so that threads don't write to the same cache line.
    private static let rowStep = 16
    /// Multiplications that are done sooner than other threads are told of them.
    private static let smallWork = 1 << 15

    let workers: WorkerThreads

    /// Writes `input W^T + b` for the first `count` rows.
    ///
    /// - Parameters:
    ///   - input: `[count or more, columns of the weights]`, contiguous.
    ///   - output: `[count or more, rows of the weights]`.
    /// - Throws: `MemoryError` if there is no memory to work in.
    func multiply(
        _ input: UnsafeMutablePointer<Float>,
        count: Int,
        by linear: Linear,
        into output: UnsafeMutablePointer<Float>
    ) throws(MemoryError) {
        let weights = linear.weights
        if count <= Self.vectorRows {
            unsafe multiplyVectors(input, count: count, by: linear, into: output)
            return
        }
        let panelRows = min(
            max(Self.panelNumbers / weights.columns, Self.rowStep),
            weights.rows
        )
        try SingleThreadedProducts.reserve(callers: workers.threadCount)
        unsafe try workers.run(scratchBytes: panelRows * weights.columns * MemoryLayout<Float>.size) { thread, memory in
            let panel = unsafe memory.assumingMemoryBound(to: Float.self)
            let share = rows(of: weights.rows, thread: thread)
            for start in stride(from: share.lowerBound, to: share.upperBound, by: panelRows) {
                let rows = min(panelRows, share.upperBound - start)
                unsafe weights.widen(from: start, count: rows, into: panel)
                unsafe cblas_sgemm(
                    CblasRowMajor,
                    CblasNoTrans,
                    CblasTrans,
                    blasint(count),
                    blasint(rows),
                    blasint(weights.columns),
                    1,
                    input,
                    blasint(weights.columns),
                    panel,
                    blasint(weights.columns),
                    0,
                    output + start,
                    blasint(weights.rows)
                )
            }
            if let bias = linear.bias { unsafe add(bias, to: output, count: count, rows: share) }
        }
    }

    private func multiplyVectors(
        _ input: UnsafeMutablePointer<Float>,
        count: Int,
        by linear: Linear,
        into output: UnsafeMutablePointer<Float>
    ) {
        let weights = linear.weights
        let kernels = unsafe Kernels.best
        func multiply(rows: Range<Int>) {
            unsafe weights.forEachRun(in: rows) { run, matrix in
                for vector in 0..<count {
                    unsafe kernels.multiply_rows(
                        matrix,
                        run.count,
                        weights.columns,
                        input + vector * weights.columns,
                        output + vector * weights.rows + run.lowerBound
                    )
                }
            }
            if let bias = linear.bias { unsafe add(bias, to: output, count: count, rows: rows) }
        }
        if count * weights.rows * weights.columns <= Self.smallWork {
            multiply(rows: 0..<weights.rows)
        } else {
            workers.run { multiply(rows: rows(of: weights.rows, thread: $0)) }
        }
    }

    private func add(_ bias: [Float], to output: UnsafeMutablePointer<Float>, count: Int, rows: Range<Int>) {
        for row in 0..<count {
            let numbers = unsafe output + row * bias.count
            for index in rows { unsafe numbers[index] += bias[index] }
        }
    }

    /// A thread's share of so many rows.
    private func rows(of count: Int, thread: Int) -> Range<Int> {
        func bound(_ thread: Int) -> Int {
            thread == workers.threadCount ? count : count * thread / workers.threadCount / Self.rowStep * Self.rowStep
        }
        return bound(thread)..<bound(thread + 1)
    }
}

extension WorkerThreads {
    /// Runs `body` for parts of 0..<count, one part on every thread.
    func forEachShare(of count: Int, _ body: (Range<Int>) -> Void) {
        if count == 1 { return body(0..<1) }
        run { thread in
            let share = count * thread / threadCount..<count * (thread + 1) / threadCount
            if !share.isEmpty { body(share) }
        }
    }
}

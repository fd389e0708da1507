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
    /// converted first: blocks take longer for that than for a product.
    private static func vectorRows(_ type: WeightType) -> Int { type.blockLength > 1 ? 6 : 3 }
    /// Numbers of a panel: what fits in the second-level cache beside the activations.
    private static let panelNumbers = 1 << 17
    /// Weight rows that a thread begins with are a multiple of this, so that threads don't write to the same cache line.
    private static let rowStep = 16
    /// Multiplications that are done sooner than other threads are told of them.
    private static let smallWork = 1 << 15

    let workers: WorkerThreads

    /// A linear map, and where its output is written: `[count or more, rows of the weights]`.
    @safe
    struct Target {
        let linear: Linear
        let output: UnsafeMutablePointer<Float>
        var weights: WeightMatrix { linear.weights }

        init(_ linear: Linear, into output: UnsafeMutablePointer<Float>) {
            self.linear = linear
            unsafe self.output = unsafe output
        }
    }

    /// Writes `input W^T + b` for the first `count` rows, of one linear map or of several that take the same input:
    /// threads are called once for all of them.
    ///
    /// - Parameter input: `[count or more, columns of the weights]`, contiguous.
    /// - Throws: `MemoryError` if there is no memory to work in.
    func multiply(_ input: UnsafeMutablePointer<Float>, count: Int, _ targets: Target...) throws(MemoryError) {
        let columns = targets[0].weights.columns
        precondition(targets.allSatisfy { $0.weights.columns == columns }, "the input is the same for all")
        let mostPanelRows = targets.filter { !usesVectors($0, count: count) }.map(\.weights.rows).max()
        guard let mostPanelRows else {
            let rows = targets.reduce(0) { $0 + $1.weights.rows }
            let isSmall = count * rows * columns <= Self.smallWork
            func multiply(thread: Int?) {
                for target in targets {
                    let share = thread.map { self.rows(of: target.weights.rows, thread: $0) }
                    unsafe multiplyVectors(input, count: count, by: target, rows: share ?? 0..<target.weights.rows)
                }
            }
            if isSmall { multiply(thread: nil) } else { workers.run { multiply(thread: $0) } }
            return
        }
        let panelRows = min(max(Self.panelNumbers / columns, Self.rowStep), mostPanelRows)
        try SingleThreadedProducts.reserve(callers: workers.threadCount)
        unsafe try workers.run(scratchBytes: panelRows * columns * MemoryLayout<Float>.size) { thread, memory in
            let panel = unsafe memory.assumingMemoryBound(to: Float.self)
            for target in targets {
                let share = rows(of: target.weights.rows, thread: thread)
                if usesVectors(target, count: count) {
                    unsafe multiplyVectors(input, count: count, by: target, rows: share)
                } else {
                    unsafe multiplyPanels(
                        input,
                        count: count,
                        by: target,
                        rows: share,
                        panel: panel,
                        panelRows: panelRows
                    )
                }
            }
        }
    }

    private func usesVectors(_ target: Target, count: Int) -> Bool { count <= Self.vectorRows(target.weights.type) }

    private func multiplyPanels(
        _ input: UnsafeMutablePointer<Float>,
        count: Int,
        by target: Target,
        rows share: Range<Int>,
        panel: UnsafeMutablePointer<Float>,
        panelRows: Int
    ) {
        let weights = target.weights
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
                target.output + start,
                blasint(weights.rows)
            )
        }
        if let bias = target.linear.bias { unsafe add(bias, to: target.output, count: count, rows: share) }
    }

    private func multiplyVectors(
        _ input: UnsafeMutablePointer<Float>,
        count: Int,
        by target: Target,
        rows: Range<Int>
    ) {
        let weights = target.weights
        let kernels = unsafe Kernels.best
        unsafe weights.forEachRun(in: rows) { run, matrix in
            for vector in 0..<count {
                unsafe kernels.multiply_rows(
                    matrix,
                    run.count,
                    weights.columns,
                    input + vector * weights.columns,
                    target.output + vector * weights.rows + run.lowerBound
                )
            }
        }
        if let bias = target.linear.bias { unsafe add(bias, to: target.output, count: count, rows: rows) }
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

internal import ByteStorage
internal import CThinkKernels
internal import CachePacking
internal import ComputeRuntime

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// Queries of one KV head, and what attention has given for them so far.
///
/// Rows are taken by the kernels in groups of four; memory has room for whole groups. All of it is the creator's.
@safe
struct QueryRows {
    /// Memory to be divided, from front to back.
    @safe
    struct Arena {
        private var next: UnsafeMutableRawPointer

        init(_ memory: UnsafeMutableRawPointer) { unsafe next = memory }

        mutating func take<Element>(_ type: Element.Type, count: Int) -> UnsafeMutablePointer<Element> {
            let taken = unsafe next.bindMemory(to: type, capacity: count)
            unsafe next += Self.byteCount(type, count: count)
            return unsafe taken
        }

        static func byteCount<Element>(_ type: Element.Type, count: Int) -> Int {
            let bytes = count * MemoryLayout<Element>.stride
            return (bytes + AlignedBuffer.alignment - 1) / AlignedBuffer.alignment * AlignedBuffer.alignment
        }
    }

    static let rowsPerGroup = Int(TCK_QUERY_ROWS)

    private(set) var count = 0
    let keyDimension: Int
    let valueDimension: Int
    /// Numbers from one row to the next of `queries`, and of `outputs`.
    let queryStride: Int
    let outputStride: Int
    let queries: UnsafeMutablePointer<Float>
    private let keptQueries: UnsafeMutablePointer<Float>
    private let offsets: UnsafeMutablePointer<Float>
    let visible: UnsafeMutablePointer<tck_token_range>
    let maxima: UnsafeMutablePointer<Float>
    let sums: UnsafeMutablePointer<Float>
    let outputs: UnsafeMutablePointer<Float>
    let groups: UnsafeMutablePointer<tck_queries>
    var groupCount: Int { (count + Self.rowsPerGroup - 1) / Self.rowsPerGroup }

    /// Rows of whole groups.
    static func paddedRows(_ capacity: Int) -> Int {
        (capacity + rowsPerGroup - 1) / rowsPerGroup * rowsPerGroup
    }

    /// Bytes that `capacity` rows take.
    static func byteCount(capacity: Int, keyDimension: Int, valueDimension: Int) -> Int {
        let rows = paddedRows(capacity)
        return unsafe Arena.byteCount(Float.self, count: rows * tck_padded_dimension(keyDimension))
            + Arena.byteCount(Float.self, count: rows * tck_padded_dimension(valueDimension))
            + Arena.byteCount(Float.self, count: rows * tck_widest_kept_dimension(keyDimension))
            + 3 * Arena.byteCount(Float.self, count: rows)
            + Arena.byteCount(tck_token_range.self, count: rows)
            + Arena.byteCount(tck_queries.self, count: rows / rowsPerGroup)
    }

    /// Room for `capacity` rows.
    init(capacity: Int, keyDimension: Int, valueDimension: Int, arena: inout Arena) {
        let rows = Self.paddedRows(capacity)
        self.keyDimension = keyDimension
        self.valueDimension = valueDimension
        queryStride = tck_padded_dimension(keyDimension)
        outputStride = tck_padded_dimension(valueDimension)
        unsafe queries = arena.take(Float.self, count: rows * queryStride)
        unsafe outputs = arena.take(Float.self, count: rows * outputStride)
        unsafe keptQueries = arena.take(Float.self, count: rows * tck_widest_kept_dimension(keyDimension))
        unsafe offsets = arena.take(Float.self, count: rows)
        unsafe maxima = arena.take(Float.self, count: rows)
        unsafe sums = arena.take(Float.self, count: rows)
        unsafe visible = arena.take(tck_token_range.self, count: rows)
        unsafe groups = arena.take(tck_queries.self, count: rows / Self.rowsPerGroup)
    }

    /// Begins with `count` rows whose `queries` the caller writes next; nothing has been seen.
    mutating func begin(count: Int, softCap: Float, isPrecise: Bool, workspace: UnsafeMutableRawPointer) {
        self.count = count
        let rows = Self.paddedRows(count)
        unsafe queries.update(repeating: 0, count: rows * queryStride)
        unsafe outputs.update(repeating: 0, count: rows * outputStride)
        unsafe offsets.update(repeating: 0, count: rows)
        unsafe maxima.update(repeating: -.infinity, count: rows)
        unsafe sums.update(repeating: 0, count: rows)
        unsafe visible.update(repeating: tck_token_range(first: 0, end: 0), count: rows)
        for group in 0..<groupCount {
            let row = group * Self.rowsPerGroup
            unsafe groups[group] = tck_queries(
                count: min(count - row, Self.rowsPerGroup),
                rows: queries + row * queryStride,
                kept_rows: nil,
                offsets: offsets + row,
                visible: visible + row,
                soft_cap: softCap,
                is_precise: isPrecise,
                maxima: maxima + row,
                sums: sums + row,
                outputs: outputs + row * outputStride,
                workspace: workspace
            )
        }
    }

    /// Orders the queries as a head's key runs are, and takes what means of its channels add to every score.
    ///
    /// - Parameters:
    ///   - means: of every channel, zero for those whose keys are coded as they are; nil if all are zero.
    func gatherKept(runs: [HeadPlan.KeyRun], format: tck_block_format, means: [Float]?) {
        let kept = unsafe withUnsafePointer(to: format) { unsafe tck_kept_dimension($0) }
        unsafe keptQueries.update(repeating: 0, count: Self.paddedRows(count) * kept)
        for row in 0..<count {
            let query = unsafe queries + row * queryStride
            var to = unsafe keptQueries + row * kept
            for run in runs {
                for (index, channel) in run.channels.enumerated() { unsafe to[index] = query[Int(channel)] }
                unsafe to += tck_padded_dimension(run.channels.count)
            }
            if let means {
                var sum: Float = 0
                for channel in 0..<keyDimension { unsafe sum += query[channel] * means[channel] }
                unsafe offsets[row] = sum
            }
        }
        pointGroups(kept: kept)
    }

    private func pointGroups(kept: Int) {
        for group in 0..<groupCount {
            unsafe groups[group].kept_rows = UnsafePointer(keptQueries + group * Self.rowsPerGroup * kept)
        }
    }

    /// Turns the queries into components, in the order of a head's key runs, and takes what the means of keys add to every
    /// score: Formats/calibrated.md, "Attention".
    func projectKept(by transform: ComponentTransform, format: tck_block_format) {
        let plan = transform.plan
        let kept = unsafe withUnsafePointer(to: format) { unsafe tck_kept_dimension($0) }
        unsafe keptQueries.update(repeating: 0, count: Self.paddedRows(count) * kept)
        let (stride, components) = (queryStride, plan.componentCount)
        unsafe withUnsafeTemporaryAllocation(
            of: Float.self,
            capacity: Self.rowsPerGroup * (stride + components)
        ) { floats in
            guard let weighted = floats.baseAddress else { return }
            unsafe floats.initialize(repeating: 0)
            let projected = unsafe weighted + Self.rowsPerGroup * stride
            for first in Swift.stride(from: 0, to: count, by: Self.rowsPerGroup) {
                let rows = min(count - first, Self.rowsPerGroup)
                for row in 0..<rows {
                    let query = unsafe queries + (first + row) * stride
                    var sum: Float = 0
                    for channel in 0..<keyDimension {
                        unsafe weighted[row * stride + channel] = query[channel] / plan.weights[channel]
                        unsafe sum += query[channel] * plan.means[channel]
                    }
                    unsafe offsets[first + row] = sum
                }
                unsafe Kernels.best.project_rows(
                    transform.paddedMatrix,
                    components,
                    transform.paddedChannels,
                    weighted,
                    stride,
                    rows,
                    projected,
                    components
                )
                for row in 0..<rows {
                    var to = unsafe keptQueries + (first + row) * kept
                    var component = 0
                    for run in plan.runs {
                        for index in 0..<run.count {
                            unsafe to[index] = projected[row * components + component] * plan.scales[component]
                            component += 1
                        }
                        unsafe to += tck_padded_dimension(run.count)
                    }
                }
            }
        }
        pointGroups(kept: kept)
    }

    /// Turns components of values that blocks have given so far into channels, and adds what means give.
    func restoreValues(by transform: ComponentTransform) {
        let plan = transform.plan
        let (components, keptStride) = (plan.componentCount, tck_padded_dimension(plan.componentCount))
        unsafe withUnsafeTemporaryAllocation(
            of: Float.self,
            capacity: Self.rowsPerGroup * components
        ) { floats in
            guard let scaled = floats.baseAddress else { return }
            for first in stride(from: 0, to: count, by: Self.rowsPerGroup) {
                let rows = min(count - first, Self.rowsPerGroup)
                let outputs = unsafe outputs + first * outputStride
                for row in 0..<rows {
                    for (component, scale) in plan.scales.enumerated() {
                        unsafe scaled[row * components + component] = outputs[row * keptStride + component] * scale
                    }
                }
                unsafe Kernels.best.expand_rows(
                    transform.paddedMatrix,
                    components,
                    transform.paddedChannels,
                    scaled,
                    components,
                    rows,
                    outputs,
                    outputStride
                )
                for row in 0..<rows {
                    let sum = unsafe sums[first + row]
                    let output = unsafe outputs + row * outputStride
                    for channel in 0..<valueDimension {
                        unsafe output[channel] = output[channel] / plan.weights[channel] + sum * plan.means[channel]
                    }
                }
            }
        }
    }

    /// Turns what blocks have given so far into outputs of all value channels: rotates back, adds what the means of
    /// values that were subtracted give, and expands the rows where channels were pruned.
    ///
    /// - Parameters:
    ///   - keptChannels: those that blocks have; nil for all.
    ///   - keptMeans: of these channels, one after another; empty if none were subtracted.
    ///   - prunedMeans: what stands in for pruned channels, by channel of all; empty for zeros.
    func restoreValues(isRotated: Bool, keptChannels: [UInt16]?, keptMeans: [Float], prunedMeans: [Float]) {
        let keptDimension = keptChannels?.count ?? valueDimension
        let keptStride = tck_padded_dimension(keptDimension)
        // From the last row on: an expanded row lies over its own kept channels and those of rows after it.
        for row in (0..<count).reversed() {
            let (four, member) = row.quotientAndRemainder(dividingBy: Self.rowsPerGroup)
            let kept = unsafe outputs + four * Self.rowsPerGroup * outputStride + member * keptStride
            if isRotated { unsafe Kernels.best.rotate_rows(kept, 1, keptDimension) }
            let sum = unsafe sums[row]
            for (channel, mean) in keptMeans.enumerated() { unsafe kept[channel] += sum * mean }
            guard let keptChannels else { continue }
            unsafe expand(kept, channels: keptChannels, sum: sum, means: prunedMeans, to: outputs + row * outputStride)
        }
    }

    /// Puts kept channels where they belong, `sum` times their means in the place of pruned ones.
    ///
    /// - Parameter output: may be where `kept` is, or begin behind it.
    private func expand(
        _ kept: UnsafePointer<Float>,
        channels: [UInt16],
        sum: Float,
        means: [Float],
        to output: UnsafeMutablePointer<Float>
    ) {
        unsafe (output + valueDimension).update(repeating: 0, count: outputStride - valueDimension)
        var index = channels.count
        for channel in (0..<valueDimension).reversed() {
            if index > 0 && Int(channels[index - 1]) == channel {
                index -= 1
                unsafe output[channel] = kept[index]
            } else {
                unsafe output[channel] = means.isEmpty ? 0 : sum * means[channel]
            }
        }
    }

    /// Whether a row of four that the kernels take together sees a token of the tile.
    func seesAnything(group: Int) -> Bool {
        let rows = group * Self.rowsPerGroup..<min((group + 1) * Self.rowsPerGroup, count)
        return rows.contains { row in unsafe visible[row].first < visible[row].end }
    }

    /// Adds what the same queries have been given over other tokens.
    func merge(_ other: QueryRows) {
        for row in 0..<count {
            let maximum = unsafe max(maxima[row], other.maxima[row])
            guard maximum > -.infinity else { continue }
            let factor = unsafe exp2(maxima[row] - maximum)
            let otherFactor = unsafe exp2(other.maxima[row] - maximum)
            unsafe maxima[row] = maximum
            unsafe sums[row] = sums[row] * factor + other.sums[row] * otherFactor
            let (to, from) = unsafe (outputs + row * outputStride, other.outputs + row * outputStride)
            for channel in 0..<valueDimension {
                unsafe to[channel] = to[channel] * factor + from[channel] * otherFactor
            }
        }
    }

    /// Lets a score without a value take its part of a row's softmax; each row has one at the most.
    func addSink(row: Int, logit: Float) {
        guard logit > -.infinity else { return }
        let maximum = unsafe max(maxima[row], logit)
        let factor = unsafe exp2(maxima[row] - maximum)
        unsafe maxima[row] = maximum
        unsafe sums[row] = sums[row] * factor + exp2(logit - maximum)
        let output = unsafe outputs + row * outputStride
        for channel in 0..<valueDimension { unsafe output[channel] *= factor }
    }

    /// Writes the attention of a row.
    func finish(row: Int, into output: UnsafeMutablePointer<Float>) {
        // A query that has seen no token has nothing to divide.
        let factor: Float = unsafe sums[row] == 0 ? 0 : 1 / sums[row]
        let from = unsafe outputs + row * outputStride
        for channel in 0..<valueDimension { unsafe output[channel] = from[channel] * factor }
    }
}

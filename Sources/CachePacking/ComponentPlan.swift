public import KVCacheModel

/// How keys or values of a KV head are turned into the components of a basis, and how these are coded:
/// Formats/calibrated.md.
///
/// A vector `x` of channels, less the means, has a component for each row of the matrix; it is restored as
///
///     x[c] = means[c] + sum over components k of y[k] * matrix[k][c] * scales[k] / weights[c]
///
/// A value of this type keeps the format's rules.
public struct ComponentPlan: Sendable, Hashable {
    /// Components of one coding, which follow each other.
    public struct Run: Sendable, Hashable {
        public let coding: Coding
        public let count: Int

        public init(_ coding: Coding, count: Int) {
            self.coding = coding
            self.count = count
        }
    }

    /// Runs that a plan may have.
    public static let runCounts = 1...HeadPlan.maximumKeyRuns

    /// The components that blocks have, in the order of the matrix's rows.
    public let runs: [Run]
    /// `[componentCount][channelCount]`.
    public let matrix: [Int8]
    /// What a component's row of the matrix is multiplied by: finite and positive.
    public let scales: [Float]
    /// What channels are multiplied by before they are turned: finite and positive.
    public let weights: [Float]
    /// The mean of every channel, which is subtracted first.
    public let means: [Float]

    /// Channels of a vector.
    public var channelCount: Int { weights.count }
    /// Components of a vector, at most as many as channels.
    public var componentCount: Int { scales.count }

    /// - Parameters:
    ///   - runs: of as many components as there are scales.
    ///   - matrix: a number for each component and channel.
    ///   - weights: one for each channel, as there are means.
    /// - Throws: `PlanError` for the first rule of the format that is broken.
    public init(
        runs: [Run],
        matrix: [Int8],
        scales: [Float],
        weights: [Float],
        means: [Float]
    ) throws(PlanError) {
        let channels = weights.count
        var outline = try Outline(runCount: runs.count, channelCount: channels)
        for run in runs {
            try outline.add(run.coding)
            try outline.set(count: run.count)
        }
        precondition(
            scales.count == outline.componentCount && matrix.count == scales.count * channels
                && means.count == channels,
            "a plan of components has a scale and a row for each of them, and a weight and a mean for each channel"
        )
        self = try outline.plan(means: means, weights: weights, scales: scales, matrix: matrix)
    }

    private init(
        checkedRuns: [Run],
        matrix: [Int8],
        scales: [Float],
        weights: [Float],
        means: [Float]
    ) {
        runs = checkedRuns
        self.matrix = matrix
        self.scales = scales
        self.weights = weights
        self.means = means
    }

    /// A plan that is put together from its fields, which come in the order that a file has them; the format's rules stand
    /// here and nowhere else.
    package struct Outline {
        private let runCount: Int
        private let channelCount: Int
        private var codings: [Coding] = []
        private var counts: [Int] = []
        /// Components of the runs so far.
        package private(set) var componentCount = 0

        /// - Throws: `PlanError` if there can't be so many runs.
        package init(runCount: Int, channelCount: Int) throws(PlanError) {
            guard runCounts.contains(runCount) else {
                throw PlanError(.keyRunCount, "\(runCount) runs of components, must be \(runCounts)")
            }
            self.runCount = runCount
            self.channelCount = channelCount
        }

        /// Adds a run; `set(count:)` comes next.
        ///
        /// - Throws: `PlanError` if another run has this coding, or it isn't one for components.
        package mutating func add(_ coding: Coding) throws(PlanError) {
            precondition(codings.count == counts.count && codings.count < runCount, "a run is added after the others")
            let run = codings.count
            guard !coding.isFullPrecision else {
                throw PlanError(.runCoding(run: run, byte: 0), "components are not in full precision")
            }
            guard coding.rotation == .none else {
                throw PlanError(.runCoding(run: run, byte: 3), "components are not rotated")
            }
            guard !codings.contains(coding) else {
                throw PlanError(.runCoding(run: run, byte: 0), "two runs have the same coding")
            }
            codings.append(coding)
        }

        /// Says how many components the last run has.
        ///
        /// - Throws: `PlanError` if there are none, or no more of them than channels.
        package mutating func set(count: Int) throws(PlanError) {
            precondition(codings.count == counts.count + 1, "a run's count follows its coding")
            guard count >= 1, count <= channelCount - componentCount else {
                throw PlanError(
                    .runCount(run: counts.count),
                    "a run of \(count) components after \(componentCount), of \(channelCount) channels"
                )
            }
            counts.append(count)
            componentCount += count
        }

        /// The plan. Of each list those that are there; the first that isn't is wrong.
        ///
        /// - Throws: `PlanError` for the first number that is wrong.
        package func plan(
            means: [Float],
            weights: [Float],
            scales: [Float],
            matrix: [Int8]
        ) throws(PlanError) -> ComponentPlan {
            precondition(counts.count == runCount, "numbers come after the runs")
            for (index, mean) in means.enumerated() {
                guard Coding.isQuantizable(mean) else {
                    throw PlanError(
                        .mean(index),
                        "a mean is \(mean), must be at most \(Coding.maximumMagnitude) in magnitude"
                    )
                }
            }
            guard means.count == channelCount else {
                throw PlanError(.mean(means.count), "\(means.count) means of \(channelCount) are there")
            }
            for (index, weight) in weights.enumerated() {
                guard weight.isFinite, weight > 0 else {
                    throw PlanError(.weight(index), "a weight is \(weight), must be finite and positive")
                }
            }
            guard weights.count == channelCount else {
                throw PlanError(.weight(weights.count), "\(weights.count) weights of \(channelCount) are there")
            }
            for (index, scale) in scales.enumerated() {
                guard scale.isFinite, scale > 0 else {
                    throw PlanError(.scale(index), "a component's scale is \(scale), must be finite and positive")
                }
            }
            guard scales.count == componentCount else {
                throw PlanError(.scale(scales.count), "\(scales.count) scales of \(componentCount) are there")
            }
            guard matrix.count == componentCount * channelCount else {
                throw PlanError(
                    .matrix(matrix.count),
                    "\(matrix.count) numbers of a matrix of \(componentCount) x \(channelCount) are there"
                )
            }
            return ComponentPlan(
                checkedRuns: zip(codings, counts).map { Run($0, count: $1) },
                matrix: matrix,
                scales: scales,
                weights: weights,
                means: means
            )
        }
    }

    public func hash(into hasher: inout Hasher) {
        hasher.combine(runs)
        hasher.combine(scales)
    }
}

/// How keys and values of a KV head are coded as components.
public struct HeadComponents: Sendable, Hashable {
    public let keys: ComponentPlan
    /// Nil in layers without values.
    public let values: ComponentPlan?

    public init(keys: ComponentPlan, values: ComponentPlan?) {
        self.keys = keys
        self.values = values
    }

    /// Those of keys or of values.
    public subscript(part: CachePart) -> ComponentPlan? {
        switch part {
        case .keys: keys
        case .values: values
        }
    }
}

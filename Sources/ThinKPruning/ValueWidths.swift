internal import CachePacking
internal import KVCacheCodecs
internal import KVCacheModel

/// Gives the values of every KV head of a cache a width, by what their errors cost the model: Formats/think.md, "Widths
/// of values".
struct ValueWidths {
    /// Mean squared errors of values of unit variance that are rotated and then coded in so many bits, with compact
    /// scales and fitted ranges: measured on normal numbers, which rotated ones resemble.
    static let errors: [(width: Int, error: Double)] = [
        (1, 0.373), (2, 0.115), (3, 0.0296), (4, 0.00758), (5, 0.00199),
    ]

    /// A head's values.
    private struct Head {
        let layer: Int
        let head: Int
        let dimension: Int
        /// What a mean squared error of one, relative to the variances, costs.
        let weight: Double
    }

    private let heads: [Head]
    /// Bytes of a block of all heads.
    private let budget: Int
    private let blockLength: Int

    /// - Parameters:
    ///   - budget: bits per value that may be stored, scales included.
    init(_ profile: [LayerProfile], geometry: CacheGeometry, budget: BitBudget, blockLength: Int) {
        var heads: [Head] = []
        for (index, layer) in geometry.layers.enumerated() where layer.valueDimension > 0 {
            for head in 0..<layer.kvHeads {
                heads.append(
                    Head(
                        layer: index,
                        head: head,
                        dimension: layer.valueDimension,
                        weight: profile[index].sensitivity?.weightOfRotatedValues(head: head, of: layer) ?? 0
                    )
                )
            }
        }
        self.heads = heads
        self.blockLength = blockLength
        self.budget = budget.byteCount(numbers: heads.reduce(0) { $0 + $1.dimension } * blockLength)
    }

    /// Bytes of a head's values in a block.
    static func byteCount(dimension: Int, width: Int, blockLength: Int) -> Int {
        let sixteens = (dimension + 15) / 16
        let groups = (dimension + 63) / 64
        return blockLength * (sixteens * 2 * width + 2 * groups)
    }

    /// The widest width whose values take no more than a budget; nil if even the narrowest take more.
    static func widest(dimension: Int, budget: BitBudget, blockLength: Int) -> Int? {
        let budget = budget.byteCount(numbers: dimension * blockLength)
        return errors.map(\.width).last {
            byteCount(dimension: dimension, width: $0, blockLength: blockLength) <= budget
        }
    }

    /// The smallest budget that each width keeps to, ascending.
    static func budgets(dimension: Int, blockLength: Int) -> [BitBudget] {
        guard dimension > 0 else { return [] }
        return errors.map { width, _ in
            BitBudget(
                bytes: byteCount(dimension: dimension, width: width, blockLength: blockLength),
                numbers: dimension * blockLength
            )
        }
    }

    /// The smallest budget that the narrowest width keeps to in all heads together.
    var leastBudget: BitBudget {
        BitBudget(
            bytes: heads.reduce(0) { $0 + bytes($1, place: 0) },
            numbers: heads.reduce(0) { $0 + $1.dimension } * blockLength
        )
    }

    private func bytes(_ head: Head, place: Int) -> Int {
        Self.byteCount(dimension: head.dimension, width: Self.errors[place].width, blockLength: blockLength)
    }

    /// The widths of least loss within the budget, `[layer][head]`; nil if even the narrowest take too much.
    ///
    /// Every head begins with the narrowest width. Then the next width that saves most per byte is given, of equal ones
    /// that of the first head, and so on; where one doesn't fit, its head stays as it is. As errors fall ever less with
    /// each bit, no other choice of so many bytes loses less.
    func allocated(layerCount: Int) -> [[Int]]? {
        var left = heads.reduce(budget) { $0 - bytes($1, place: 0) }
        guard left >= 0 else { return nil }
        var steps: [(saving: Double, head: Int, place: Int, bytes: Int)] = []
        for (index, head) in heads.enumerated() {
            for place in 1..<Self.errors.count {
                let more = bytes(head, place: place) - bytes(head, place: place - 1)
                let saved = head.weight * (Self.errors[place - 1].error - Self.errors[place].error)
                steps.append((saved / Double(more), index, place, more))
            }
        }
        steps.sort { (-$0.saving, $0.head, $0.place) < (-$1.saving, $1.head, $1.place) }
        var places = [Int](repeating: 0, count: heads.count)
        for step in steps where step.bytes <= left && places[step.head] == step.place - 1 {
            left -= step.bytes
            places[step.head] = step.place
        }
        var widths = [[Int]](repeating: [], count: layerCount)
        for (head, place) in zip(heads, places) { widths[head.layer].append(Self.errors[place].width) }
        return widths
    }
}

extension LayerSensitivity {
    /// What a mean squared error of one, relative to the variances, costs in a KV head's values once they are rotated:
    /// the rotation spreads a block's errors evenly over its channels.
    fileprivate func weightOfRotatedValues(head: Int, of geometry: LayerGeometry) -> Double {
        let dimension = geometry.valueDimension
        let size = dimension & -dimension
        var weight = 0.0
        for start in stride(from: head * dimension, to: (head + 1) * dimension, by: size) {
            let block = start..<start + size
            let variance = block.reduce(0) { $0 + Double(valueVariances[$1]) } / Double(size)
            weight += variance * block.reduce(0) { $0 + Double(values[$1]) }
        }
        return weight
    }
}

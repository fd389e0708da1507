internal import ByteStorage
public import CachePacking
internal import ComputeRuntime
public import KVCacheCodecs
internal import KVCacheModel

/// The calibrated basis in place: keys and values are turned into components in which errors cost the same, by the model's
/// profile, and each component gets bits by what it costs the whole cache.
///
/// Beyond the papers; Formats/calibrated.md says what it decides.
public struct CalibratedCodec: CodecStage {
    /// First tokens that are kept in full precision.
    public static let defaultSinks = 4
    /// The newest rows that are kept in full precision.
    public static let defaultResidual = 128
    /// Rows of a block, whose numbers of a component share a scale.
    public static let groupLength = 64
    /// Widths that components may get, from wide to narrow; those that get none are dropped.
    public static let widths = [4, 3, 2, 1]

    public static let registration = CodecRegistration(
        number: 12,
        name: "calibrated",
        role: .channelSelection,
        parameterNames: ["bits", "residual", "sinks"],
        example: "calibrated(bits=1.5)",
        help: "codes keys and values in the bases of the model's profile, with bits per value where errors cost most; "
            + "residual=, sinks=4"
    ) { (parameters) throws(RecipeError) in
        try CalibratedCodec(parameters)
    }

    /// Bits per value, scales included: a budget that all layers, heads, keys and values share.
    public let budget: BitBudget
    /// The newest rows of each layer that are kept in full precision.
    public let residual: Int
    public let sinks: Int
    private let codings: [Coding]
    /// Components of each layer's KV heads, once they are shared out: their numbers and widths.
    private var choices: [[HeadChoice]]?

    /// What is decided of a KV head.
    private struct HeadChoice: Sendable {
        let keys: UnitChoice
        let values: UnitChoice?
    }

    /// What is decided of a KV head's keys or values: the basis's components that are stored, run by run.
    private struct UnitChoice: Sendable {
        let runs: [ComponentPlan.Run]
        let components: [Int]
    }

    /// - Throws: `RecipeError` if the budget is out of range.
    public init(budget: BitBudget) throws(RecipeError) {
        try self.init(
            StageParameters(
                stage: Self.registration.name,
                text: "bits=\(budget.text)",
                allowed: Self.registration.parameterNames
            )
        )
    }

    init(_ parameters: StageParameters) throws(RecipeError) {
        let name = Self.registration.name
        guard let text = parameters["bits"] else {
            throw RecipeError("\(name) needs a budget of bits per value", suggestion: Self.registration.example)
        }
        budget = try BitBudget("bits", text, of: name, example: "1.5")
        residual = try parameters.integer("residual", in: BlockShape.residualWindows) ?? Self.defaultResidual
        sinks = try parameters.integer("sinks", in: LayerPlan.sinkCounts) ?? Self.defaultSinks
        var codings: [Coding] = []
        do {
            for width in Self.widths { codings.append(try Coding(width: width, scales: .compact, ranges: .fitted)) }
        } catch {
            throw RecipeError("\(name): \(error)")
        }
        self.codings = codings
    }

    public var codec: CodecRegistration { Self.registration }

    public var parameters: [StageParameter] {
        var result = [StageParameter("bits", budget.text)]
        if residual != Self.defaultResidual { result.append(StageParameter("residual", residual)) }
        if sinks != Self.defaultSinks { result.append(StageParameter("sinks", sinks)) }
        return result
    }

    public var residualWindow: Int { residual }
    public var blockLength: Int? { Self.groupLength }
    public var needsWholeCache: Bool { true }
    public var endsRecipe: Bool { true }

    // MARK: - Sharing bits

    /// Shares the budget between all components of the cache.
    ///
    /// - Throws: `CodecError` if no profile with bases of keys and values came, a number can't be quantized, or the budget
    ///   is less than the least that can be stored; `CancellationError`.
    public func prepared(for cache: CacheOutline) async throws -> any CodecStage {
        guard let layers = cache.layers else {
            throw CodecError(
                .unsupportedPlan,
                "calibrated looks at the whole cache, and its layers came one by one; compress it at once"
            )
        }
        let units = try units(of: layers, profile: cache.profile)
        let measured = Slots<MeasuredUnit>(count: units.count)
        let (codings, sinks) = (codings, sinks)
        try await forEachConcurrently(count: units.count, progress: cache.progress) { index in
            measured[index] = try MeasuredUnit(
                units[index],
                layers[units[index].layer],
                sinks: sinks,
                codings: codings
            )
        }
        var result = self
        result.choices = try choices(of: units, measured: measured.values, layers: layers)
        return result
    }

    /// Keys or values of a KV head, and their basis.
    private struct Unit: Sendable {
        let layer: Int
        let head: Int
        let part: CachePart
        let basis: ComponentBasis
    }

    /// All keys and values that there are, head by head.
    private func units(of layers: [LayerStatistics], profile: [LayerProfile]?) throws(CodecError) -> [Unit] {
        var units: [Unit] = []
        for (index, layer) in layers.enumerated() where !layer.geometry.isEmpty {
            let geometry = layer.geometry
            for head in 0..<geometry.kvHeads {
                for part in CachePart.allCases where geometry.dimension(part) > 0 {
                    let bases = profile?[index].bases.map { part == .keys ? $0.keys : $0.values } ?? []
                    guard bases.count == geometry.kvHeads,
                        bases[head].channelCount == geometry.dimension(part), bases[head].componentCount > 0
                    else {
                        throw Self.missingBases(part, layer: index)
                    }
                    units.append(Unit(layer: index, head: head, part: part, basis: bases[head]))
                }
            }
        }
        return units
    }

    private static func missingBases(_ part: CachePart, layer: Int) -> CodecError {
        CodecError(
            .missingBases,
            layer: layer,
            "calibrated needs the bases of the model's \(part), and no profile that has them came with the cache: make one "
                + "with think-compress profile, and pass it with --profile"
        )
    }

    /// What codings cost the components of a unit, those first whose dropping loses most.
    private struct MeasuredUnit: Sendable {
        /// The basis's components in that order.
        let order: [Int]
        let losses: ComponentAllocation.Unit

        init(_ unit: Unit, _ layer: LayerStatistics, sinks: Int, codings: [Coding]) throws(CodecError) {
            let basis = unit.basis
            let first = layer.held.beginsWithFirst(sinks) ? sinks : 0
            let means = try layer.means(unit.part, head: unit.head, from: first).map { Float($0) }
            let run = ComponentPlan.Run(codings[0], count: basis.componentCount)
            let plan: ComponentPlan
            do {
                plan = try basis.plan(components: Array(0..<basis.componentCount), runs: [run], means: means)
            } catch {
                throw CodecError(error, layer: unit.layer, head: unit.head)
            }
            let errors = ComponentErrors(
                layer.source[unit.part],
                head: unit.head,
                from: first,
                plan: plan,
                codings: codings,
                blockLength: layer.blockLength
            )
            guard let errors else {
                throw layer.unsupported(unit.part, head: unit.head, isSupported: Coding.isQuantizable)
            }
            let dropping: [Double]
            let byCoding: [[Double]]
            if errors.rowCount > 0 {
                let share = 1 / Double(errors.rowCount)
                dropping = errors.dropping.map { $0 * share }
                byCoding = errors.byCoding.map { $0.map { $0 * share } }
            } else {
                // A prompt that fills no block tells nothing: what the profile expects.
                dropping = basis.variances.map(Double.init)
                byCoding = codings.map { coding in dropping.map { $0 * normalErrors[coding.width - 1] } }
            }
            let order = dropping.indices.sorted { (-dropping[$0], $0) < (-dropping[$1], $1) }
            self.order = order
            losses = ComponentAllocation.Unit(
                losses: byCoding.map { losses in order.map { losses[$0] } },
                droppingLosses: order.map { dropping[$0] }
            )
        }
    }

    private func choices(
        of units: [Unit],
        measured: [MeasuredUnit],
        layers: [LayerStatistics]
    ) throws(CodecError) -> [[HeadChoice]] {
        let length = Self.groupLength
        let codings = codings
        let allocation = ComponentAllocation(
            byteCounts: codings.map { coding in
                { KeyCodingErrors.byteCount(channels: $0, coding: coding, blockLength: length) }
            },
            blockByteCount: { counts in
                let bytes = counts.joined().enumerated().reduce(0) { sum, run in
                    sum
                        + KeyCodingErrors.byteCount(
                            channels: run.element,
                            coding: codings[run.offset % codings.count],
                            blockLength: length
                        )
                }
                return (bytes + 63) / 64 * 64
            }
        )
        // Of layers that hold fewer rows, bytes of a block count less.
        let most = layers.reduce(1) { max($0, $1.rowCount) }
        var heads: [ComponentAllocation.Head] = []
        var firstUnits: [Int] = []
        var values = 0.0
        var next = 0
        while next < units.count {
            let unit = units[next]
            let count = layers[unit.layer].geometry.valueDimension > 0 ? CachePart.allCases.count : 1
            let weight = Double(layers[unit.layer].rowCount) / Double(most)
            heads.append(
                ComponentAllocation.Head(units: measured[next..<next + count].map(\.losses), weight: weight)
            )
            firstUnits.append(next)
            values += weight * Double(layers[unit.layer].geometry.valuesPerToken / layers[unit.layer].geometry.kvHeads)
            next += count
        }
        let budget = values * Double(length * self.budget.millibits) / 8000
        guard let counts = allocation.allocate(heads, budget: budget) else {
            throw CodecError(
                .unsupportedPlan,
                "calibrated can't store keys and values in \(self.budget.text) bits each; take more"
            )
        }
        func choice(_ unit: Int, _ counts: [Int]) -> UnitChoice {
            UnitChoice(
                runs: zip(codings, counts).filter { $0.1 > 0 }.map { ComponentPlan.Run($0.0, count: $0.1) },
                components: Array(measured[unit].order.prefix(counts.reduce(0, +)))
            )
        }
        var choices = [[HeadChoice]](repeating: [], count: layers.count)
        for (first, counts) in zip(firstUnits, counts) {
            choices[units[first].layer].append(
                HeadChoice(
                    keys: choice(first, counts[0]),
                    values: counts.count > 1 ? choice(first + 1, counts[1]) : nil
                )
            )
        }
        return choices
    }

    // MARK: - Plans

    /// Plans the components that were chosen.
    ///
    /// - Throws: `CodecError` if the stage was not prepared for the cache, a number is not finite, or the format can't say
    ///   the profile's basis.
    public func decide(_ statistics: inout LayerStatistics, draft: inout LayerDraft) throws(CodecError) {
        guard let choices else {
            throw CodecError(
                .unsupportedPlan,
                layer: statistics.layer,
                "calibrated shares bits in a cache, not in a layer"
            )
        }
        if statistics.held.beginsWithFirst(sinks) { draft.sinks = max(draft.sinks, sinks) }
        guard let bases = statistics.source.profile?.bases else {
            throw Self.missingBases(.keys, layer: statistics.layer)
        }
        for head in draft.heads.indices {
            let choice = choices[statistics.layer][head]
            func plan(_ part: CachePart, _ choice: UnitChoice) throws(CodecError) -> ComponentPlan {
                let means = try statistics.means(part, head: head, from: draft.sinks).map { Float($0) }
                do {
                    let basis = part == .keys ? bases.keys[head] : bases.values[head]
                    return try basis.plan(components: choice.components, runs: choice.runs, means: means)
                } catch {
                    throw CodecError(error, layer: statistics.layer, head: head)
                }
            }
            let keys = try plan(.keys, choice.keys)
            var values: ComponentPlan?
            if let choice = choice.values { values = try plan(.values, choice) }
            draft.heads[head].components = HeadComponents(keys: keys, values: values)
        }
    }
}

/// The mean squared errors of normal numbers of variance 1 in 1 to 4 bits: Formats/think.md, "Widths of values".
private let normalErrors = [0.373, 0.115, 0.0296, 0.00758]

extension ComponentBasis {
    /// A plan of some of the basis's components, in their order.
    fileprivate func plan(
        components: [Int],
        runs: [ComponentPlan.Run],
        means: [Float]
    ) throws(PlanError) -> ComponentPlan {
        let rows = matrix.span
        var numbers: [Int8] = []
        numbers.reserveCapacity(components.count * channelCount)
        for component in components {
            for channel in 0..<channelCount {
                numbers.append(
                    unsafe rows.unsafeLoad(fromByteOffset: component * channelCount + channel, as: Int8.self)
                )
            }
        }
        return try ComponentPlan(
            runs: runs,
            matrix: numbers,
            scales: components.map { scales[$0] },
            weights: weights,
            means: means
        )
    }
}

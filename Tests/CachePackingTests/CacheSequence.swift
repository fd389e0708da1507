import TestSupport
import Testing
import ThinkCompress

/// One thing that is done to one of a few caches. A step means something whatever came before it, so that any part of a
/// sequence is a sequence.
struct CacheStep: Sendable, CustomStringConvertible {
    enum Action: Sendable {
        /// Makes the cache anew, of tokens that are packed at once.
        case begin(tokens: Int)
        case append(tokens: Int)
        /// To a share of the tokens, in thousandths.
        case truncate(Int)
        /// Makes another cache a copy.
        case fork(to: Int)
        case detach
        /// Rows from and up to a share of the layer's, in thousandths.
        case decompress(Int, Int)
        case attend(queries: Int, window: Int?)
        case saveAndLoad(level: Int?)
    }

    var action: Action
    var cache: Int
    /// Of the numbers that come.
    var seed: UInt64

    var description: String { "cache \(cache), seed \(seed): \(action)" }

    static let cacheCount = 3

    static func random(using generator: inout SplitMix64) -> CacheStep {
        func number(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &generator) }
        let action: Action =
            switch number(0...99) {
            case 0..<3: .begin(tokens: number(1...400))
            case 3..<15: .append(tokens: 1)
            case 15..<45: .append(tokens: number(0...90))
            // Into the sinks, anywhere, and a little.
            case 45..<49: .truncate(number(0...200))
            case 49..<52: .truncate(number(0...1000))
            case 52..<55: .truncate(number(800...1000))
            case 55..<70: .fork(to: number(0...cacheCount - 1))
            case 70..<73: .detach
            case 73..<80: .decompress(number(0...1000), number(0...1000))
            case 80..<85: .attend(queries: number(1...5), window: nil)
            case 85..<90: .attend(queries: number(1...5), window: number(1...300))
            default: .saveAndLoad(level: Bool.random(using: &generator) ? 1 : nil)
            }
        return CacheStep(action: action, cache: number(0...cacheCount - 1), seed: generator.next() % 1000)
    }

    /// Steps that do less, the least first.
    var smaller: [CacheStep] {
        let actions: [Action] =
            switch action {
            case .begin(let tokens): smallerCounts(tokens).filter { $0 > 0 }.map { .begin(tokens: $0) }
            case .append(let tokens): smallerCounts(tokens).map { .append(tokens: $0) }
            case .attend(let queries, let window):
                (queries > 1 ? [.attend(queries: 1, window: window)] : [])
                    + (window != nil ? [.attend(queries: queries, window: nil)] : [])
            case .saveAndLoad(.some): [.saveAndLoad(level: nil)]
            case .decompress(let start, let end) where start != 0 || end != 1000: [.decompress(0, 1000)]
            default: []
            }
        return actions.map { CacheStep(action: $0, cache: cache, seed: seed) }
            + (seed == 0 ? [] : [CacheStep(action: action, cache: cache, seed: 0)])
    }

    private func smallerCounts(_ count: Int) -> [Int] {
        Set([count / 2, count - 32, count - 1].filter { $0 >= 0 && $0 < count }).sorted()
    }
}

/// A sequence of steps, and what they are done to.
struct CacheSequence: Sendable, CustomTestStringConvertible {
    /// The shape of the caches.
    struct Kind: Sendable, CustomTestStringConvertible {
        struct Layer: Sendable {
            enum Held: Sendable { case all, last, listed, none }

            var held = Held.all
            var sinks = 0
            var keyDimension = 9
            var valueDimension = 9
            var hasMeans = false
            var hasState = false
        }

        let name: String
        let layers: [Layer]
        var elementType = ElementType.float16
        var blockLength = 32
        var residualWindow = 0
        var testDescription: String { name }

        var shape: BlockShape {
            BlockShape(elementType: elementType, blockLength: blockLength, residualWindow: residualWindow)
        }

        func plan(ofLayer index: Int) throws -> LayerPlan {
            let layer = layers[index]
            guard layer.held != .none else { return LayerPlan(geometry: .none, heads: []) }
            let geometry = try LayerGeometry(
                queryHeads: 4,
                kvHeads: 2,
                keyDimension: layer.keyDimension,
                valueDimension: layer.valueDimension
            )
            return try .mixed(geometry: geometry, sinks: layer.sinks, hasMeans: layer.hasMeans, seed: UInt64(index))
        }
    }

    let kind: Kind
    var steps: [CacheStep]

    var testDescription: String { kind.name }

    /// What goes wrong, and in which step; nil if all is as the model says.
    func failure() async -> String? {
        var run: CacheRun
        do {
            run = try CacheRun(kind)
        } catch {
            return "the first caches: \(error)"
        }
        for (number, step) in steps.enumerated() {
            do {
                if let problem = try await run.take(step) { return "step \(number), \(step): \(problem)" }
            } catch {
                return "step \(number), \(step): \(error)"
            }
        }
        do {
            return try run.finalProblem().map { "after all steps: \($0)" }
        } catch {
            return "after all steps: \(error)"
        }
    }

    /// The smallest sequence found that goes wrong, too: no step of it can be left out or made smaller.
    func shrunk() async -> CacheSequence {
        var smallest = self
        func accepts(_ steps: [CacheStep]) async -> Bool {
            let attempt = CacheSequence(kind: kind, steps: steps)
            guard await attempt.failure() != nil else { return false }
            smallest = attempt
            return true
        }
        var isSmaller = true
        while isSmaller {
            isSmaller = false
            var length = max(smallest.steps.count / 2, 1)
            while length > 0 {
                var start = 0
                while start < smallest.steps.count {
                    var steps = smallest.steps
                    steps.removeSubrange(start..<min(start + length, steps.count))
                    if await accepts(steps) { isSmaller = true } else { start += length }
                }
                length /= 2
            }
            for index in smallest.steps.indices {
                for step in smallest.steps[index].smaller {
                    var steps = smallest.steps
                    steps[index] = step
                    if await accepts(steps) {
                        isSmaller = true
                        break
                    }
                }
            }
        }
        return smallest
    }
}

/// Caches and their models while a sequence runs.
private struct CacheRun {
    /// A compressed cache and the plain numbers that it stands for.
    private struct Pair {
        var cache: CompressedCache
        var models: [LayerModel]
        /// Tokens of each head, of layers that list them.
        var lists: [[[UInt32]]]
        var tokens: [Int32]
        var state: [[LayerState]]
    }

    /// Caches that have become as long begin anew: what takes time is the model.
    private static let longest = 700
    private static let workers = WorkerThreads(threadCount: 2)
    private let kind: CacheSequence.Kind
    private let plans: [LayerPlan]
    private var pairs: [Pair] = []

    init(_ kind: CacheSequence.Kind) throws {
        self.kind = kind
        plans = try kind.layers.indices.map(kind.plan)
        for index in 0..<CacheStep.cacheCount { pairs.append(try begin(tokens: 50 + 100 * index, seed: UInt64(index))) }
    }

    mutating func take(_ step: CacheStep) async throws -> String? {
        let index = step.cache
        switch step.action {
        case .begin(let tokens): pairs[index] = try begin(tokens: tokens, seed: step.seed)
        case .append(let tokens) where pairs[index].cache.tokenCount + tokens > Self.longest:
            pairs[index] = try begin(tokens: tokens + 1, seed: step.seed)
        case .append(let tokens): try append(tokens, to: index, seed: step.seed)
        case .truncate(let share):
            if let problem = try truncate(index, to: pairs[index].cache.tokenCount * share / 1000) { return problem }
        case .fork(let other): pairs[other] = pairs[index]
        case .detach: pairs[index].cache = try pairs[index].cache.detached()
        case .decompress(let start, let end):
            for (layer, model) in zip(pairs[index].cache.layers, pairs[index].models) {
                let bounds = [model.rowCount * start / 1000, model.rowCount * end / 1000].sorted()
                if let problem = try model.difference(from: layer, rows: bounds[0]..<bounds[1]) {
                    return "layer \(layer.index): \(problem)"
                }
            }
        case .attend(let queries, let window):
            if let problem = try attend(index, queries: queries, window: window, seed: step.seed) { return problem }
        case .saveAndLoad(let level):
            if let problem = try await saveAndLoad(index, level: level) { return problem }
        }
        return counts(pairs[index])
    }

    /// What no step has looked at: all rows of all caches.
    func finalProblem() throws -> String? {
        for (index, pair) in pairs.enumerated() {
            for (layer, model) in zip(pair.cache.layers, pair.models) {
                if let problem = try model.difference(from: layer) {
                    return "cache \(index), layer \(layer.index): \(problem)"
                }
            }
        }
        return nil
    }

    // MARK: - Steps

    private func begin(tokens wanted: Int, seed: UInt64) throws -> Pair {
        // Lists have the sinks at least.
        let tokens = kind.layers.reduce(wanted) { $1.held == .listed ? max($0, $1.sinks) : $0 }
        var generator = SplitMix64(seed: seed)
        var pair = Pair(
            cache: try CompressedCache(
                plans.enumerated().map { layer, plan in
                    CompressedLayer(shape: kind.shape, index: layer, plan: plan)
                }
            ),
            models: [],
            lists: [],
            tokens: (0..<Int32(tokens)).map { $0 &* 7 % 100 },
            state: []
        )
        var layers: [CompressedLayer] = []
        for (index, layer) in kind.layers.enumerated() {
            let plan = plans[index]
            // Lists have the sinks at least, and a layer of the last tokens not all of them.
            let some = max(tokens * 2 / 3, layer.held == .listed ? layer.sinks : 0, 1)
            let (rows, held): (Int, HeldTokens) =
                switch layer.held {
                case .all: (tokens, .all)
                case .none: (0, .all)
                case .last: tokens > 1 ? (min(some, tokens - 1), .last) : (tokens, .all)
                case .listed: (some, listed(some, of: tokens, sinks: layer.sinks, using: &generator))
                }
            let source = KVCacheLayer.random(
                plan.geometry,
                elementType: kind.elementType,
                rows: rows,
                held: held,
                state: layer.hasState ? [state(&generator)] : [],
                using: &generator
            )
            layers.append(
                try CompressedLayer(packing: source, by: plan, shape: kind.shape, index: index, tokenCount: tokens)
            )
            var model = LayerModel(plan: plan, shape: kind.shape, first: held == .last ? tokens - rows : 0)
            model.append(source)
            pair.models.append(model)
            if case .listed(let lists) = held { pair.lists.append(lists) } else { pair.lists.append([]) }
            pair.state.append(source.state)
        }
        pair.cache = try CompressedCache(layers, tokens: pair.tokens)
        return pair
    }

    private func listed(_ rows: Int, of tokens: Int, sinks: Int, using generator: inout SplitMix64) -> HeldTokens {
        .random(kvHeads: 2, rows: rows, tokenCount: tokens, sinks: sinks, using: &generator)
    }

    private func state(_ generator: inout SplitMix64) -> LayerState {
        let count = Int.random(in: 0...70, using: &generator)
        let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
        return LayerState(name: "recurrent", bytes: SharedBytes(bytes))
    }

    private mutating func append(_ count: Int, to index: Int, seed: UInt64) throws {
        var generator = SplitMix64(seed: seed)
        let layers = zip(kind.layers, plans).map { layer, plan in
            KVCacheLayer.random(
                plan.geometry,
                elementType: kind.elementType,
                rows: count,
                state: layer.hasState ? [state(&generator)] : [],
                using: &generator
            )
        }
        let former = UInt32(pairs[index].tokens.count)
        let tokens = (0..<Int32(count)).map { $0 + Int32(seed) }
        try pairs[index].cache.append(layers, tokens: tokens)
        pairs[index].tokens += tokens
        for (number, layer) in layers.enumerated() {
            pairs[index].models[number].append(layer)
            pairs[index].lists[number] = pairs[index].lists[number].map { $0 + (former..<former + UInt32(count)) }
            pairs[index].state[number] = layer.state
        }
    }

    private mutating func truncate(_ index: Int, to count: Int) throws -> String? {
        let former = pairs[index].cache
        do throws(CodecError) {
            try pairs[index].cache.truncate(to: count)
        } catch {
            let isRight = error.code == .partialCache && former.wholeOnlyReason != nil
            return isRight && isPartial(pairs[index]) ? nil : "\(error)"
        }
        if count < former.tokenCount && isPartial(pairs[index]) { return "a part of a cache was cut" }
        pairs[index].tokens.removeLast(pairs[index].tokens.count - count)
        guard count < former.tokenCount else { return nil }
        for number in plans.indices { pairs[index].models[number].truncate(to: count) }
        return nil
    }

    private func isPartial(_ pair: Pair) -> Bool {
        zip(kind.layers, pair.models).contains { layer, model in
            layer.hasState || layer.held == .listed || model.first > 0
        }
    }

    private func attend(_ index: Int, queries count: Int, window: Int?, seed: UInt64) throws -> String? {
        var generator = SplitMix64(seed: seed)
        let pair = pairs[index]
        let count = min(count, pair.tokens.count)
        let attention = Attention(slidingWindow: window, precision: .precise)
        guard count > 0 else { return nil }
        for (layer, model) in zip(pair.cache.layers, pair.models) where layer.geometry.valueDimension > 0 {
            let queries = KVTensor.random(
                elementType: .float32,
                heads: 4,
                tokens: count,
                headDimension: layer.geometry.keyDimension,
                using: &generator
            )
            var output = [Float](repeating: .nan, count: count * 4 * layer.geometry.valueDimension)
            var span = output.mutableSpan
            try attention.attend(queries, over: layer, using: Self.workers, into: &span)
            let reference = ReferenceAttention(
                queries,
                over: [model.restored(held: layer.held)],
                tokenCount: pair.tokens.count,
                attention: attention
            )
            let error = reference.relativeError(of: output)
            if !(error < 1e-3) { return "layer \(layer.index): attention is \(error) off" }
        }
        return nil
    }

    private mutating func saveAndLoad(_ index: Int, level: Int?) async throws -> String? {
        let cache = pairs[index].cache
        guard cache.tokenCount > 0 else { return nil }
        var sink = SnapshotBytes()
        let size = try await SnapshotWriter(compressionLevel: level).write(cache, into: &sink)
        if size.fileBytes != sink.bytes.count { return "\(size.fileBytes) bytes of \(sink.bytes.count)" }
        let loaded = try await SnapshotReader(SharedBytes(sink.bytes)).cache()
        if let part = CacheContent(loaded).difference(from: CacheContent(cache)) { return "\(part) is not as saved" }
        pairs[index].cache = loaded
        return nil
    }

    /// What is wrong with a cache's counts, lists and state; nil if nothing is.
    private func counts(_ pair: Pair) -> String? {
        guard pair.cache.tokens == pair.tokens, pair.cache.tokenCount == pair.tokens.count else {
            return "\(pair.cache.tokenCount) tokens instead of \(pair.tokens.count)"
        }
        for (index, layer) in pair.cache.layers.enumerated() {
            let lists: [[UInt32]] = if case .listed(let lists) = layer.held { lists } else { [] }
            guard layer.tokenCount == pair.tokens.count, layer.rowCount == pair.models[index].rowCount,
                lists == pair.lists[index], layer.state == pair.state[index]
            else { return "layer \(index) has \(layer.rowCount) rows of \(layer.tokenCount) tokens, \(layer.held)" }
        }
        return nil
    }
}

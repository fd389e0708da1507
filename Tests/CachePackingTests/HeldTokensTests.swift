import TestSupport
import Testing
import ThinkCompress

/// Layers that hold some of the cache's tokens, and layers without values or without a cache.
@Suite struct HeldTokensTests {
    private static let shape = BlockShape(elementType: .float16, blockLength: 32, residualWindow: 20)

    private static func plan(valueDimension: Int = 5, sinks: Int = 0) throws -> LayerPlan {
        let geometry = try LayerGeometry(kvHeads: 2, keyDimension: 9, valueDimension: valueDimension)
        return try LayerPlan.mixed(geometry: geometry, sinks: sinks, hasMeans: true, seed: 1)
    }

    private static func rows(_ plan: LayerPlan, _ count: Int, held: HeldTokens = .all) -> KVCacheLayer {
        var generator = SplitMix64(seed: 5)
        return .random(plan.geometry, elementType: .float16, rows: count, held: held, using: &generator)
    }

    /// Appends rows in pieces of such a length.
    private static func append(_ source: KVCacheLayer, to layer: inout CompressedLayer, by length: Int) throws {
        for start in stride(from: 0, to: source.keys.tokens, by: length) {
            let piece = source[rows: start..<min(start + length, source.keys.tokens)]
            try layer.append(keys: piece.keys, values: piece.values)
        }
    }

    // MARK: - The last tokens

    @Test("the last tokens lie in their blocks, wherever the first of them is", arguments: 1...257)
    func lastTokens(skipped: Int) throws {
        let plan = try Self.plan()
        let source = Self.rows(plan, 120, held: .last)
        let whole = try CompressedLayer(packing: source, by: plan, shape: Self.shape, tokenCount: skipped + 120)
        #expect(whole.rowCount == 120 && whole.tokenCount == skipped + 120 && whole.held == .last)
        #expect(whole.extent.blocks == skipped / 32..<(skipped + 100) / 32)
        var model = LayerModel(plan: plan, shape: Self.shape, first: skipped)
        model.append(source)
        #expect(try model.difference(from: whole) == nil)

        var layer = CompressedLayer(shape: Self.shape, index: 0, plan: plan, held: .last, skippedTokens: skipped)
        try Self.append(source, to: &layer, by: skipped % 3 == 0 ? 1 : skipped % 50 + 1)
        #expect(CacheContent(layer).difference(from: CacheContent(whole)) == nil)
    }

    @Test("the last tokens restore in any range", arguments: [1, 31, 32, 100, 250])
    func ranges(skipped: Int) throws {
        let plan = try Self.plan()
        let source = Self.rows(plan, 300, held: .last)
        let layer = try CompressedLayer(packing: source, by: plan, shape: Self.shape, tokenCount: skipped + 300)
        var model = LayerModel(plan: plan, shape: Self.shape, first: skipped)
        model.append(source)
        var generator = SplitMix64(seed: UInt64(skipped))
        for _ in 0..<40 {
            let bounds = [0, 1].map { _ in Int.random(in: 0...300, using: &generator) }.sorted()
            #expect(try model.difference(from: layer, rows: bounds[0]..<bounds[1]) == nil)
        }
    }

    // MARK: - Listed tokens

    @Test("listed tokens lie by their index in the list", arguments: [0, 4, 40], [41, 60, 150])
    func listedTokens(sinks: Int, count: Int) throws {
        let plan = try Self.plan(sinks: sinks)
        var generator = SplitMix64(seed: 9)
        let held = HeldTokens.random(kvHeads: 2, rows: count, tokenCount: 500, sinks: sinks, using: &generator)
        let source = Self.rows(plan, count + 80)
        func atOnce(_ rows: Int, held: HeldTokens, tokenCount: Int) throws -> CompressedLayer {
            let part = source[rows: 0..<rows]
            let layer = KVCacheLayer(keys: part.keys, values: part.values, held: held)
            return try CompressedLayer(packing: layer, by: plan, shape: Self.shape, tokenCount: tokenCount)
        }
        var layer = try atOnce(count, held: held, tokenCount: 500)
        #expect(layer.rowCount == count && layer.tokenCount == 500 && layer.held == held)
        var model = LayerModel(plan: plan, shape: Self.shape)
        model.append(source[rows: 0..<count])
        #expect(try model.difference(from: layer) == nil)

        // What is appended is held by all heads.
        try Self.append(source[rows: count..<count + 80], to: &layer, by: 1)
        model.append(source[rows: count..<count + 80])
        #expect(try model.difference(from: layer) == nil)
        guard case .listed(let lists) = held else {
            Issue.record("the tokens are not listed")
            return
        }
        let longer = HeldTokens.listed(lists.map { $0 + (500..<580) })
        #expect(layer.held == longer)
        let whole = try atOnce(count + 80, held: longer, tokenCount: 580)
        #expect(CacheContent(layer).difference(from: CacheContent(whole)) == nil)
    }

    // MARK: - No values, no cache

    @Test("keys without values are packed, restored, cut and appended")
    func noValues() throws {
        let plan = try Self.plan(valueDimension: 0, sinks: 4)
        let source = Self.rows(plan, 300)
        var layer = try CompressedLayer(packing: source, by: plan, shape: Self.shape)
        let whole = CacheContent(layer)
        var model = LayerModel(plan: plan, shape: Self.shape)
        model.append(source)
        #expect(try model.difference(from: layer) == nil)
        let restored = try layer.decompress(rows: 0..<300, as: .float16)
        #expect(restored.values.heads == 2 && restored.values.tokens == 300 && restored.values.headDimension == 0)
        try layer.truncate(to: 50)
        model.truncate(to: 50)
        #expect(try model.difference(from: layer) == nil)
        try layer.truncate(to: 0)
        try Self.append(source, to: &layer, by: 1)
        #expect(CacheContent(layer).difference(from: whole) == nil)
    }

    @Test("a layer without a cache has no rows, and goes along")
    func noCache() throws {
        let plan = LayerPlan(geometry: .none, heads: [])
        let empty = CompressedLayer(shape: Self.shape, index: 1, plan: plan)
        #expect(empty.rowCount == 0 && empty.blockBytes == 0 && empty.residualWindow == nil)
        let other = try Self.plan()
        let source = Self.rows(other, 100)
        let nothing = KVCacheLayer(elementType: .float16)
        var cache = try CompressedCache([CompressedLayer(shape: Self.shape, index: 0, plan: other), empty])
        try cache.append([source, nothing])
        #expect(cache.tokenCount == 100)
        #expect(cache.layers.map(\.tokenCount) == [100, 100])
        #expect(cache.layers.map(\.rowCount) == [100, 0])
        try cache.truncate(to: 70)
        #expect(cache.layers.map(\.tokenCount) == [70, 70])
        #expect(cache.layers.map(\.rowCount) == [70, 0])
        #expect(cache.wholeOnlyReason == nil)
        let restored = try cache.layers[1].decompress(rows: 0..<0, as: .float32)
        #expect(restored.isEmpty && restored.keys.tokens == 0)
        #expect(throws: CodecError.self) { try cache.append([source, source]) }
    }

    // MARK: - Whole or not at all

    /// A cache of a layer that holds all of 100 tokens and another one.
    private static func cache(_ held: HeldTokens, rows count: Int, state: [LayerState] = []) throws -> CompressedCache {
        let plan = try plan()
        let other = rows(plan, count, held: held)
        let second = KVCacheLayer(keys: other.keys, values: other.values, held: held, state: state)
        return try CompressedCache([
            CompressedLayer(packing: rows(plan, 100), by: plan, shape: shape),
            CompressedLayer(packing: second, by: plan, shape: shape, index: 1, tokenCount: 100),
        ])
    }

    private static let state = [LayerState(name: "recurrent", bytes: SharedBytes([1, 2, 3]))]
    private static let lists = [[UInt32](20..<90), [UInt32](30..<100)]

    @Test("a cache that is no prefix of itself is not cut, and says why", arguments: 0..<4)
    func refusesToTruncate(kind: Int) throws {
        let (cache, reason) =
            switch kind {
            case 0: (try Self.cache(.last, rows: 70), "layer 1 does not hold all tokens")
            case 1: (try Self.cache(.listed(Self.lists), rows: 70), "layer 1 does not hold all tokens")
            case 2:
                (try Self.cache(.all, rows: 100, state: Self.state), "layer 1 has state that belongs to all tokens")
            default: (try Self.cache(.last, rows: 70, state: Self.state), "layer 1 does not hold all tokens")
            }
        let content = CacheContent(cache)
        #expect(cache.wholeOnlyReason == reason)
        let error = CodecError(
            .partialCache,
            "\(reason): such a cache can be reused whole only; compute the shorter prefix anew"
        )
        for count in [0, 50, 99] {
            var copy = cache
            #expect(throws: error) { try copy.truncate(to: count) }
            #expect(CacheContent(copy).difference(from: content) == nil)
            #expect(copy.tokenCount == 100)
        }
        var copy = cache
        try copy.truncate(to: 100)
        #expect(CacheContent(copy).difference(from: content) == nil)
    }

    @Test("state goes on with the new tokens' state alone")
    func state() throws {
        let cache = try Self.cache(.all, rows: 100, state: Self.state)
        let new = Self.rows(cache.layers[0].plan, 3)
        func appended(_ state: [LayerState]) throws -> CompressedCache {
            var copy = cache
            try copy.append([new, KVCacheLayer(keys: new.keys, values: new.values, state: state)])
            return copy
        }
        let other = [LayerState(name: "convolution", bytes: SharedBytes([4]))]
        for wrong in [[], other, Self.state + other] {
            let error = #expect(throws: CodecError.self) { try appended(wrong) }
            #expect(error?.code == .partialCache && error?.layer == 1)
            #expect(error?.message.contains("append needs its new state under the same names") == true)
        }
        let next = [LayerState(name: "recurrent", bytes: SharedBytes([7]))]
        #expect(try appended(next).layers.map(\.state) == [[], next])
    }

    @Test("state has no order, and is a layer's own memory once it is detached")
    func stateOrder() throws {
        let states = [
            LayerState(name: "ssm", bytes: SharedBytes([1])), LayerState(name: "conv", bytes: SharedBytes([7, 7])),
        ]
        var cache = try Self.cache(.all, rows: 10, state: states)
        #expect(cache.layers[1].state.map(\.name) == ["conv", "ssm"])
        let new = Self.rows(cache.layers[0].plan, 1)
        try cache.append([new, KVCacheLayer(keys: new.keys, values: new.values, state: states)])
        let detached = try cache.detached()
        #expect(detached.layers[1].state == [states[1], states[0]])
        for (state, copy) in zip(cache.layers[1].state, detached.layers[1].state) {
            let addresses = [state, copy].map { $0.bytes.withUnsafeBytes { UInt(bitPattern: $0.baseAddress) } }
            #expect(addresses[0] != addresses[1])
        }
    }

    @Test("nothing appended changes nothing")
    func nothingAppended() throws {
        let cache = try Self.cache(.all, rows: 40, state: Self.state)
        var copy = cache
        let none = Self.rows(cache.layers[0].plan, 0)
        try copy.append([none, none])
        #expect(CacheContent(copy).difference(from: CacheContent(cache)) == nil)
    }

    @Test("rows that are appended are of the next tokens, and the first ones of those listed")
    func tokensOfAppendedRows() throws {
        var cache = try Self.cache(.listed([[0, 2, 5], [1, 2, 9]]), rows: 3)
        let content = CacheContent(cache)
        for held in [HeldTokens.last, .listed([[10], [10]])] {
            let new = Self.rows(cache.layers[0].plan, 1)
            let layer = KVCacheLayer(keys: new.keys, values: new.values, held: held)
            let error = #expect(throws: CodecError.self) { try cache.append([layer, layer]) }
            #expect(error?.message == "rows that are appended must be of the cache's next tokens")
            #expect(CacheContent(cache).difference(from: content) == nil)
        }
        let plan = cache.layers[0].plan
        var layer = CompressedLayer(shape: cache.shape, index: 0, plan: plan, held: .listed([[5, 7], [5, 7]]))
        let new = Self.rows(plan, 2)
        let error = #expect(throws: CodecError.self) { try layer.append(keys: new.keys, values: new.values) }
        #expect(error?.message == "the first rows must be of the tokens that the layer lists")
    }

    // MARK: - Errors

    @Test("a number that can't be quantized is named by its token")
    func tokensInErrors() throws {
        let geometry = try LayerGeometry(kvHeads: 2, keyDimension: 9, valueDimension: 5)
        let coding = try Coding(width: 4)
        let head = try HeadPlan(
            keyRuns: [.init(coding, channels: (0..<9).map { $0 })],
            values: coding,
            geometry: geometry
        )
        let plan = LayerPlan(geometry: geometry, heads: [head, head])
        func rows(held: HeldTokens) -> KVCacheLayer {
            let source = Self.rows(plan, 70)
            var numbers = source.values.numbers
            numbers[(70 + 12) * 5 + 3] = .infinity
            let values = KVTensor(numbers, elementType: .float16, heads: 2, headDimension: 5)
            return KVCacheLayer(keys: source.keys, values: values, held: held)
        }
        for (held, count, token) in [(HeldTokens.all, 70, 12), (.last, 100, 42), (.listed(Self.lists), 100, 42)] {
            let error = #expect(throws: CodecError.self) {
                try CompressedLayer(packing: rows(held: held), by: plan, shape: Self.shape, tokenCount: count)
            }
            #expect(error?.head == 1 && error?.token == token && error?.channel == 3)
        }
        var layer = try CompressedLayer(
            packing: Self.rows(plan, 70, held: .listed(Self.lists)),
            by: plan,
            shape: Self.shape,
            tokenCount: 100
        )
        let new = rows(held: .all)
        let error = #expect(throws: CodecError.self) { try layer.append(keys: new.keys, values: new.values) }
        #expect(error?.head == 1 && error?.token == 112 && error?.channel == 3)
        #expect(layer.tokenCount == 100)
    }
}

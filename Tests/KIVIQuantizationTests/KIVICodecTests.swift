import TestSupport
import Testing
import ThinkCompress

@Suite struct KIVICodecTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let keys: Int
        let values: Int
        let group: Int
        let residual: Int
        let dimension: Int
        let type: ElementType

        var testDescription: String { "\(recipe), dimension \(dimension), \(type.name)" }
        var recipe: String { "kivi(keys=\(keys),values=\(values),group=\(group),residual=\(residual))" }

        /// One block and a half: the block, a full window, and tokens that fill no block.
        var tokens: Int { residual + group + group / 2 }

        func cache() throws -> KVCache {
            var shape = TestCache()
            (shape.layers, shape.kvHeads, shape.queryHeads, shape.window) = (1, 1, 1, 0)
            (shape.headDimension, shape.tokens, shape.elementType) = (dimension, tokens, type)
            shape.seed = UInt64(dimension + group)
            return try shape.makeQuickly()
        }
    }

    static let cases: [Case] = [(2, 2), (4, 4), (8, 8), (4, 2), (3, 1), (1, 5)].flatMap { keys, values in
        [32, 64, 128].flatMap { group in
            [0, 32, 128].filter { $0.isMultiple(of: group) }.flatMap { residual in
                [64, 80, 96, 128, 256].map { dimension in
                    Case(
                        keys: keys,
                        values: values,
                        group: group,
                        residual: residual,
                        dimension: dimension,
                        type: ElementType.allCases[(dimension / 16 + group / 32 + keys) % 3]
                    )
                }
            }
        }
    }

    // MARK: - Numbers

    @Test("restores every number of a block as the format says, within half a step", arguments: cases)
    func restoresBlocks(_ test: Case) async throws {
        let source = try test.cache()
        let compressed = try await CompressedCache(compressing: source, recipe: Recipe(test.recipe))
        #expect(compressed.blockTokenCount == test.group)
        let restored = try compressed.layers[0].decompress(rows: 0..<test.group, as: .float32)
        let keys = source.layers[0].keys[tokens: 0..<test.group].numbers
        let restoredKeys = restored.keys.numbers
        for channel in 0..<test.dimension {
            let column = stride(from: channel, to: keys.count, by: test.dimension)
            check(keys, restoredKeys, indices: Array(column), bits: test.keys, "keys of channel \(channel)")
        }
        let values = source.layers[0].values[tokens: 0..<test.group].numbers
        let restoredValues = restored.values.numbers
        for token in 0..<test.group {
            for start in stride(from: 0, to: test.dimension, by: test.group) {
                let end = min(start + test.group, test.dimension)
                let row = token * test.dimension + start..<token * test.dimension + end
                check(values, restoredValues, indices: Array(row), bits: test.values, "values of token \(token)")
            }
        }
    }

    /// One group's numbers, restored as the format says and within its bound.
    private func check(_ numbers: [Float], _ restored: [Float], indices: [Int], bits: Int, _ name: String) {
        let group = ReferenceGroup(indices.lazy.map { numbers[$0] }, bits: bits)
        var isExact = true
        var largestError: Float = 0
        for index in indices {
            if restored[index] != group.restored(numbers[index]) { isExact = false }
            largestError = max(largestError, abs(restored[index] - numbers[index]))
        }
        #expect(isExact, "\(name)")
        #expect(largestError <= group.errorBound, "\(name)")
    }

    @Test("keeps the window's tokens exact to the bit", arguments: cases)
    func windowIsExact(_ test: Case) async throws {
        let source = try test.cache()
        let compressed = try await CompressedCache(compressing: source, recipe: Recipe(test.recipe))
        let kept = try compressed.layers[0].decompress(rows: test.group..<test.tokens, as: test.type)
        let original = source.layers(tokens: test.group..<test.tokens)[0]
        #expect(kept.keys.hasSameBits(as: original.keys))
        #expect(kept.values.hasSameBits(as: original.values))
        let window = try #require(compressed.layers[0].residualWindow)
        #expect(window.keys.hasSameBits(as: original.keys))
        #expect(window.values.hasSameBits(as: original.values))
        #expect(compressed.fullPrecisionByteCount == 2 * original.keys.byteCount)
    }

    @Test(
        "puts whole groups of the oldest tokens into blocks",
        arguments: [(32, 0), (32, 32), (32, 128), (64, 0), (64, 64), (128, 0), (128, 128)],
        [1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 159, 160, 161, 191, 192, 255, 256, 257, 300]
    )
    func countsBlocks(parameters: (group: Int, residual: Int), tokens: Int) async throws {
        var shape = TestCache()
        (shape.layers, shape.headDimension, shape.tokens, shape.window) = (1, 4, tokens, 0)
        let recipe = try Recipe("kivi(bits=4,group=\(parameters.group),residual=\(parameters.residual))")
        let compressed = try await CompressedCache(compressing: shape.makeQuickly(), recipe: recipe)
        let expected = max(tokens - parameters.residual, 0) / parameters.group * parameters.group
        #expect(compressed.blockTokenCount == expected)
        #expect(compressed.tokenCount == tokens)
        let window = tokens - expected
        #expect(compressed.layers[0].residualWindow?.keys.tokens ?? 0 == window)
        #expect(window < parameters.residual + parameters.group)
        if tokens < parameters.residual + parameters.group { #expect(expected == 0) }
    }

    @Test("keeps the first tokens exact to the bit where a layer holds them", arguments: [0, 4, 40])
    func sinks(count: Int) async throws {
        var shape = TestCache()
        (shape.layers, shape.headDimension, shape.tokens, shape.window) = (2, 64, 160, 0)
        let source = try shape.makeQuickly()
        let first = source.layers[0]
        let last = KVCacheLayer(
            keys: source.layers[1].keys[tokens: 60..<160],
            values: source.layers[1].values[tokens: 60..<160],
            held: .last
        )
        let cache = try KVCache(layers: [first, last], tokens: source.tokens, metadata: [:])
        let compressed = try await CompressedCache(
            compressing: cache,
            recipe: Recipe("kivi(bits=2,residual=32,sinks=\(count))")
        )
        #expect(compressed.layers.map(\.plan.sinks) == [count, 0])
        let restored = try compressed.layers[0].decompress(rows: 0..<160, as: shape.elementType)
        for (ours, theirs) in [(restored.keys, first.keys), (restored.values, first.values)] {
            #expect(ours[tokens: 0..<count].hasSameBits(as: theirs[tokens: 0..<count]))
            #expect(!ours[tokens: count..<128].hasSameBits(as: theirs[tokens: count..<128]))
        }
    }

    @Test("fits ranges as the format says", arguments: Coding.codeWidths, [(32, 9), (32, 80), (64, 64), (128, 128)])
    func fittedRanges(bits: Int, shape: (group: Int, dimension: Int)) async throws {
        let (group, dimension) = shape
        for type in ElementType.allCases {
            let test = Case(
                keys: bits,
                values: bits,
                group: group,
                residual: 0,
                dimension: dimension,
                type: type
            )
            let source = try test.cache()
            let recipe = try Recipe("kivi(bits=\(bits),group=\(group),residual=0,ranges=fitted)")
            let layer = try await CompressedCache(compressing: source, recipe: recipe).layers[0]
            let restored = try layer.decompress(rows: 0..<group, as: .float32)
            var (error, plainError) = (0.0, 0.0)
            func check(_ numbers: [Float], _ restored: [Float], _ indices: [Int], _ name: String) {
                let chosen = indices.map { numbers[$0] }
                let fitted = ReferenceGroup(fitting: chosen, bits: bits)
                #expect(indices.allSatisfy { restored[$0] == fitted.restored(numbers[$0]) }, "\(name)")
                error += fitted.squaredError(of: chosen)
                plainError += ReferenceGroup(chosen, bits: bits).squaredError(of: chosen)
            }
            let keys = source.layers[0].keys[tokens: 0..<group].numbers
            let values = source.layers[0].values[tokens: 0..<group].numbers
            for channel in 0..<dimension {
                let column = stride(from: channel, to: keys.count, by: dimension)
                check(keys, restored.keys.numbers, Array(column), "keys of channel \(channel)")
            }
            for start in stride(from: 0, to: values.count, by: dimension) {
                for first in stride(from: 0, to: dimension, by: group) {
                    let row = start + first..<start + min(first + group, dimension)
                    check(values, restored.values.numbers, Array(row), "values from \(row.lowerBound) on")
                }
            }
            // From 5 bits on there is little to gain.
            #expect(error <= (bits >= 5 ? 1 : 0.95) * plainError)
        }
    }

    // MARK: - Groups of their own kind

    /// A cache of one head and 32 tokens of 32 channels, where one number fills each key channel.
    private static func constant(_ numbers: [Float], type: ElementType) throws -> KVCache {
        let row = (0..<32).map { numbers[$0 % numbers.count] }
        let keys = (0..<32).flatMap { _ in row }
        // Values of a token are one group: each token has one number.
        let values = row.flatMap { [Float](repeating: $0, count: 32) }
        return try KVCache(
            layers: [
                KVCacheLayer(
                    keys: KVTensor(keys, elementType: type, heads: 1, headDimension: 32),
                    values: KVTensor(values, elementType: type, heads: 1, headDimension: 32)
                )
            ]
        )
    }

    @Test("gives constant groups back exactly", arguments: ElementType.allCases, Coding.codeWidths)
    func constantGroups(type: ElementType, bits: Int) async throws {
        // All of them are float16 and bfloat16 numbers.
        let numbers: [Float] = [0, 1, -1, 0.5, -65280, 65280, 0x1p-14, -0x1p-24, 0x1p-24, 1.5, 100, -0.1015625]
        let cache = try Self.constant(numbers, type: type)
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("kivi(bits=\(bits),residual=0)"))
        #expect(compressed.blockTokenCount == 32)
        let restored = try compressed.layers[0].decompress(rows: 0..<32, as: .float32)
        #expect(restored.keys.numbers == cache.layers[0].keys.numbers)
        #expect(restored.values.numbers == cache.layers[0].values.numbers)
        let block = PackedBlock(layer: compressed.layers[0], block: 0, head: 0, bits: bits)
        for channel in 0..<32 {
            for packed in [block.key(5, channel), block.value(channel, 5)] {
                #expect(packed.code == 0)
                #expect(packed.scale == 0)
                #expect(packed.minimum == numbers[channel % numbers.count])
            }
        }
    }

    @Test("takes negative zero as zero")
    func negativeZero() async throws {
        let cache = try Self.constant([-0.0], type: .float16)
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("kivi(bits=2,residual=0)"))
        #expect(compressed.layers[0].block(0, head: 0).array.allSatisfy { $0 == 0 })
    }

    // With 1 bit a range is at most the largest float16.
    @Test("takes the largest numbers and restores none beyond them", arguments: Coding.codeWidths.dropFirst())
    func largestNumbers(bits: Int) async throws {
        let numbers = (0..<32 * 32).map { index -> Float in index % 33 < 16 ? 65504 : -65504 }
        let tensor = KVTensor(numbers, elementType: .float32, heads: 1, headDimension: 32)
        let cache = try KVCache(layers: [KVCacheLayer(keys: tensor, values: tensor)])
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("kivi(bits=\(bits),residual=0)"))
        let restored = try compressed.layers[0].decompress(rows: 0..<32, as: .float32)
        for part in [restored.keys.numbers, restored.values.numbers] {
            #expect(part.map { $0 > 0 } == numbers.map { $0 > 0 })
            #expect(part.max() == 65504)
            #expect(part.allSatisfy { abs($0) <= 65504 && abs($0) >= 65440 })
        }
    }

    // MARK: - Bytes

    @Test("has the bytes of the format's example")
    func example() async throws {
        var keys = [Float](repeating: 0, count: 32 * 4)
        for (token, number) in [0, 1, 2, Float(3.1)].enumerated() { keys[token * 4] = number }
        let tensor = KVTensor(keys, elementType: .float32, heads: 1, headDimension: 4)
        let cache = try KVCache(layers: [KVCacheLayer(keys: tensor, values: tensor)])
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("kivi(bits=2,residual=0)"))
        let block = compressed.layers[0].block(0, head: 0).array
        #expect([0, 4, 8, 12].map { block[$0] } == [0, 1, 2, 3])
        #expect(block[0..<64].reduce(0) { $0 + Int($1) } == 6)
        // One quad is one line of codes; scales follow, then minima, then zeros up to 128 bytes.
        #expect(Array(block[64..<66]) == [0x22, 0x3C])
        #expect(block[66..<128].allSatisfy { $0 == 0 })
        let restored = try compressed.layers[0].decompress(rows: 0..<4, as: .float32).keys.numbers
        #expect(stride(from: 0, to: 16, by: 4).map { restored[$0] } == [0, 1.033203125, 2.06640625, 3.099609375])
    }

    @Test(
        "has blocks of the length that the format says",
        arguments: [
            // Formats/kivi.md, "Size".
            (77, 128, 32, 2, 2496),
            // Codes 64 * 4, scales and minima 2 * 128 and 64 zeros; values 2 * 256 (codes) and 2 * 128.
            (64, 64, 32, 2, 512 + 256 + 512 + 256),
            // One quad: half a line of codes is a line; 16 bytes of scales and minima, 48 zeros; 8 units of values.
            (1, 1, 32, 2, 64 + 64 + 128 + 128),
            // 128 tokens: four sub-blocks of a line each; one group of values a token.
            (1, 128, 128, 8, 4 * 128 + 64 + 256 * 64 + 512),
        ]
    )
    func blockLength(kept: Int, dimension: Int, block: Int, bits: Int, byteCount: Int) throws {
        let shape = BlockShape(elementType: .float16, blockLength: block, residualWindow: 0)
        let geometry = try LayerGeometry(kvHeads: 1, keyDimension: dimension, valueDimension: dimension)
        let coding = try Coding(width: bits)
        let run = HeadPlan.KeyRun(coding, channels: (0..<UInt16(kept)).map { $0 })
        let head = try HeadPlan(keyRuns: [run], values: coding, geometry: geometry)
        #expect(LayerPlan(geometry: geometry, heads: [head]).blockByteCount(shape: shape) == byteCount)
    }

    @Test("packs the codes, scales and minima of the format", arguments: Coding.codeWidths, [16, 20, 80])
    func packs(bits: Int, dimension: Int) async throws {
        let test = Case(keys: bits, values: bits, group: 32, residual: 0, dimension: dimension, type: .bfloat16)
        let source = try test.cache()
        let compressed = try await CompressedCache(compressing: source, recipe: Recipe(test.recipe))
        let block = PackedBlock(layer: compressed.layers[0], block: 0, head: 0, bits: bits)
        let keys = source.layers[0].keys.numbers
        let values = source.layers[0].values.numbers
        for channel in 0..<dimension {
            let group = ReferenceGroup((0..<32).map { keys[$0 * dimension + channel] }, bits: bits)
            for token in 0..<32 {
                #expect(group.isPacked(keys[token * dimension + channel], as: block.key(token, channel)))
            }
        }
        for token in 0..<32 {
            let row = Array(values[token * dimension..<(token + 1) * dimension])
            for channel in 0..<dimension {
                let start = channel / 32 * 32
                let group = ReferenceGroup(row[start..<min(start + 32, dimension)], bits: bits)
                #expect(group.isPacked(row[channel], as: block.value(token, channel)))
            }
        }
    }

    // MARK: - Refusals

    struct Fault: Sendable, CustomTestStringConvertible {
        let number: Float
        let type: ElementType
        let isKey: Bool
        let token: Int

        var message: String {
            let reason =
                number.isFinite
                ? "is \(number), beyond 65504.0, what float16 scales can say" : "is \(number)"
            return "a \(isKey ? "key" : "value") \(reason); only full precision (f16, bf16, f32) takes such a cache"
        }

        var error: CodecError {
            CodecError(.unsupportedValue, layer: 1, head: 1, token: token, channel: 7, message)
        }

        var testDescription: String { "\(message), \(type.name), token \(token)" }

        /// The cache with the fault in layer 1, head 1, channel 7.
        func put(into source: KVCache) throws -> KVCache {
            func faulty(_ tensor: KVTensor) -> KVTensor {
                var numbers = tensor.numbers
                numbers[(tensor.tokens + token) * tensor.headDimension + 7] = number
                // Not a number stays one in every type.
                return KVTensor(numbers, elementType: type, heads: 2, headDimension: tensor.headDimension)
            }
            var layers = source.layers
            layers[1] = KVCacheLayer(
                keys: isKey ? faulty(layers[1].keys) : layers[1].keys,
                values: isKey ? layers[1].values : faulty(layers[1].values)
            )
            return try KVCache(layers: layers, tokens: source.tokens)
        }
    }

    /// 100 tokens, of which 64 are in blocks and the rest in the window.
    private static func source(_ type: ElementType) throws -> KVCache {
        var shape = TestCache()
        (shape.headDimension, shape.tokens, shape.window, shape.elementType) = (8, 100, 0, type)
        return try shape.makeQuickly()
    }

    static let numbers: [(Float, ElementType)] = [
        (.nan, .float16), (.infinity, .float16), (-.infinity, .bfloat16), (.nan, .bfloat16), (65536, .bfloat16),
        (.nan, .float32), (.infinity, .float32), (65505, .float32), (-65505, .float32),
    ]

    static let faults = numbers.flatMap { number, type in
        [true, false].flatMap { isKey in
            // In blocks, in the window.
            [0, 40, 63, 64, 99].map { Fault(number: number, type: type, isKey: isKey, token: $0) }
        }
    }

    private static let recipe = "kivi(bits=4,residual=32)"

    @Test("refuses numbers that it can't quantize and says where they are", arguments: faults)
    func refuses(_ fault: Fault) async throws {
        let cache = try fault.put(into: Self.source(fault.type))
        await #expect(throws: fault.error) {
            try await CompressedCache(compressing: cache, recipe: Recipe(Self.recipe))
        }
    }

    /// Each fault with the tokens before it that are there already.
    static let appended = faults.flatMap { fault in [20, 90].filter { $0 <= fault.token }.map { (fault, $0) } }

    @Test("refuses them when they are appended, and nothing changes", arguments: appended)
    func refusesToAppend(_ fault: Fault, prefix: Int) async throws {
        let source = try Self.source(fault.type)
        let recipe = try Recipe(Self.recipe)
        var cache = try await CompressedCache(compressing: source.prefix(prefix), recipe: recipe)
        let before = CacheContent(cache)
        let faulty = try fault.put(into: source).layers(tokens: prefix..<100)
        let ids = source.tokens.map { Array($0[prefix...]) }
        #expect(throws: fault.error) { try cache.append(faulty, tokens: ids) }
        #expect(CacheContent(cache).difference(from: before) == nil)
        #expect(throws: fault.error) {
            try cache.layers[1].append(keys: faulty[1].keys, values: faulty[1].values)
        }
        #expect(CacheContent(cache).difference(from: before) == nil)
        // The cache is as good as before.
        try cache.append(source.layers(tokens: prefix..<100), tokens: ids)
        let whole = try await CompressedCache(compressing: source, recipe: recipe)
        #expect(CacheContent(cache).difference(from: CacheContent(whole)) == nil)
    }

    @Test("refuses widths, groups and residuals that the format can't say")
    func refusesParameters() throws {
        let codec = try KIVICodec(keyBits: 4, valueBits: 2, group: 64, residual: 192)
        #expect(codec.parameters.map(\.text) == ["keys=4", "values=2", "group=64", "residual=192"])
        #expect(codec.residualWindow == 192)
        #expect(codec.blockLength == 64)
        #expect(throws: RecipeError("kivi: keys=6 must be 1 or 2 or 3 or 4 or 5 or 8", suggestion: "keys=5")) {
            try KIVICodec(keyBits: 6, valueBits: 2)
        }
        #expect(throws: RecipeError("kivi: values=16 must be 1 or 2 or 3 or 4 or 5 or 8", suggestion: "values=8")) {
            try KIVICodec(keyBits: 2, valueBits: 16)
        }
        #expect(throws: RecipeError.self) { try KIVICodec(keyBits: 2, valueBits: 2, group: 31) }
        #expect(throws: RecipeError.self) { try KIVICodec(keyBits: 2, valueBits: 2, residual: 33) }
        #expect(throws: RecipeError.self) { try KIVICodec(keyBits: 2, valueBits: 2, residual: -32) }
    }
}

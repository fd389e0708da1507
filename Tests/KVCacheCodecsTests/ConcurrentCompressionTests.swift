import TestSupport
import Testing
import ThinkCompress

/// Compressing on several processors.
@Suite struct ConcurrentCompressionTests {
    private static let recipe = "think(keys=0.4,restore=mean)+kivi(bits=2,residual=32)"

    @Test("compresses to equal bytes every time", arguments: ["f16", recipe, "kivi(keys=4,values=2,group=64)"])
    func compressesAlike(text: String) async throws {
        let cache = try TestCache().makeQuickly()
        let recipe = try Recipe(text)
        let first = try await CompressedCache(compressing: cache, recipe: recipe)
        for _ in 0..<3 {
            let other = try await CompressedCache(compressing: cache, recipe: recipe)
            #expect(CacheContent(other).difference(from: CacheContent(first)) == nil)
        }
    }

    @Test("reports the progress of compressing, ascending up to 1")
    func reportsCompressing() async throws {
        let fractions = Recorder<Double>()
        _ = try await CompressedCache(
            compressing: TestCache().makeQuickly(),
            recipe: Recipe(Self.recipe),
            progress: ProgressHandler { fractions.add($0) }
        )
        #expect(fractions.values.last == 1)
        #expect(fractions.values == fractions.values.sorted())
        #expect(fractions.values.count == 6)
    }

    @Test("throws a cancellation error from compressing")
    func cancelsCompressing() async throws {
        let cache = try TestCache().makeQuickly()
        let task = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await CompressedCache(compressing: cache, recipe: Recipe(Self.recipe))
        }
        await #expect(throws: CancellationError.self) { try await task.value }
    }

    @Test("names the first of several faults of a cache, whatever is found first", arguments: 0..<5)
    func firstFault(repetition: Int) async throws {
        var numbers = [Float](repeating: 1, count: 2 * 64 * 8)
        numbers[64 * 8 + 40 * 8 + 3] = .infinity
        let faulty = KVTensor(numbers, elementType: .float16, heads: 2, headDimension: 8)
        let layers = [KVCacheLayer](repeating: KVCacheLayer(keys: faulty, values: faulty), count: 6)
        let error = await #expect(throws: CodecError.self) {
            try await CompressedCache(compressing: KVCache(layers: layers), recipe: Recipe("kivi(bits=2)"))
        }
        #expect(error?.layer == 0)
        #expect(error?.head == 1)
    }
}

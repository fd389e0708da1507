import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Reading dumps as caches: Formats/dump.md.
@Suite struct CacheDumpTests {
    static func makeCache(type: ElementType = .float16, tokens: Int = 5) throws -> KVCache {
        var model = TestCache()
        model.headDimension = 6
        model.tokens = tokens
        model.window = min(4, tokens)
        model.elementType = type
        let cache = try model.makeQuickly()
        return try KVCache(
            layers: cache.layers.map {
                KVCacheLayer(
                    keys: $0.keys,
                    values: $0.values,
                    queries: $0.queries,
                    profile: LayerProfile(meanSquaredQueries: (0..<12).map { Float($0) / 4 })
                )
            },
            tokens: cache.tokens,
            positions: (0..<Int32(tokens)).map { $0 - 3 },
            metadata: cache.metadata
        )
    }

    private static func read(_ builder: SafetensorsBuilder) throws -> KVCache {
        try CacheDump.read(SafetensorsFile(SharedBytes(builder.file)))
    }

    @Test("a dump is read with all that it has", arguments: ElementType.allCases, [1, 5])
    func readsEverything(type: ElementType, tokens: Int) throws {
        let cache = try Self.makeCache(type: type, tokens: tokens)
        let read = try Self.read(SafetensorsBuilder(cache))
        #expect(read.geometry == cache.geometry)
        #expect(read.elementType == type)
        #expect(read.tokenCount == tokens)
        #expect(read.tokens == cache.tokens)
        #expect(read.positions == cache.positions)
        #expect(read.metadata == cache.metadata)
        for (ours, theirs) in zip(cache.layers, read.layers) {
            #expect(theirs.keys.packedBytes == ours.keys.packedBytes)
            #expect(theirs.values.packedBytes == ours.values.packedBytes)
            #expect(theirs.queries?.packedBytes == ours.queries?.packedBytes)
            #expect(theirs.profile == ours.profile)
        }
    }

    @Test("a dump of keys and values alone is a cache")
    func bareDump() throws {
        let cache = try Self.makeCache()
        var builder = SafetensorsBuilder(cache)
        builder.tensors.removeAll { !$0.name.hasSuffix("keys") && !$0.name.hasSuffix("values") }
        builder.metadata = [:]
        let read = try Self.read(builder)
        #expect(read.geometry.layers[0].queryHeads == 0)
        #expect(read.layers.allSatisfy { $0.queries == nil && $0.profile == nil })
        #expect(read.tokens == nil)
        #expect(read.positions == nil)
        #expect(read.metadata == [:])
    }

    @Test("the leading 1 may be missing")
    func withoutLeadingOne() throws {
        let cache = try Self.makeCache()
        var builder = SafetensorsBuilder(cache)
        for index in builder.tensors.indices where builder.tensors[index].shape.count == 4 {
            builder.tensors[index].shape.removeFirst()
        }
        let read = try Self.read(builder)
        #expect(read.geometry == cache.geometry)
        #expect(read.layers[1].values.packedBytes == cache.layers[1].values.packedBytes)
    }

    @Test("tensors at odd bytes give the same numbers and the same snapshot")
    func unalignedDump() async throws {
        let cache = try Self.makeCache(type: .float32, tokens: 40)
        var builder = SafetensorsBuilder(cache)
        builder.tensors.insert(.init("answer", "U8", [3], bytes: [1, 2, 3]), at: 0)
        let read = try Self.read(builder)
        #expect(read.layers[0].keys.numbers == cache.layers[0].keys.numbers)
        #expect(read.layers[1].profile == cache.layers[1].profile)
        #expect(read.tokens == cache.tokens)
        let recipe = try Recipe("think(keys=0.5)+kivi(bits=2,residual=0)")
        let ours = try await CompressedCache(compressing: cache, recipe: recipe)
        let theirs = try await CompressedCache(compressing: read, recipe: recipe)
        #expect(CacheContent(theirs).difference(from: CacheContent(ours)) == nil)
    }

    @Test("ten layers and more are in the order of their numbers")
    func manyLayers() throws {
        var model = TestCache()
        model.layers = 12
        model.headDimension = 4
        model.tokens = 3
        model.window = 0
        let cache = try model.makeQuickly()
        let read = try Self.read(SafetensorsBuilder(cache))
        #expect(read.layers.map(\.keys.packedBytes) == cache.layers.map(\.keys.packedBytes))
    }

    @Test("other tensors are ignored, whatever they are")
    func otherTensors() throws {
        var builder = SafetensorsBuilder(try Self.makeCache())
        builder.tensors.append(.init("layers.7.attention", "F16", [2], bytes: [1, 2, 3, 4]))
        builder.tensors.append(.init("answer", "I64", [1], bytes: [UInt8](repeating: 0, count: 8)))
        builder.tensors.append(.init("layers.x.keys", "U8", [1], bytes: [0]))
        #expect(try Self.read(builder).geometry.layers.count == 2)
    }

    @Test("profiles may come from a file of their own")
    func profileFile() throws {
        let folder = try TemporaryFolder()
        let cache = try Self.makeCache()
        var dump = SafetensorsBuilder(cache)
        dump.tensors.removeAll { $0.name.hasSuffix("q2") || $0.name.hasSuffix("queries") }
        try dump.write(to: folder.file("dump"))
        var profiles = SafetensorsBuilder()
        for layer in 0..<2 {
            profiles.tensors.append(.init("layers.\(layer).q2", [2, 6], floats: (0..<12).map { Float($0 + layer) }))
        }
        try profiles.write(to: folder.file("profile"))
        let plain = try CacheDump.read(path: folder.file("dump"))
        let file = try SafetensorsFile(MappedFile.bytes(path: folder.file("profile")))
        let read = try plain.withProfile(
            try ModelProfile.read(file, metadata: plain.metadata, geometry: plain.geometry)
        )
        #expect(read.layers[1].profile?.meanSquaredQueries == (1...12).map(Float.init))
        #expect(read.layers[0].queries == nil)
        #expect(try CacheDump.read(path: folder.file("dump")).layers[0].profile == nil)
    }

    // MARK: - Dumps that aren't caches

    struct Fault: Sendable, CustomTestStringConvertible {
        let name: String
        let tensor: String?
        let message: String
        let change: @Sendable (inout SafetensorsBuilder) -> Void
        var testDescription: String { name }
    }

    static let faults = [
        Fault(name: "no tensors", tensor: nil, message: "no cache dump") { $0.tensors = [] },
        Fault(name: "no first layer", tensor: nil, message: "'layers.0.keys'") {
            $0 = $0.removing("layers.0.keys").removing("layers.0.values")
        },
        Fault(name: "values missing", tensor: "layers.0.values", message: "missing") {
            $0 = $0.removing("layers.0.values")
        },
        Fault(name: "last values missing", tensor: "layers.1.values", message: "missing") {
            $0 = $0.removing("layers.1.values")
        },
        Fault(name: "a layer skipped", tensor: "layers.2.keys", message: "1 layers only") {
            for index in $0.tensors.indices {
                $0.tensors[index].name = $0.tensors[index].name.replacing("layers.1", with: "layers.2")
            }
        },
        Fault(name: "keys missing", tensor: "layers.1.q2", message: "1 layers only") {
            $0 = $0.removing("layers.1.keys")
        },
        Fault(name: "two sequences", tensor: "layers.0.keys", message: "one sequence at a time") {
            $0["layers.0.keys"].shape = [2, 1, 5, 6]
        },
        Fault(name: "two dimensions", tensor: "layers.1.values", message: "[1, heads, tokens, head dimension]") {
            $0["layers.1.values"].shape = [10, 6]
        },
        Fault(name: "five dimensions", tensor: "layers.1.keys", message: "[1, heads, tokens, head dimension]") {
            $0["layers.1.keys"].shape = [1, 1, 2, 5, 6]
        },
        Fault(name: "no heads", tensor: "layers.0.keys", message: "empty") {
            $0["layers.0.keys"].shape = [1, 0, 5, 6]
            $0["layers.0.keys"].bytes = []
        },
        Fault(name: "a head dimension of 0", tensor: "layers.0.keys", message: "empty") {
            $0["layers.0.keys"].shape = [1, 2, 5, 0]
            $0["layers.0.keys"].bytes = []
        },
        Fault(name: "keys of another type", tensor: "layers.0.keys", message: "F64") {
            $0["layers.0.keys"].elementType = "F64"
            $0["layers.0.keys"].bytes = [UInt8](repeating: 0, count: 480)
        },
        Fault(name: "values of an unknown type", tensor: "layers.0.values", message: "F8_E4M3") {
            $0["layers.0.values"].elementType = "F8_E4M3"
            $0["layers.0.values"].shape[3] *= 2
        },
        Fault(name: "queries of integers", tensor: "layers.1.queries", message: "I16") {
            $0["layers.1.queries"].elementType = "I16"
        },
        Fault(name: "tokens of another type", tensor: "tokens", message: "must be I32 [tokens]") {
            $0["tokens"] = .init("tokens", [5], floats: [1, 2, 3, 4, 5])
        },
        Fault(name: "tokens of 64 bits", tensor: "tokens", message: "must be I32 [tokens]") {
            $0["tokens"] = .init("tokens", "I64", [5], bytes: [UInt8](repeating: 0, count: 40))
        },
        Fault(name: "positions of two dimensions", tensor: "positions", message: "must be I32 [tokens]") {
            $0["positions"].shape = [1, 5]
        },
        Fault(name: "a profile of another shape", tensor: "layers.0.q2", message: "must be F32 [2, 6]") {
            $0["layers.0.q2"].shape = [6, 2]
        },
        Fault(name: "a profile of one dimension", tensor: "layers.0.q2", message: "must be F32 [2, 6]") {
            $0["layers.0.q2"].shape = [12]
        },
        Fault(name: "a profile of another type", tensor: "layers.1.q2", message: "must be F32 [2, 6]") {
            $0["layers.1.q2"].elementType = "I32"
        },
    ]

    @Test("a dump that can't be read as a cache is refused by the tensor's name", arguments: faults)
    func refusesDump(_ fault: Fault) throws {
        var builder = SafetensorsBuilder(try Self.makeCache())
        fault.change(&builder)
        let error = #expect(throws: EngineFormatError.self) { try Self.read(builder) }
        #expect(error?.code == .unsupported)
        #expect(error?.tensor == fault.tensor)
        #expect(error?.description.contains(fault.message) == true, "\(error?.description ?? "")")
    }

    struct Misfit: Sendable, CustomTestStringConvertible {
        let name: String
        let code: KVCacheError.Code
        let layer: Int?
        let change: @Sendable (inout SafetensorsBuilder) -> Void
        var testDescription: String { name }
    }

    static let misfits = [
        Misfit(name: "no tokens", code: .emptyCache, layer: nil) {
            for name in ["layers.0.keys", "layers.0.values"] {
                $0[name].shape = [1, 2, 0, 6]
                $0[name].bytes = []
            }
        },
        Misfit(name: "fewer values than keys", code: .raggedLayers, layer: 0) {
            $0["layers.0.values"].shape = [1, 1, 5, 6]
            $0["layers.0.values"].bytes.removeLast(60)
        },
        Misfit(name: "heads and tokens exchanged", code: .raggedLayers, layer: 1) {
            $0["layers.1.values"].shape = [1, 5, 2, 6]
        },
        Misfit(name: "a layer of another type", code: .raggedLayers, layer: 1) {
            $0["layers.1.keys"].elementType = "BF16"
            $0["layers.1.values"].elementType = "BF16"
        },
        Misfit(name: "query heads that don't share evenly", code: .invalidGeometry, layer: 0) {
            for layer in 0..<2 {
                $0["layers.\(layer).queries"].shape = [1, 3, 4, 6]
                $0["layers.\(layer).queries"].bytes.removeLast(48)
            }
        },
        Misfit(name: "queries of another head dimension", code: .invalidQueries, layer: 0) {
            $0["layers.0.queries"].shape = [1, 4, 3, 8]
        },
        Misfit(name: "more queries than tokens", code: .invalidQueries, layer: 0) {
            $0["layers.0.queries"].shape = [1, 4, 6, 6]
            $0["layers.0.queries"].bytes += [UInt8](repeating: 0, count: 96)
        },
        Misfit(name: "queries in one layer only", code: .invalidQueries, layer: 1) {
            $0 = $0.removing("layers.1.queries")
        },
        Misfit(name: "a profile in one layer only", code: .invalidProfile, layer: 1) {
            $0 = $0.removing("layers.1.q2")
        },
        Misfit(name: "a profile with a negative number", code: .invalidProfile, layer: 1) {
            $0["layers.1.q2"].bytes[3] = 0xBF
        },
        Misfit(name: "fewer token ids than tokens", code: .invalidTokens, layer: 0) {
            $0["tokens"] = .init("tokens", numbers: [1, 2, 3, 4])
        },
        Misfit(name: "more positions than tokens", code: .invalidTokens, layer: nil) {
            $0["positions"] = .init("positions", numbers: [0, 1, 2, 3, 4, 5])
        },
        Misfit(name: "a head dimension beyond the limit", code: .invalidGeometry, layer: 0) {
            for layer in 0..<2 {
                for part in ["keys", "values"] {
                    $0["layers.\(layer).\(part)"].shape = [1, 1, 1, 1025]
                    $0["layers.\(layer).\(part)"].bytes = [UInt8](repeating: 0, count: 2050)
                }
                $0 = $0.removing("layers.\(layer).queries").removing("layers.\(layer).q2")
            }
        },
    ]

    @Test("tensors that don't belong together are refused by the layer", arguments: misfits)
    func refusesMisfits(_ misfit: Misfit) throws {
        var builder = SafetensorsBuilder(try Self.makeCache())
        misfit.change(&builder)
        let error = #expect(throws: KVCacheError.self) { try Self.read(builder) }
        #expect(error?.code == misfit.code)
        #expect(error?.layer == misfit.layer)
    }

    @Test("layers have shapes of their own: fewer tokens are the last ones")
    func ownShapes() throws {
        var builder = SafetensorsBuilder(try Self.makeCache())
        for part in ["keys", "values"] {
            builder["layers.1.\(part)"].shape = [1, 2, 4, part == "keys" ? 6 : 5]
            builder["layers.1.\(part)"].bytes.removeLast(part == "keys" ? 24 : 40)
        }
        let cache = try Self.read(builder)
        #expect(cache.tokenCount == 5)
        #expect(cache.layers.map(\.held) == [.all, .last])
        #expect(cache.layers.map(\.values.headDimension) == [6, 5])
        #expect(cache.valueCount == 2 * 5 * 12 + 2 * 4 * 11)
    }

    @Test("files that can't be opened are refused by their path")
    func missingFile() throws {
        let folder = try TemporaryFolder()
        let error = #expect(throws: FileError.self) { try CacheDump.read(path: folder.file("none")) }
        #expect(error?.code == .notFound)
        #expect(error?.path == folder.file("none"))
    }
}

import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Writing dumps layer by layer.
@Suite struct CacheDumpWriterTests {
    private static func write(
        _ cache: KVCache,
        to path: String,
        profile: [[Float]]? = nil,
        layers: [KVCacheLayer]? = nil
    ) throws {
        var contents = CacheDumpWriter.Contents(tokenCount: cache.tokenCount)
        contents.tokens = cache.tokens
        contents.positions = cache.positions
        contents.profile = profile
        contents.metadata = cache.metadata
        var writer = try CacheDumpWriter(
            path: path,
            replacingExisting: false,
            layers: cache.dumpLayers(),
            elementType: cache.elementType,
            contents: contents
        )
        for (index, layer) in (layers ?? cache.layers).enumerated() { try writer.write(layer, index: index) }
        try writer.commit()
    }

    @Test("a dump that is written is read again", arguments: ElementType.allCases, [1, 2, 5])
    func comesBack(type: ElementType, tokens: Int) throws {
        let folder = try TemporaryFolder()
        let cache = try CacheDumpTests.makeCache(type: type, tokens: tokens)
        let profile = cache.layers.map { $0.profile?.meanSquaredQueries ?? [] }
        try Self.write(cache, to: folder.file("a"), profile: profile)
        let read = try CacheDump.read(path: folder.file("a"))
        #expect(read.tokens == cache.tokens)
        #expect(read.positions == cache.positions)
        #expect(read.metadata == cache.metadata)
        #expect(read.elementType == type)
        #expect(read.layers.map(\.keys.packedBytes) == cache.layers.map(\.keys.packedBytes))
        #expect(read.layers.map(\.values.packedBytes) == cache.layers.map(\.values.packedBytes))
        #expect(read.layers.map(\.profile?.meanSquaredQueries) == profile)
        #expect(read.layers.allSatisfy { $0.queries == nil })
    }

    @Test("tensors lie in the order that the format promises, with a leading 1")
    func orderOfTensors() throws {
        let folder = try TemporaryFolder()
        let cache = try CacheDumpTests.makeCache()
        try Self.write(cache, to: folder.file("a"), profile: cache.layers.map { $0.profile?.meanSquaredQueries ?? [] })
        let file = try MappedFile.bytes(path: folder.file("a"))
        let tensors = try SafetensorsFile(file).tensors
        func place(_ bytes: SharedBytes) -> Int {
            file.withUnsafeBytes { whole in
                bytes.withUnsafeBytes { part in
                    guard let base = whole.baseAddress, let start = part.baseAddress else { return -1 }
                    return start - base
                }
            }
        }
        let order = tensors.mapValues { place($0.bytes) }.sorted { $0.value < $1.value }.map(\.key)
        #expect(
            order == [
                "positions", "tokens", "layers.0.q2", "layers.1.q2", "layers.0.keys", "layers.0.values",
                "layers.1.keys",
                "layers.1.values",
            ]
        )
        #expect(place(tensors["positions"]?.bytes ?? file) % 8 == 0)
        #expect(tensors["layers.1.keys"]?.shape == [1, 2, 5, 6])
        #expect(tensors["layers.1.q2"]?.shape == [2, 6])
    }

    @Test("tensors whose heads lie apart are written without gaps")
    func stridedTensors() throws {
        let folder = try TemporaryFolder()
        let cache = try CacheDumpTests.makeCache(tokens: 5)
        let short = try KVCache(layers: cache.layers(tokens: 1..<4), metadata: cache.metadata)
        try Self.write(short, to: folder.file("a"))
        let read = try CacheDump.read(path: folder.file("a"))
        #expect(read.tokenCount == 3)
        #expect(read.layers.map(\.keys.packedBytes) == short.layers.map(\.keys.packedBytes))
        #expect(read.layers.map(\.values.packedBytes) == short.layers.map(\.values.packedBytes))
    }

    @Test("a dump says how many tokens the cache has where no layer has rows of all of them")
    func tokenCount() throws {
        let folder = try TemporaryFolder()
        let whole = try CacheDumpTests.makeCache().layers[0]
        let rows = whole.keys.tokens
        let lists = (0..<whole.keys.heads).map { head in (0..<UInt32(rows)).map { $0 * 3 + UInt32(head) } }
        let state = LayerState(name: "ssm", bytes: SharedBytes([1, 2]))
        let layers: [(String, KVCacheLayer)] = [
            ("last", KVCacheLayer(keys: whole.keys, values: whole.values, held: .last)),
            ("listed", KVCacheLayer(keys: whole.keys, values: whole.values, held: .listed(lists))),
            ("state", KVCacheLayer(elementType: whole.keys.elementType, state: [state])),
        ]
        for (name, layer) in layers {
            let cache = try KVCache(layers: [layer], tokenCount: 1000)
            try Self.write(cache, to: folder.file(name))
            let read = try CacheDump.read(path: folder.file(name))
            #expect(read.tokenCount == 1000, "\(name)")
            #expect(read.layers[0].held == layer.held, "\(name)")
            #expect(read.layers[0].state == layer.state, "\(name)")
            #expect(read.layers[0].keys.packedBytes == layer.keys.packedBytes, "\(name)")
        }
        try Self.write(try KVCache(layers: [whole]), to: folder.file("whole"))
        #expect(
            !(try SafetensorsFile(MappedFile.bytes(path: folder.file("whole")))).tensors.names.contains("token_count")
        )
    }

    @Test("without a commit there is no file")
    func withoutCommit() throws {
        let folder = try TemporaryFolder()
        let cache = try CacheDumpTests.makeCache()
        func begin() throws {
            var writer = try CacheDumpWriter(
                path: folder.file("a"),
                replacingExisting: false,
                layers: cache.dumpLayers(),
                elementType: cache.elementType,
                contents: CacheDumpWriter.Contents(tokenCount: cache.tokenCount)
            )
            try writer.write(cache.layers[0], index: 0)
        }
        try begin()
        #expect(folder.content == [])
    }
}

import TestSupport
import Testing
import ThinkCompress

/// What the Python package kvpress keeps of the same cache: Tools/make-selection-fixtures.
@Suite struct KVPressTests {
    private static let path = ProjectFiles.fixture("selection.safetensors")

    /// The rows of a tensor `[kvHeads, count]`.
    private static func lists(_ name: String) throws -> [[UInt32]] {
        let file = try SafetensorsFile(MappedFile.bytes(path: path))
        let tensor = try #require(file.tensors[name])
        try #require(tensor.shape.count == 2)
        let count = tensor.shape[1]
        return (0..<tensor.shape[0]).map { head in
            (0..<count).map { place in
                (0..<4).reduce(0) {
                    $0 | UInt32(tensor.bytes.byte(at: (head * count + place) * 4 + $1)) << UInt32(8 * $1)
                }
            }
        }
    }

    @Test(
        "keeps the tokens, and after them the channels, that kvpress keeps",
        arguments: [
            "streaming(recent=96)", "snapkv(keep=0.5)", "snapkv(keep=0.25)", "snapkv(keep=0.75,observe=16,kernel=5)",
            "keydiff(keep=0.5,recent=0,kernel=1)", "keydiff(keep=0.25,recent=0,kernel=1)",
            "snapkv(keep=0.5)+think(keys=0.4)",
            "keydiff(keep=0.25,recent=0,kernel=1)+think(keys=0.5)",
        ]
    )
    func agrees(recipe: String) async throws {
        let cache = try CacheDump.read(path: Self.path)
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe(recipe))
        #expect(compressed.layers.count == 2)
        for (index, layer) in compressed.layers.enumerated() {
            #expect(layer.held == .listed(try Self.lists("\(recipe).\(index)")))
            guard recipe.contains("think") else { continue }
            let channels = layer.plan.heads.map { $0.keyRuns.flatMap(\.channels).map(UInt32.init) }
            #expect(channels == (try Self.lists("\(recipe).\(index).channels")))
        }
    }
}

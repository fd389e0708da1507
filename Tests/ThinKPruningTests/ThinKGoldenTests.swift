import TestSupport
import Testing
import ThinkCompress

/// Keep masks against what the paper's own code chose.
@Suite struct ThinKGoldenTests {
    @Test("chooses the paper's channels", arguments: [("reference-a", 2), ("reference-b", 1)], ["0.3", "0.4", "0.5"])
    func choosesReferenceChannels(file: (name: String, layers: Int), ratio: String) async throws {
        let cache = try CacheDump.read(path: ProjectFiles.fixture("\(file.name).safetensors"))
        let expected = try SafetensorsFile(
            MappedFile.bytes(path: ProjectFiles.fixture("\(file.name).expected.safetensors"))
        )
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("think(keys=\(ratio))"))
        #expect(compressed.layers.count == file.layers)
        for (index, layer) in compressed.layers.enumerated() {
            let keep = try #require(expected.tensors["layers.\(index).think\(ratio).keep"])
            let ours = layer.plan.heads.flatMap { $0.keepMask }
            #expect(ours == keep.bytes.array.map { $0 != 0 })
        }
    }
}

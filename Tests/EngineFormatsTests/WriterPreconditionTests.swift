import TestSupport
import Testing
import ThinkCompress

/// A dump that is committed is whole: what doesn't fit or is missing is a mistake of the program.
@Suite struct WriterPreconditionTests {
    @Test("a layer of another shape or a missing layer ends the program", arguments: [0, 1, 2])
    func incompleteDump(fault: Int) async throws {
        await #expect(processExitsWith: .failure) { [fault] in
            let folder = try TemporaryFolder()
            var model = TestCache()
            (model.layers, model.tokens, model.headDimension) = (2, 4, 8)
            let cache = try model.make()
            var writer = try CacheDumpWriter(
                path: folder.file("dump"),
                replacingExisting: false,
                layers: (fault == 0 ? try cache.prefix(3) : cache).dumpLayers(),
                elementType: .float16,
                contents: CacheDumpWriter.Contents(tokenCount: cache.tokenCount)
            )
            try writer.write(cache.layers[0], index: 0)
            if fault == 1 { try writer.write(cache.layers[0], index: 0) }
            try writer.commit()
        }
    }
}

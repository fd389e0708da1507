import TestSupport
import Testing
import ThinkCompress

/// A dump that is committed is whole: what doesn't fit or is missing is a mistake of the program.
@Suite struct WriterPreconditionTests {
    enum Fault: String, CaseIterable {
        case missingLayer = "a layer was not written"
        case repeatedLayer = "every layer is written once"
        case unknownLayer = "the dump has no such layer"
        case otherRows = "the dump has no such rows"
        case otherType = "a layer must have the dump's shape and type"
    }

    @Test("a layer of another shape or a missing layer ends the program", arguments: Fault.allCases)
    func incompleteDump(fault: Fault) async throws {
        let end = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            [name = fault.rawValue as String] in
            let fault = try #require(Fault(rawValue: name))
            let folder = try TemporaryFolder()
            var model = TestCache()
            (model.layers, model.tokens, model.headDimension, model.window) = (2, 4, 8, 0)
            let cache = try model.make()
            var writer = try CacheDumpWriter(
                path: folder.file("dump"),
                replacingExisting: false,
                layers: (fault == .otherRows ? try cache.prefix(3) : cache).dumpLayers(),
                elementType: fault == .otherType ? .bfloat16 : .float16,
                contents: CacheDumpWriter.Contents(tokenCount: cache.tokenCount)
            )
            try writer.write(cache.layers[0], index: fault == .unknownLayer ? 2 : 0)
            if fault == .repeatedLayer { try writer.write(cache.layers[0], index: 0) }
            try writer.commit()
        }
        #expect(ProgramEnd.says(fault.rawValue, end?.standardErrorContent))
    }
}

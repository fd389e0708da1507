import Foundation
import TestSupport
import Testing
import ThinkCompress

/// The example in Swift of Library.md; Tools/CLibrary/test runs the one in C.
@Suite struct LibraryPageTests {
    private let folder: TemporaryFolder
    private var path: String { folder.file("prompt.tkv") }

    init() throws { folder = try TemporaryFolder() }

    func first(keys: KVTensor, values: KVTensor) async throws {
        let cache = try KVCache(layers: [KVCacheLayer(keys: keys, values: values)])
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("kivi(bits=4)"))
        try await SnapshotWriter().write(compressed, to: path)
    }

    @Test("the page's example writes a snapshot, and the page has it word for word")
    func example() async throws {
        let layer = try TestCache.small().layers[0]
        try await first(keys: layer.keys, values: layer.values)
        #expect(try SnapshotReader(path: path).header.tokenCount == 300)
        let page = try String(contentsOf: ProjectFiles.root.appending(path: "Library.md"), encoding: .utf8)
        let code = try #require(page.components(separatedBy: "```swift\n").dropFirst().first)
        let example = try #require(code.components(separatedBy: "```").first)
        #expect(example.hasPrefix("    func first"))
        #expect(try String(contentsOfFile: #filePath, encoding: .utf8).contains(example))
    }
}

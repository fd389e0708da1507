import Foundation
import LlamaDecoder
import TestSupport
import Testing
import ThinkCompress

/// A copy of a model's directory that a test may damage.
struct ModelFolderCopy {
    private let folder: TemporaryFolder
    var path: String { folder.path }

    init(of name: String) throws {
        folder = try TemporaryFolder()
        let source = ProjectFiles.fixture("models/\(name)")
        for file in try FileManager.default.contentsOfDirectory(atPath: source) {
            try FileManager.default.copyItem(atPath: "\(source)/\(file)", toPath: folder.file(file))
        }
    }

    func file(_ name: String) -> String { folder.file(name) }

    func remove(_ name: String) throws { try FileManager.default.removeItem(atPath: file(name)) }

    func write(_ text: String, to name: String) throws {
        try Data(text.utf8).write(to: URL(filePath: file(name)))
    }

    /// Changes the JSON object in a file.
    func change(_ name: String, _ body: (inout [String: Any]) -> Void) throws {
        let url = URL(filePath: file(name))
        let data = try Data(contentsOf: url)
        var object = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
        body(&object)
        try JSONSerialization.data(withJSONObject: object).write(to: url)
    }

    /// Cuts a file to its first bytes.
    func truncate(_ name: String, to count: Int) throws {
        let url = URL(filePath: file(name))
        try Data(contentsOf: url).prefix(count).write(to: url)
    }

    /// What opening the model says.
    func openingError() -> ModelError? {
        do {
            _ = try LlamaModel(path: path)
            return nil
        } catch let error as ModelError {
            return error
        } catch {
            return ModelError(.damaged, "another kind of error: \(error)")
        }
    }
}

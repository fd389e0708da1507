import Foundation
import LlamaDecoder
import TestSupport
import Testing
import ThinkCompress

/// Every row of the table in Formats/gguf.md, tried on the loader.
@Suite struct GGUFTableTests {
    struct Row: Sendable, CustomTestStringConvertible {
        let key: String
        let architecture: String
        let decision: String
        /// Values in JSON.
        let example: String
        let refused: String

        var testDescription: String { "\(key) (\(architecture))" }
    }

    /// The rows, once for each architecture that they are of.
    static let rows = FormatTable.rows(of: "gguf.md").flatMap { row in
        let all = ["llama", "qwen2", "qwen3", "gemma3"]
        return (row.families == "all" ? all : row.families.components(separatedBy: ", ")).map { architecture in
            Row(
                key: row.field.replacing("{arch}", with: architecture),
                architecture: architecture,
                decision: row.decision,
                example: row.example,
                refused: row.refused
            )
        }
    }

    /// The value that a cell means.
    private static func value(_ text: String) throws -> GGUFBuilder.Value {
        let json = try JSONSerialization.jsonObject(with: Data(text.utf8), options: .fragmentsAllowed)
        switch json {
        case let text as String: return .string(text)
        case let list as [Int]: return .int32s(list.map(Int32.init))
        default: break
        }
        if let flag = Bool(text) { return .bool(flag) }
        if let number = Int(text) { return number < 0 ? .int32(Int32(number)) : .uint32(UInt32(number)) }
        return .float32(try #require(Float(text)))
    }

    private static func open(_ row: Row, _ text: String?) throws -> (ModelConfiguration?, ModelError?) {
        let folder = try TemporaryFolder()
        var builder = GGUFBuilder.model(row.architecture)
        if let text { builder[row.key] = try value(text) }
        try builder.write(to: folder.file("model.gguf"))
        do {
            return (try LlamaModel(path: folder.file("model.gguf")).configuration, nil)
        } catch let error as ModelError {
            return (nil, error)
        }
    }

    @Test func everyKeyIsDecided() {
        #expect(Self.rows.count > 100)
        #expect(Set(Self.rows.map(\.decision)) == ["used", "ignored", "refused"])
    }

    @Test(arguments: rows) func theLoaderDoesWhatTheTableSays(row: Row) throws {
        let usual = try #require(try Self.open(row, nil).0)
        if row.decision != "refused" {
            let (configuration, error) = try Self.open(row, row.example)
            switch row.decision {
            case "ignored": #expect(error == nil && configuration == usual, "\(error?.description ?? "")")
            default:
                // Sizes can't change without the weights.
                let contradicts = error?.code == .damaged && error?.message.contains("tensor '") == true
                #expect(contradicts || configuration != nil && configuration != usual, "\(error?.description ?? "")")
            }
        }
        if !row.refused.isEmpty {
            let (_, error) = try Self.open(row, row.refused)
            #expect(error?.message.contains(row.key) == true, "\(error?.description ?? "it was read")")
            #expect(error?.path?.hasSuffix("/model.gguf") == true)
        }
    }
}

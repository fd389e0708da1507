import Foundation
import LlamaDecoder
import ThinkCompress

/// A model and a text that is long enough for all cases.
struct ServedModel {
    let model: LlamaModel
    let tokens: [Int32]

    /// - Parameter tokensPath: a file of token ids, as decimal numbers.
    init(path: String, tokensPath: String) throws {
        model = try LlamaModel(path: path)
        tokens = try String(contentsOfFile: tokensPath, encoding: .utf8).split(whereSeparator: \.isWhitespace).map {
            guard let token = Int32($0) else { throw ServingError("\(tokensPath): \($0) is not a token id") }
            return token
        }
    }

    /// Tokens from `first` on.
    func tokens(_ count: Int, from first: Int = 0) throws -> [Int32] {
        guard first + count <= tokens.count else { throw ServingError("the text has only \(tokens.count) tokens") }
        return Array(tokens[first..<first + count])
    }
}

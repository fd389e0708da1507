import Foundation
import TestSupport

/// What `inspect` prints, as far as it is in Formats/json.md.
struct Inspection: Decodable {
    /// All keys, where everything is known.
    static let keys: Set = [
        "file", "formatVersion", "metadata", "recipe", "elementType", "tokens", "blockTokens", "windowTokens",
        "blockLength", "residualWindow", "layers", "queryHeads", "kvHeads", "headDim", "layerShapes", "keptKeyChannels",
        "keptValueChannels", "codeBits", "fileBytes", "payloadBytes", "float16Bytes", "bitsPerValue",
        "blockBitsPerValue", "ratio", "quality", "sections",
    ]

    struct Errors: Decodable, Equatable {
        let keyError: Double
        let valueError: Double
        let scoreError: Double?
        let attentionError: Double?
    }

    struct Section: Decodable, Equatable {
        let name: String
        let coding: String
        let offset: Int
        let storedBytes: Int
        let bytes: Int
    }

    let file: String
    let formatVersion: Int
    let metadata: [String: String]
    let recipe: String
    let elementType: String
    let tokens: Int
    let blockTokens: Int
    let windowTokens: Int
    let blockLength: Int
    let residualWindow: Int
    let layers: Int
    let queryHeads: Int?
    let kvHeads: Int
    let headDim: Int
    let keptKeyChannels: [Int]
    let keptValueChannels: [Int]
    let fileBytes: Int
    let payloadBytes: Int
    let float16Bytes: Int
    let bitsPerValue: Double
    let blockBitsPerValue: Double?
    let ratio: Double
    let quality: Errors?
    let sections: [Section]

    /// All tokens, those in blocks, those in the window.
    var tokenCounts: [Int] { [tokens, blockTokens, windowTokens] }

    /// What compression cost, also where layers differ.
    static func quality(_ result: Subprocess.Result) throws -> Errors? {
        struct Report: Decodable {
            let quality: Errors?
        }
        return try JSONDecoder().decode(Report.self, from: Data(result.output.utf8)).quality
    }

    init(_ result: Subprocess.Result) throws {
        self = try JSONDecoder().decode(Inspection.self, from: Data(result.output.utf8))
    }
}

import ArgumentParser
import Foundation
import LlamaDecoder

/// A model to measure, and a text in its tokens, written to a file for all contestants.
struct ModelText {
    let model: String
    let path: String
    /// Bytes of the model.
    let modelByteCount: Int

    /// - Parameters:
    ///   - model: a GGUF file.
    ///   - checkout: the checkout's folder, which has the text.
    ///   - folder: where the file of tokens is written.
    init(model: String, checkout: String, folder: String) throws {
        self.model = model
        path = folder + "/tokens"
        let file = URL(filePath: model).resolvingSymlinksInPath().path
        let attributes = try? FileManager.default.attributesOfItem(atPath: file)
        guard attributes?[.type] as? FileAttributeType == .typeRegular, let size = attributes?[.size] as? Int else {
            throw ValidationError("\(model): is no file; --model takes a GGUF file, which llama.cpp reads too")
        }
        modelByteCount = size
        let text = try String(contentsOfFile: checkout + "/Tools/DemoModel/text/python-manual.txt", encoding: .utf8)
        let tokens = try LlamaModel(path: model).tokens(of: text).prefix(MeasurementPlan.textTokens)
        guard tokens.count == MeasurementPlan.textTokens else {
            throw ValidationError("\(model): has only \(tokens.count) tokens for the text to measure on")
        }
        try tokens.map(String.init).joined(separator: " ").write(toFile: path, atomically: false, encoding: .utf8)
    }
}

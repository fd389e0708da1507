extension ModelConfiguration {
    /// The rotary scaling as text that identifies it, or nil if there is none: Formats/snapshot.md, "METADATA",
    /// `rope.scaling`.
    var rotaryScalingText: String? {
        guard let localRotary, localRotary != rotary else {
            let parameters = rotary.scaling.parameters
            return parameters.isEmpty ? nil : RotaryEmbedding.text(parameters)
        }
        func parameters(_ embedding: RotaryEmbedding) -> String {
            var parameters = embedding.scaling.parameters
            if parameters.isEmpty { parameters["rope_type"] = "\"default\"" }
            parameters["rope_theta"] = "\(embedding.base)"
            return RotaryEmbedding.text(parameters)
        }
        return RotaryEmbedding.text([
            "full_attention": parameters(rotary), "sliding_attention": parameters(localRotary),
        ])
    }
}

extension RotaryEmbedding {
    /// An object in JSON, of values in JSON, in the keys' order.
    fileprivate static func text(_ members: [String: String]) -> String {
        let sorted = members.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
        return "{" + sorted.map { "\"\($0.key)\": \($0.value)" }.joined(separator: ", ") + "}"
    }
}

extension RotaryEmbedding.Scaling {
    /// The parameters that say something, in JSON, by their names in `config.json`; empty if there is no scaling.
    ///
    /// Optional ones are left out where what stands there is what would be assumed.
    fileprivate var parameters: [String: String] {
        func text(_ number: Double) -> String { "\(number)" }
        func list(_ numbers: [Double]) -> String { "[" + numbers.map(text).joined(separator: ", ") + "]" }
        switch self {
        case .none:
            return [:]
        case .linear(let factor):
            return ["factor": text(factor), "rope_type": "\"linear\""]
        case .llama3(let factor, let low, let high, let positions):
            return [
                "factor": text(factor), "high_freq_factor": text(high), "low_freq_factor": text(low),
                "original_max_position_embeddings": "\(positions)", "rope_type": "\"llama3\"",
            ]
        case .dynamic(let factor, let positions):
            return [
                "factor": text(factor), "original_max_position_embeddings": "\(positions)",
                "rope_type": "\"dynamic\"",
            ]
        case .yarn(let yarn):
            var parameters = [
                "factor": text(yarn.factor), "original_max_position_embeddings": "\(yarn.originalPositions)",
                "rope_type": "\"yarn\"",
            ]
            if let factor = yarn.attentionFactor { parameters["attention_factor"] = text(factor) }
            if yarn.fastRotations != RotaryEmbedding.YaRN.fastRotations {
                parameters["beta_fast"] = text(yarn.fastRotations)
            }
            if yarn.slowRotations != RotaryEmbedding.YaRN.slowRotations {
                parameters["beta_slow"] = text(yarn.slowRotations)
            }
            for (name, scale) in zip(["mscale", "mscale_all_dim"], yarn.scales) { parameters[name] = text(scale) }
            if !yarn.truncates { parameters["truncate"] = "false" }
            return parameters
        case .longrope(let longrope):
            var parameters = [
                "long_factor": list(longrope.longFactors),
                "original_max_position_embeddings": "\(longrope.originalPositions)",
                "rope_type": "\"longrope\"", "short_factor": list(longrope.shortFactors),
            ]
            if let factor = longrope.attentionFactor {
                parameters["attention_factor"] = text(factor)
            } else {
                parameters["factor"] = text(
                    longrope.factor ?? Double(longrope.maximumPositions) / Double(longrope.originalPositions)
                )
            }
            return parameters
        case .divided(let factors):
            return ["factors": list(factors), "rope_type": "\"default\""]
        }
    }
}

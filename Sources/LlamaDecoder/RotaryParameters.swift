internal import JSONText

/// What `rope_parameters`, or in older files `rope_scaling`, says of the rotary embedding.
struct RotaryParameters: Equatable {
    /// The field that says it, for errors.
    var field = "rope_parameters"
    var base: Double?
    var type: String?
    var factor: Double?
    var lowFrequencyFactor: Double?
    var highFrequencyFactor: Double?
    var originalPositions: Int?

    private static let older = "rope_scaling"
}

extension RotaryParameters {
    /// Reads what a configuration says, in either spelling and beside it.
    ///
    /// - Throws: `JSONError` if two places say different things: `transformers` has changed its mind about which counts.
    init(configuration object: JSONObject) throws(JSONError) {
        // Empty ones say nothing.
        let scaling = try Self.content(object.optional(Self.older))
        let parameters = try Self.content(object.optional(field))
        if let content = parameters ?? scaling {
            self = try RotaryParameters(content, field: parameters == nil ? Self.older : field)
        }
        if let scaling, let parameters {
            var left = self
            var right = try RotaryParameters(scaling, field: field)
            // The older field has never had the base.
            left.base = left.base ?? right.base
            right.base = right.base ?? left.base
            left.type = left.type ?? "default"
            right.type = right.type ?? "default"
            guard left == right else {
                throw parameters.value.fault("contradicts \(Self.older); leave out the one that is wrong")
            }
            self = left
        }
        if let value = object.optional("rope_theta") {
            let outer = try value.double()
            guard base == nil || base == outer else {
                throw value.fault("contradicts the rope_theta of \(field); leave out the one that is wrong")
            }
            base = outer
        }
        let outer = try object.optional("original_max_position_embeddings")?.int()
        let all = try object.optional("max_position_embeddings")?.int()
        originalPositions = outer ?? originalPositions ?? all
    }

    private init(_ object: JSONObject, field: String) throws(JSONError) {
        func double(_ name: String) throws(JSONError) -> Double? { try object.optional(name)?.double() }
        self.field = field
        for member in object.members where member.value.kind == .object {
            throw member.value.fault("parameters of single kinds of layers are not supported", .unsupported)
        }
        base = try double("rope_theta")
        let olderType = try object.optional("type")?.text()
        type = try object.optional("rope_type")?.text()
        type = type ?? olderType
        factor = try double("factor")
        lowFrequencyFactor = try double("low_freq_factor")
        highFrequencyFactor = try double("high_freq_factor")
        originalPositions = try object.optional("original_max_position_embeddings")?.int()
        if let factor = object.optional("partial_rotary_factor") { try Self.checkPartial(factor) }
    }

    private static func content(_ value: JSONValue?) throws(JSONError) -> JSONObject? {
        guard let object = try value?.object(), object.count > 0 else { return nil }
        return object
    }

    static func checkPartial(_ factor: JSONValue) throws(JSONError) {
        let number = try factor.double()
        guard number == 1 else { throw factor.fault("\(number) is not supported; supported is 1", .unsupported) }
    }
}

internal import JSONText

/// What `rope_parameters`, or in older files `rope_scaling`, says of the rotary embedding.
struct RotaryParameters: Equatable {
    /// The field that says it, for errors.
    var field = Self.newer
    /// The field that gives the base beside it, for errors.
    var baseField = "rope_theta"
    var base: Double?
    var type: String?
    var factor: Double?
    var lowFrequencyFactor: Double?
    var highFrequencyFactor: Double?
    var originalPositions: Int?
    /// `max_position_embeddings`.
    var maximumPositions: Int?
    var attentionFactor: Double?
    var betaFast: Double?
    var betaSlow: Double?
    var mscale: Double?
    var mscaleAllDimensions: Double?
    var truncates: Bool?
    var shortFactors: [Double]?
    var longFactors: [Double]?
    /// What the frequency of each pair of channels is divided by; files in JSON have none.
    var pairFactors: [Double]?

    private static let newer = "rope_parameters"
    private static let older = "rope_scaling"
    private static let kinds = ["full_attention", "sliding_attention"]
}

extension RotaryParameters {
    /// Reads what a configuration says of all layers, in either spelling and beside it.
    ///
    /// - Throws: `JSONError` if two places say different things: `transformers` has changed its mind about which counts.
    init(configuration object: JSONObject) throws(JSONError) {
        try self.init(
            object.optional(Self.newer),
            field: Self.newer,
            older: object.optional(Self.older),
            baseField: "rope_theta",
            of: object
        )
        let outer = try object.optional("original_max_position_embeddings")?.int()
        originalPositions = outer ?? originalPositions ?? maximumPositions
    }

    /// Reads what a configuration says of layers with full attention and of those with a sliding window.
    ///
    /// - Throws: as `init(configuration:)`.
    static func ofKinds(
        configuration object: JSONObject
    ) throws(JSONError) -> (full: RotaryParameters, sliding: RotaryParameters) {
        let both = try content(object.optional(newer))
        if let other = both?.members.first(where: { !kinds.contains($0.name.text) }) {
            throw other.value.fault("must be parameters of \(kinds.joined(separator: " or "))")
        }
        func parameters(_ kind: String, older: JSONValue?, baseField: String) throws(JSONError) -> RotaryParameters {
            var parameters = try RotaryParameters(
                both?.optional(kind),
                field: "\(newer).\(kind)",
                older: older,
                baseField: baseField,
                of: object
            )
            parameters.originalPositions = parameters.originalPositions ?? parameters.maximumPositions
            return parameters
        }
        return (
            try parameters(kinds[0], older: object.optional(older), baseField: "rope_theta"),
            try parameters(kinds[1], older: nil, baseField: "rope_local_base_freq")
        )
    }

    /// Reads the parameters of one field, or of the older one, and the base beside them.
    private init(
        _ newer: JSONValue?,
        field: String,
        older: JSONValue?,
        baseField: String,
        of object: JSONObject
    ) throws(JSONError) {
        self.field = field
        // Empty ones say nothing.
        let scaling = try Self.content(older)
        let parameters = try Self.content(newer)
        if let content = parameters ?? scaling {
            self = try RotaryParameters(content, field: parameters == nil ? Self.older : field)
        }
        self.baseField = baseField
        if let scaling, let parameters {
            var left = self
            var right = try RotaryParameters(scaling, field: field)
            right.baseField = baseField
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
        if let value = object.optional(baseField) {
            let outer = try value.double()
            guard base == nil || base == outer else {
                throw value.fault("contradicts the rope_theta of \(self.field); leave out the one that is wrong")
            }
            base = outer
        }
        maximumPositions = try object.optional("max_position_embeddings")?.int()
    }

    init(_ object: JSONObject, field: String) throws(JSONError) {
        func double(_ name: String) throws(JSONError) -> Double? { try object.optional(name)?.double() }
        func doubles(_ name: String) throws(JSONError) -> [Double]? {
            try object.optional(name).map { value throws(JSONError) in
                var numbers: [Double] = []
                // One more than there may be is as wrong as a million more.
                for element in try value.elements().prefix(ModelConfiguration.largestWidth + 1) {
                    numbers.append(try element.double())
                }
                return numbers
            }
        }
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
        attentionFactor = try double("attention_factor")
        betaFast = try double("beta_fast")
        betaSlow = try double("beta_slow")
        mscale = try double("mscale")
        mscaleAllDimensions = try double("mscale_all_dim")
        truncates = try object.optional("truncate")?.bool()
        shortFactors = try doubles("short_factor")
        longFactors = try doubles("long_factor")
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

internal import ByteStorage
internal import JSONText

extension RotaryEmbedding {
    /// The rotary embedding that a cache's metadata tells of, `rope.theta` and `rope.scaling`.
    ///
    /// - Parameters:
    ///   - headDimension: channels of a key, all of which are turned; an even number.
    ///   - path: the cache's file, for errors.
    /// - Throws: `ModelError` if they are not parameters of a rotary embedding, or say that layers have different ones.
    /// - Returns: nil if the metadata has no `rope.theta`.
    public init?(metadata: [String: String], headDimension: Int, path: String) throws(ModelError) {
        let (baseField, field) = ("rope.theta", "rope.scaling")
        guard let text = metadata[baseField] else { return nil }
        guard let base = Double(text), base.isFinite, base >= 1 else {
            throw ModelError(.damaged, path: path, "\(baseField) is '\(text)', must be a number of 1 or more")
        }
        guard headDimension > 0, headDimension.isMultiple(of: 2) else {
            throw ModelError(
                .unsupported,
                path: path,
                "keys of \(headDimension) channels have no rotary pairs, and there is \(baseField); remove it"
            )
        }
        var parameters = RotaryParameters()
        if let scaling = metadata[field] {
            do throws(JSONError) {
                let document = try JSONDocument(SharedBytes([UInt8](scaling.utf8)), remedy: "dump the cache anew")
                let object = try document.root.object()
                if let both = object.optional("sliding_attention") ?? object.optional("full_attention") {
                    throw both.fault("layers of different rotary embeddings are not supported in dumps", .unsupported)
                }
                parameters = try RotaryParameters(object, field: field)
                parameters.pairFactors = try object.optional("factors").map { value throws(JSONError) in
                    var factors: [Double] = []
                    for element in try value.elements().prefix(headDimension) { factors.append(try element.double()) }
                    return factors
                }
            } catch {
                throw ModelError(error, path: path)
            }
        }
        (parameters.base, parameters.baseField) = (base, baseField)
        try self.init(parameters, headDimension: headDimension, path: path)
    }
}

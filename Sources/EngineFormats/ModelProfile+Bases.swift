internal import ByteStorage
internal import KVCacheModel

// The bases of a profile: Formats/profile.md, "Bases".

/// The names of a basis's tensors.
private struct BasisNames {
    let matrix: String
    let scale: String
    let variance: String
    let weight: String

    /// Of an archive's unit.
    init(unit: Int) {
        matrix = ModelProfile.name(unit: unit, .basis)
        scale = ModelProfile.name(unit: unit, .scale)
        variance = ModelProfile.name(unit: unit, .variance)
        weight = ModelProfile.name(unit: unit, .weight)
    }

    /// Of a layer's keys or values as they are cached.
    init(layer: Int, part: CachePart) {
        matrix = "layers.\(layer).\(part == .keys ? "key_basis" : "value_basis")"
        scale = "\(matrix)_scale"
        variance = "\(matrix)_variance"
        weight = "\(matrix)_weight"
    }

    var all: [String] { [matrix, scale, variance, weight] }
}

extension ModelProfile {
    /// The tensors of an archive's unit.
    enum UnitTensor: String, CaseIterable {
        case channels, basis, scale, variance, weight
    }

    private static let remedy = "make the bases anew: think-compress profile --from"
    private static let numbersOfUnit = 5

    static func name(unit: Int, _ tensor: UnitTensor) -> String { "archive.\(unit).\(tensor.rawValue)" }
    static func rotaryName(layer: Int) -> String { "layers.\(layer).rotary_frequencies" }

    /// Whether a file has any tensor of a profile's bases.
    static func hasBases(_ file: SafetensorsFile) -> Bool {
        file.tensors.names.contains { unit(ofName: $0) != nil || isOfLayerBases($0) }
    }

    /// The unit that a tensor of that name is of; nil if it is none of an archive's.
    private static func unit(ofName name: String) -> Int? {
        let words = name.split(separator: ".", maxSplits: 2, omittingEmptySubsequences: false)
        guard words.count == 3, words[0] == "archive", let unit = Int(words[1]), unit >= 0, "\(unit)" == words[1],
            UnitTensor(rawValue: String(words[2])) != nil
        else { return nil }
        return unit
    }

    private static func isOfLayerBases(_ name: String) -> Bool {
        let words = name.split(separator: ".", omittingEmptySubsequences: false)
        guard words.count == 3, words[0] == "layers", let layer = Int(words[1]), layer >= 0 else { return false }
        return name == rotaryName(layer: layer)
            || CachePart.allCases.contains { BasisNames(layer: layer, part: $0).all.contains(name) }
    }

    /// The dimension of a layer's values by its basis, or nil if there is none.
    static func basisShape(
        _ file: SafetensorsFile,
        layer: Int
    ) throws(EngineFormatError) -> (heads: Int, dimension: Int)? {
        let name = BasisNames(layer: layer, part: .values).scale
        return try shape(file, name: name)
    }

    // MARK: - Reading

    /// The bases of every layer; matrices stay where they lie in the file.
    ///
    /// - Throws: `EngineFormatError` if they are not complete bases of such a model.
    /// - Returns: nil for layers without a cache, and for all where the file has no bases.
    static func bases(
        _ file: SafetensorsFile,
        geometry: CacheGeometry
    ) throws(EngineFormatError) -> [LayerBases?] {
        guard hasBases(file) else { return [LayerBases?](repeating: nil, count: geometry.layers.count) }
        let archives = try archives(file, geometry: geometry)
        return try geometry.layers.enumerated().map { (layer, geometry) throws(EngineFormatError) in
            if geometry.isEmpty { return nil }
            return LayerBases(
                archives: archives[layer],
                rotaryFrequencies: try rotaryFrequencies(file, layer: layer, geometry: geometry),
                keys: try headBases(file, layer: layer, part: .keys, geometry: geometry),
                values: try headBases(file, layer: layer, part: .values, geometry: geometry)
            )
        }
    }

    /// The archives' units and bases, by their first layer.
    private static func archives(
        _ file: SafetensorsFile,
        geometry: CacheGeometry
    ) throws(EngineFormatError) -> [[LayerBases.Archive]] {
        var coverage = UnitCoverage(geometry)
        var archives = [[LayerBases.Archive]](repeating: [], count: geometry.layers.count)
        var count = 0
        while let tensor = file.tensors[name(unit: count, .channels)] {
            let unit = try unit(tensor, index: count, geometry: geometry)
            if let fault = coverage.add(unit) {
                throw EngineFormatError(.unsupported, tensor: name(unit: count, .channels), "\(fault); \(remedy)")
            }
            let channelCount = unit.channelCount(in: geometry)
            guard channelCount <= ArchiveUnit.maximumChannels else {
                throw EngineFormatError(
                    .unsupported,
                    tensor: name(unit: count, .channels),
                    "has \(channelCount) channels, and a unit has at most \(ArchiveUnit.maximumChannels); make the bases of smaller "
                        + "units: think-compress profile --from, --basis head"
                )
            }
            let basis = try basis(file, names: BasisNames(unit: count), channelCount: channelCount)
            archives[unit.layers.lowerBound].append(.init(unit: unit, basis: basis))
            count += 1
        }
        if let stray = file.tensors.names.first(where: { unit(ofName: $0).map { $0 >= count } ?? false }) {
            throw EngineFormatError(
                .unsupported,
                tensor: name(unit: count, .channels),
                "is missing, and '\(stray)' is there; \(remedy)"
            )
        }
        if let fault = coverage.missing {
            throw EngineFormatError(.unsupported, "the archives' units have not \(fault); \(remedy)")
        }
        return archives
    }

    /// What channels a unit has.
    private static func unit(
        _ tensor: SafetensorsFile.Tensor,
        index: Int,
        geometry: CacheGeometry
    ) throws(EngineFormatError) -> ArchiveUnit {
        let name = name(unit: index, .channels)
        guard tensor.elementType == "I32", tensor.shape == [numbersOfUnit] else {
            throw EngineFormatError(
                .unsupported,
                tensor: name,
                "is \(tensor.elementType) \(tensor.shape), must be I32 [\(numbersOfUnit)]"
            )
        }
        let numbers = tensor.words.map { Int(Int32(bitPattern: $0)) }
        guard let unit = ArchiveUnit(numbers: numbers),
            unit.layers.upperBound <= geometry.layers.count,
            unit.layers.allSatisfy({ layer in
                let shape = geometry.layers[layer]
                return unit.heads.upperBound <= shape.kvHeads && unit.parts.allSatisfy { shape.dimension($0) > 0 }
            })
        else {
            throw EngineFormatError(
                .unsupported,
                tensor: name,
                "holds \(numbers), which are no first layer, layers, first KV head, KV heads and parts of this model; "
                    + remedy
            )
        }
        return unit
    }

    /// A basis of so many channels.
    private static func basis(
        _ file: SafetensorsFile,
        names: BasisNames,
        channelCount: Int
    ) throws(EngineFormatError) -> ComponentBasis {
        guard let matrix = file.tensors[names.matrix] else { throw missing(names.matrix) }
        guard matrix.elementType == "I8", matrix.shape.count == 2, matrix.shape[1] == channelCount,
            (1...channelCount).contains(matrix.shape[0])
        else {
            throw EngineFormatError(
                .unsupported,
                tensor: names.matrix,
                "is \(matrix.elementType) \(matrix.shape), must be I8 [1...\(channelCount), \(channelCount)]"
            )
        }
        let count = matrix.shape[0]
        let scales = try positive(file, name: names.scale, shape: [count])
        let variances = try falling(file, name: names.variance, shape: [count])
        let weights = try positive(file, name: names.weight, shape: [channelCount])
        return ComponentBasis(matrix: matrix.bytes, scales: scales, variances: variances, weights: weights)
    }

    /// The bases of each KV head's keys or values as they are cached.
    private static func headBases(
        _ file: SafetensorsFile,
        layer: Int,
        part: CachePart,
        geometry: LayerGeometry
    ) throws(EngineFormatError) -> [ComponentBasis] {
        let dimension = geometry.dimension(part)
        guard dimension > 0 else { return [] }
        let names = BasisNames(layer: layer, part: part)
        let shape = [geometry.kvHeads, dimension]
        guard let matrix = file.tensors[names.matrix] else { throw missing(names.matrix) }
        guard matrix.elementType == "I8", matrix.shape == shape + [dimension] else {
            throw EngineFormatError(
                .unsupported,
                tensor: names.matrix,
                "is \(matrix.elementType) \(matrix.shape), must be I8 \(shape + [dimension])"
            )
        }
        let scales = try positive(file, name: names.scale, shape: shape)
        let variances = try falling(file, name: names.variance, shape: shape)
        let weights = try positive(file, name: names.weight, shape: shape)
        return (0..<geometry.kvHeads).map { head in
            let channels = head * dimension..<(head + 1) * dimension
            return ComponentBasis(
                matrix: matrix.bytes[channels.lowerBound * dimension..<channels.upperBound * dimension],
                scales: Array(scales[channels]),
                variances: Array(variances[channels]),
                weights: Array(weights[channels])
            )
        }
    }

    /// What the layer's rotary pairs are turned by; none without rotary embedding.
    private static func rotaryFrequencies(
        _ file: SafetensorsFile,
        layer: Int,
        geometry: LayerGeometry
    ) throws(EngineFormatError) -> [Float] {
        let name = rotaryName(layer: layer)
        guard let tensor = file.tensors[name] else { return [] }
        let pairs = geometry.keyDimension / 2
        guard tensor.shape.count == 1, tensor.shape[0] > 0, tensor.shape[0] <= pairs else {
            throw EngineFormatError(
                .unsupported,
                tensor: name,
                "has the shape \(tensor.shape), must be [rotary pairs], 1...\(pairs) of them"
            )
        }
        return try required(file, name: name, shape: tensor.shape) {
            (0...LayerBases.maximumFrequency).contains($0)
                ? nil : "rotary frequencies are 0 to \(LayerBases.maximumFrequency) radians"
        }
    }

    private static func positive(
        _ file: SafetensorsFile,
        name: String,
        shape: [Int]
    ) throws(EngineFormatError) -> [Float] {
        try required(file, name: name, shape: shape) {
            ComponentBasis.positiveNumbers.contains($0) ? nil : "scales and weights are from 2^-60 to 2^60"
        }
    }

    /// Variances of components, which fall within each row.
    private static func falling(
        _ file: SafetensorsFile,
        name: String,
        shape: [Int]
    ) throws(EngineFormatError) -> [Float] {
        let numbers = try required(file, name: name, shape: shape) {
            $0.isFinite && $0 >= 0 ? nil : "variances are finite and not negative"
        }
        let width = shape[shape.count - 1]
        for place in numbers.indices.dropFirst()
        where !place.isMultiple(of: width) && numbers[place] > numbers[place - 1] {
            throw EngineFormatError(
                .unsupported,
                tensor: name,
                "holds \(numbers[place]) after \(numbers[place - 1]); components come by falling variance; \(remedy)"
            )
        }
        return numbers
    }

    /// The numbers of a tensor that must be there.
    ///
    /// - Parameter rule: what a number breaks, or nil.
    private static func required(
        _ file: SafetensorsFile,
        name: String,
        shape: [Int],
        rule: (Float) -> String?
    ) throws(EngineFormatError) -> [Float] {
        guard let numbers = try numbers(file, name: name, shape: shape) else { throw missing(name) }
        for number in numbers {
            if let rule = rule(number) {
                throw EngineFormatError(.unsupported, tensor: name, "holds \(number); \(rule); \(remedy)")
            }
        }
        return numbers
    }

    private static func missing(_ name: String) -> EngineFormatError {
        EngineFormatError(.unsupported, tensor: name, "is missing, and other bases are there; \(remedy)")
    }

    // MARK: - Writing

    /// The tensors of all layers' bases.
    ///
    /// - Throws: `MemoryError` if there is no memory for the small ones.
    static func tensors(ofBases layers: [LayerBases?], geometry: CacheGeometry) throws(MemoryError) -> [Content] {
        var contents: [Content] = []
        var unit = 0
        for (index, bases) in layers.enumerated() {
            guard let bases else { continue }
            let frequencies = bases.rotaryFrequencies
            if !frequencies.isEmpty {
                contents.append(try Content(rotaryName(layer: index), frequencies, shape: [frequencies.count]))
            }
            for part in CachePart.allCases where geometry.layers[index].dimension(part) > 0 {
                let heads = part == .keys ? bases.keys : bases.values
                let dimension = geometry.layers[index].dimension(part)
                precondition(
                    heads.count == geometry.layers[index].kvHeads
                        && heads.allSatisfy { $0.channelCount == dimension && $0.componentCount == dimension },
                    "a basis of a KV head has as many components as channels"
                )
                contents += try tensors(
                    heads,
                    names: BasisNames(layer: index, part: part),
                    shape: [heads.count]
                )
            }
            for archive in bases.archives {
                precondition(
                    archive.unit.layers.lowerBound == index
                        && archive.basis.channelCount == archive.unit.channelCount(in: geometry),
                    "a unit is its first layer's, and its basis has its channels"
                )
                let numbers = archive.unit.numbers.map { UInt32($0) }
                contents.append(
                    Content(
                        name(unit: unit, .channels),
                        type: "I32",
                        shape: [numbers.count],
                        pieces: [try SharedBytes(words: numbers)]
                    )
                )
                contents += try tensors([archive.basis], names: BasisNames(unit: unit), shape: [])
                unit += 1
            }
        }
        return contents
    }

    /// - Parameter shape: how many bases there are, where that is a dimension.
    private static func tensors(
        _ bases: [ComponentBasis],
        names: BasisNames,
        shape: [Int]
    ) throws(MemoryError) -> [Content] {
        guard let first = bases.first else { return [] }
        let (components, channels) = (first.componentCount, first.channelCount)
        return [
            Content(names.matrix, type: "I8", shape: shape + [components, channels], pieces: bases.map(\.matrix)),
            try Content(names.scale, bases.flatMap(\.scales), shape: shape + [components]),
            try Content(names.variance, bases.flatMap(\.variances), shape: shape + [components]),
            try Content(names.weight, bases.flatMap(\.weights), shape: shape + [channels]),
        ]
    }
}

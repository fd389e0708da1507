internal import ThinkCompress

/// What `inspect` and `snapshot` say about a file: Formats/json.md.
struct SnapshotReport: Encodable {
    struct Section: Encodable {
        let name: String
        let coding: String
        let offset: Int
        let storedBytes: Int
        let bytes: Int
    }

    /// What a layer is and holds.
    struct LayerShape: Encodable, Hashable {
        let queryHeads: Int?
        let kvHeads: Int
        let keyDim: Int
        let valueDim: Int
        let held: String
        let heldTokens: Int
        let blockTokens: Int
        let windowTokens: Int
        let sinks: Int

        init(_ layer: LayerOutline) {
            queryHeads = layer.geometry.queryHeads == 0 ? nil : layer.geometry.queryHeads
            kvHeads = layer.geometry.kvHeads
            keyDim = layer.geometry.keyDimension
            valueDim = layer.geometry.valueDimension
            held = "\(layer.held)"
            heldTokens = layer.extent.rowCount
            blockTokens = layer.extent.rowCount - layer.extent.windowRowCount
            windowTokens = layer.extent.windowRowCount
            sinks = layer.sinks
        }

        /// The shape for a person.
        var text: String {
            guard kvHeads > 0 else { return "no keys and values" }
            let dimensions =
                keyDim == valueDim ? "dimension \(keyDim)" : "dimensions \(keyDim) (keys), \(valueDim) (values)"
            let heads = queryHeads.map { ", \($0) query heads" } ?? ""
            return "\(kvHeads) KV heads of \(dimensions)\(heads)"
        }

        /// Which tokens there are, for a person.
        func tokenText(of tokens: Int, blockLength: Int, isArchive: Bool) -> String {
            let which =
                switch held {
                case "last": "the last \(heldTokens.grouped)"
                case "listed":
                    "listed \(heldTokens.grouped) of \(tokens.grouped), \(Self.share(heldTokens, of: tokens))"
                default: heldTokens.grouped
                }
            // Sinks in the window are rows like others.
            let sinkRows = min(sinks, blockTokens)
            if isArchive {
                let exact = sinkRows > 0 ? ", \(sinkRows) sinks" : ""
                return
                    "\(which): \((blockTokens - sinkRows).grouped) in chunks of \(ArchivePlan.chunkPlaces.grouped)\(exact), "
                    + "\(windowTokens.grouped) in 8 bits"
            }
            let kept = sinkRows > 0 ? ", \(sinkRows) of them sinks" : ""
            return "\(which): \(blockTokens.grouped) in blocks of \(blockLength)\(kept), "
                + "\(windowTokens.grouped) in full precision"
        }

        /// A share of tokens in percent.
        static func share(_ count: Int, of tokens: Int) -> String {
            (Double(count) * 100 / Double(tokens)).fixed(1) + " %"
        }
    }

    /// How an archive is coded.
    struct Archive: Encodable {
        let step: Float
        let units: Int
        let components: Int
        let channels: Int
        /// The bases of the profile by which it is restored: the first bytes of their SHA-256, in hex.
        let bases: String?

        init(_ plan: ArchivePlan) {
            step = plan.step
            units = plan.units.count
            components = plan.units.reduce(0) { $0 + $1.componentCount }
            channels = plan.units.reduce(0) { $0 + $1.means.count }
            bases = plan.basisDigest.map(ArchiveRestoration.name)
        }

        /// The same for a person.
        var text: String {
            "\(components.grouped) components of \(channels.grouped) channels in \(units) units, step \(step), "
                + (bases.map { "restored by the profile with the bases \($0)" } ?? "channels as they are")
        }
    }

    /// What layers list of the cache's tokens, for a person; nil if none lists any.
    var listedShare: String? {
        let listed = layerShapes.filter { $0.held == "listed" }
        guard !listed.isEmpty else { return nil }
        let share = LayerShape.share(listed.reduce(0) { $0 + $1.heldTokens }, of: listed.count * tokens)
        return "\(share) in \(listed.count == layers ? "all" : "\(listed.count) of \(layers)") layers"
    }

    /// How many channels of keys or of values the KV heads keep; the fewest and the most in JSON.
    struct KeptChannels: Encodable {
        private let counts: [Int]
        /// The dimensions of the heads.
        private let dimensions: [Int]

        init(_ part: CachePart, of plans: [LayerPlan]) {
            let heads = plans.flatMap(\.heads)
            switch part {
            case .keys: (counts, dimensions) = (heads.map(\.keptChannelCount), heads.map(\.keyDimension))
            case .values: (counts, dimensions) = (heads.map(\.keptValueChannelCount), heads.map(\.valueDimension))
            }
        }

        func encode(to encoder: any Encoder) throws {
            try [counts.min() ?? 0, counts.max() ?? 0].encode(to: encoder)
        }

        /// The numbers for a person; nil if every head keeps all of its channels.
        var text: String? {
            counts == dimensions ? nil : "\(Self.range(counts)) of \(Self.range(dimensions))"
        }

        private static func range(_ numbers: [Int]) -> String {
            let (least, most) = (numbers.min() ?? 0, numbers.max() ?? 0)
            return least == most ? "\(least)" : "\(least)...\(most)"
        }
    }

    let file: String
    let formatVersion: Int
    let metadata: [String: String]
    let recipe: String
    /// The preset that stands for the recipe.
    let preset: String?
    let elementType: String
    let tokens: Int
    let blockTokens: Int
    let windowTokens: Int
    let blockLength: Int
    let residualWindow: Int
    let layers: Int
    let queryHeads: Int?
    let kvHeads: Int?
    let headDim: Int?
    let layerShapes: [LayerShape]
    let keptKeyChannels: KeptChannels
    let keptValueChannels: KeptChannels
    /// Layer by layer.
    let codeBits: [CodeBits]
    /// How an archive is coded; nil if the snapshot is none.
    let archive: Archive?
    let fileBytes: Int
    let payloadBytes: Int
    let float16Bytes: Int
    let bitsPerValue: Double?
    let blockBitsPerValue: Double?
    let ratio: Double
    let quality: ErrorReport?
    let sections: [Section]

    init(_ snapshot: SnapshotSummary, path: String) {
        file = path
        metadata = snapshot.metadata
        recipe = snapshot.recipe?.description ?? ""
        preset = CodecRegistry.standard.name(of: recipe)
        elementType = snapshot.shape.elementType.name
        tokens = snapshot.tokenCount
        layerShapes = snapshot.layers.map { LayerShape($0) }
        blockTokens = layerShapes.map(\.blockTokens).max() ?? 0
        windowTokens = layerShapes.map(\.windowTokens).max() ?? 0
        blockLength = snapshot.shape.blockLength
        residualWindow = snapshot.shape.residualWindow
        layers = layerShapes.count
        let shapes = Set(layerShapes.map { [$0.queryHeads, $0.kvHeads, $0.keyDim, $0.valueDim] })
        let common = shapes.count == 1 ? layerShapes.first : nil
        queryHeads = common?.queryHeads
        kvHeads = common?.kvHeads
        headDim = common.flatMap { $0.keyDim == $0.valueDim ? $0.keyDim : nil }
        keptKeyChannels = KeptChannels(.keys, of: snapshot.plans)
        keptValueChannels = KeptChannels(.values, of: snapshot.plans)
        codeBits = snapshot.plans.map { CodeBits($0, elementType: snapshot.shape.elementType) }
        formatVersion = snapshot.formatVersion
        archive = snapshot.archivePlan.map(Archive.init)
        fileBytes = snapshot.size.fileBytes
        payloadBytes = snapshot.size.payloadBytes
        float16Bytes = snapshot.float16ByteCount
        bitsPerValue = snapshot.bitsPerValue
        blockBitsPerValue = snapshot.blockBitsPerValue
        ratio = snapshot.ratio
        quality = snapshot.quality.map { ErrorReport($0.total) }
        sections = snapshot.size.sections.map { entry in
            Section(
                name: entry.kind?.name ?? "unknown \(entry.kindNumber)",
                coding: entry.coding.name,
                offset: entry.offset,
                storedBytes: entry.storedLength,
                bytes: entry.length
            )
        }
    }

    /// The report for a person.
    var text: String {
        var facts: [(String, String)] = [("file", file)]
        facts += metadata.sorted { $0.key < $1.key }.map { ($0.key.printable, String($0.value.printable.prefix(200))) }
        facts += [
            ("recipe", RecipeOption.title(recipe)), ("tokens", tokens.grouped), ("layers", "\(layers), \(elementType)"),
        ]
        // Layers that are alike share a line.
        var numbers: [LayerShape: [Int]] = [:]
        for (index, shape) in layerShapes.enumerated() { numbers[shape, default: []].append(index) }
        for (shape, layers) in numbers.sorted(by: { $0.value[0] < $1.value[0] }) {
            let name = layers.count == layerShapes.count ? "" : " of layers \(Self.list(layers))"
            facts.append(("geometry\(name)", shape.text))
            if shape.kvHeads > 0 {
                facts.append(
                    (
                        "tokens held\(name)",
                        shape.tokenText(of: tokens, blockLength: blockLength, isArchive: archive != nil)
                    )
                )
            }
        }
        if let archive { facts.append(("archive", archive.text)) }
        if let listedShare { facts.append(("tokens kept", listedShare)) }
        if let kept = keptKeyChannels.text { facts.append(("key channels kept", kept)) }
        if let kept = keptValueChannels.text { facts.append(("value channels kept", kept)) }
        if let bits = CodeBits.text(codeBits) { facts.append(("code width (bits)", bits)) }
        facts += [
            (
                "size",
                "\(fileBytes.grouped) bytes, \(ratio.fixed(2)) times smaller than float16's \(float16Bytes.grouped)"
            ),
            (
                "bits per value",
                (bitsPerValue?.fixed(2) ?? "-")
                    + (blockBitsPerValue.map { " (\($0.fixed(2)) in \(archive == nil ? "blocks" : "chunks"))" } ?? "")
            ),
            ("relative errors", quality?.text ?? "not measured"),
        ]
        let width = facts.map(\.0.count).max() ?? 0
        let list = facts.map { name, value in
            name + String(repeating: " ", count: width - name.count) + "  " + value
        }
        var table = TextTable(header: ["section", "coding", "offset", "bytes", "share"])
        for section in sections {
            let share = Double(section.storedBytes) * 100 / Double(fileBytes)
            table.add([
                section.name, section.coding, section.offset.grouped, section.storedBytes.grouped,
                share.fixed(1) + " %",
            ])
        }
        return list.joined(separator: "\n") + "\n\n" + table.text
    }

    /// Ascending numbers with ranges: `0...4, 6`.
    fileprivate static func list(_ numbers: [Int]) -> String {
        var ranges: [ClosedRange<Int>] = []
        for number in numbers {
            if let last = ranges.last, last.upperBound + 1 == number {
                ranges[ranges.count - 1] = last.lowerBound...number
            } else {
                ranges.append(number...number)
            }
        }
        return ranges.map { $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)...\($0.upperBound)" }
            .joined(separator: ", ")
    }
}

/// Relative errors (Frobenius norms): Formats/json.md.
struct ErrorReport: Encodable {
    let keyError: Float?
    let valueError: Float?
    let scoreError: Float?
    let attentionError: Float?

    init(_ errors: CompressionQuality.Errors) {
        // JSON has no word for infinity and NaN, which a cache that holds such numbers may give.
        func finite(_ error: Float?) -> Float? { error.flatMap { $0.isFinite ? $0 : nil } }
        keyError = finite(errors.keys)
        valueError = finite(errors.values)
        scoreError = finite(errors.scores)
        attentionError = finite(errors.attention)
    }

    /// The numbers as a table's cells.
    var cells: [String] {
        [keyError, valueError, scoreError, attentionError].map { $0?.fixed(4) ?? "-" }
    }

    var text: String {
        zip(["keys", "values", "scores", "attention output"], cells).map { "\($0) \($1)" }.joined(separator: ", ")
    }
}

extension String {
    /// The text without control and format characters, so that a file can't command the terminal.
    var printable: String {
        String(
            String.UnicodeScalarView(
                unicodeScalars.map { scalar in
                    switch scalar.properties.generalCategory {
                    case .control, .format, .lineSeparator, .paragraphSeparator: "?"
                    default: scalar
                    }
                }
            )
        )
    }
}

internal import ThinkCompress

/// What `inspect` and `snapshot` say about a file: Formats/json.md.
struct SnapshotReport: Encodable {
    struct Section: Encodable {
        let name: String
        let encoding: String
        let offset: Int
        let storedBytes: Int
        let bytes: Int
    }

    let file: String
    let formatVersion = 1
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
    let fileBytes: Int
    let payloadBytes: Int
    let float16Bytes: Int
    let bitsPerValue: Double
    let blockBitsPerValue: Double?
    let ratio: Double
    let quality: ErrorReport?
    let sections: [Section]

    init(_ reader: SnapshotReader, path: String) {
        let header = reader.header
        file = path
        metadata = reader.metadata
        recipe = reader.recipe.description
        elementType = header.shape.elementType.name
        tokens = header.tokenCount
        blockTokens = header.blockTokenCount
        windowTokens = header.tokenCount - header.blockTokenCount
        blockLength = header.shape.blockLength
        residualWindow = header.shape.residualWindow
        layers = header.geometry.layers
        queryHeads = header.geometry.queryHeads == 0 ? nil : header.geometry.queryHeads
        kvHeads = header.geometry.kvHeads
        headDim = header.geometry.headDimension
        let kept = reader.plans.joined().map(\.keptChannelCount)
        keptKeyChannels = [kept.min() ?? 0, kept.max() ?? 0]
        fileBytes = reader.fileByteCount
        payloadBytes = reader.payloadByteCount
        float16Bytes = header.geometry.valueCount(tokens: header.tokenCount) * 2
        bitsPerValue = reader.bitsPerValue
        blockBitsPerValue = reader.blockBitsPerValue
        ratio = reader.ratio
        quality = reader.quality.map { ErrorReport($0.total) }
        sections = reader.sections.map { entry in
            Section(
                name: entry.kind?.name ?? "unknown \(entry.kindNumber)",
                encoding: entry.encoding.name,
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
        let heads = queryHeads.map { ", \($0) query heads" } ?? ""
        facts += [
            ("recipe", recipe),
            ("geometry", "\(layers) layers, \(kvHeads) KV heads of dimension \(headDim)\(heads), \(elementType)"),
            (
                "tokens",
                "\(tokens.grouped): \(blockTokens.grouped) in blocks of \(blockLength), "
                    + "\(windowTokens.grouped) in full precision"
            ),
        ]
        if keptKeyChannels != [headDim, headDim] {
            let range =
                keptKeyChannels[0] == keptKeyChannels[1]
                ? "\(keptKeyChannels[0])" : "\(keptKeyChannels[0])...\(keptKeyChannels[1])"
            facts.append(("key channels kept", "\(range) of \(headDim)"))
        }
        facts += [
            (
                "size",
                "\(fileBytes.grouped) bytes, \(ratio.fixed(2)) times smaller than float16's \(float16Bytes.grouped)"
            ),
            ("bits per value", bitsPerValue.fixed(2) + (blockBitsPerValue.map { " (\($0.fixed(2)) in blocks)" } ?? "")),
            ("relative errors", quality?.text ?? "not measured"),
        ]
        let width = facts.map(\.0.count).max() ?? 0
        let list = facts.map { name, value in
            name + String(repeating: " ", count: width - name.count) + "  " + value
        }
        var table = TextTable(header: ["section", "encoding", "offset", "bytes", "share"])
        for section in sections {
            let share = Double(section.storedBytes) * 100 / Double(fileBytes)
            table.add([
                section.name, section.encoding, section.offset.grouped, section.storedBytes.grouped,
                share.fixed(1) + " %",
            ])
        }
        return list.joined(separator: "\n") + "\n\n" + table.text
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

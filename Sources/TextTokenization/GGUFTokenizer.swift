internal import ByteStorage
internal import EngineFormats

/// What a GGUF file says of its tokenizer.
struct GGUFTokenizer {
    private static let modelKey = "tokenizer.ggml.model"
    private static let scoresKey = "tokenizer.ggml.scores"
    private static let mergesKey = "tokenizer.ggml.merges"
    private static let space = Array("▁".utf8)

    let model: BPEModel
    let normalizers: [Normalizer]
    let preTokenizer: GGUFPreTokenizer?
    let postProcessor: PostProcessor
    let decoders: [TokenDecoder]
    let addedTokens: AddedTokens

    init(_ metadata: GGUFMetadata) throws(EngineFormatError) {
        let name = try metadata.required(Self.modelKey)
        switch try name.text() {
        case "gpt2":
            let kind = try Self.preTokenizer(metadata)
            let vocabulary = try GGUFVocabulary(metadata)
            model = BPEModel(
                vocabulary.table,
                merges: .pairs(try Self.merges(metadata, vocabulary.table)),
                ignoresMerges: kind.ignoresMerges
            )
            normalizers = []
            preTokenizer = kind
            postProcessor = try Self.postProcessor(metadata, vocabulary, addsBegin: kind.addsBegin)
            decoders = [.byteLevel]
            addedTokens = try vocabulary.addedTokens(metadata, decodesBytes: false)
        case "llama":
            let vocabulary = try GGUFVocabulary(metadata)
            model = BPEModel(
                vocabulary.table,
                merges: .scores(ranks: try Self.ranks(metadata, count: vocabulary.count)),
                ignoresMerges: false
            )
            let addsSpace = try metadata["tokenizer.ggml.add_space_prefix"]?.bool() ?? true
            let replacement = Normalizer.replace(.literal([UInt8(ascii: " ")]), Self.space)
            normalizers = addsSpace ? [.prepend(Self.space), replacement] : [replacement]
            preTokenizer = nil
            postProcessor = try Self.postProcessor(metadata, vocabulary, addsBegin: true)
            let bare: [TokenDecoder] = [
                .replace(pattern: Self.space, content: [UInt8(ascii: " ")]), .byteFallback, .fuse,
            ]
            decoders = addsSpace ? bare + [.strip(character: [UInt8(ascii: " ")], start: 1, stop: 0)] : bare
            addedTokens = try vocabulary.addedTokens(metadata, decodesBytes: true)
        case let other:
            throw name.fault(
                "is \"\(other.abbreviated)\", which is not supported; use a model with gpt2 or llama",
                .unsupported
            )
        }
    }

    private static func preTokenizer(_ metadata: GGUFMetadata) throws(EngineFormatError) -> GGUFPreTokenizer {
        let field = metadata[GGUFPreTokenizer.key]
        // Old files don't say it.
        let name = try field?.text() ?? ""
        let wanted = name.isEmpty ? "default" : name
        if let known = GGUFPreTokenizer.all.first(where: { $0.names.contains(wanted) }) { return known }
        throw try metadata.required(GGUFPreTokenizer.key).fault(
            "is \"\(name.abbreviated)\", which is not supported; use a model with one of "
                + GGUFPreTokenizer.all.flatMap(\.names).joined(separator: ", "),
            .unsupported
        )
    }

    /// The pairs, by the order of their list; the first of equal ones counts.
    private static func merges(
        _ metadata: GGUFMetadata,
        _ vocabulary: ByteTable
    ) throws(EngineFormatError) -> [UInt64: BPEModel.Merge] {
        let field = try metadata.required(mergesKey)
        let elements = try field.elements()
        guard elements.kind == .string else { throw field.fault("must be strings; the file is damaged") }
        var merges: [UInt64: BPEModel.Merge] = [:]
        merges.reserveCapacity(min(elements.count, vocabulary.count))
        var pair = TokenPair()
        for (rank, element) in elements.enumerated() {
            pair.removeAll()
            let bytes = try element.bytes()
            unsafe bytes.withUnsafeBytes { unsafe pair.text.append(contentsOf: $0) }
            guard pair.split() else { throw element.fault("must be two tokens with a space between") }
            switch pair.ids(in: vocabulary) {
            case .success(let ids):
                let key = BPEModel.pair(ids.left, ids.right)
                if merges[key] == nil { merges[key] = BPEModel.Merge(rank: Int32(rank), id: ids.merged) }
            case .failure(let missing): throw element.fault(missing.message)
            }
        }
        return merges
    }

    /// The ranks of the tokens: 0 for those with the highest score.
    private static func ranks(_ metadata: GGUFMetadata, count: Int) throws(EngineFormatError) -> [Int32] {
        let field = try metadata.required(scoresKey)
        let elements = try field.elements()
        try GGUFVocabulary.check(elements, of: field, count: count)
        var scores: [Double] = []
        scores.reserveCapacity(count)
        for element in elements { scores.append(try element.double()) }
        var ranks = [Int32](repeating: 0, count: count)
        var rank: Int32 = -1
        var former = Double.infinity
        for id in scores.indices.sorted(by: { scores[$0] > scores[$1] }) {
            if scores[id] < former {
                rank += 1
                former = scores[id]
            }
            ranks[id] = rank
        }
        return ranks
    }

    /// - Parameter addsBegin: whether a token for the beginning is put before a text if the file doesn't say.
    private static func postProcessor(
        _ metadata: GGUFMetadata,
        _ vocabulary: GGUFVocabulary,
        addsBegin: Bool
    ) throws(EngineFormatError) -> PostProcessor {
        func tokens(_ name: String, isAdded: Bool) throws(EngineFormatError) -> [Int32] {
            let id = try metadata.tokenID(name, vocabularySize: vocabulary.count)
            guard try metadata["tokenizer.ggml.add_\(name)_token"]?.bool() ?? isAdded else { return [] }
            if let id { return [id] }
            let key = GGUFMetadata.tokenKey(name)
            throw metadata[key]?.fault("says that there is none, but one must be put around texts")
                ?? metadata.missing(key)
        }
        return PostProcessor(
            before: try tokens("bos", isAdded: addsBegin),
            after: try tokens("eos", isAdded: false)
        )
    }
}

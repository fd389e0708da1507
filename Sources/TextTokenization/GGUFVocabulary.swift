internal import ByteStorage
internal import EngineFormats

/// The tokens of a GGUF file, and what kind each is.
///
/// Source: the GGUF format's `tokenizer.ggml.tokens` and `token_type`, and what llama.cpp makes of them when it opens a
/// file (`llama-vocab.cpp`): it takes some tokens for special by their texts, since files often don't say so.
struct GGUFVocabulary {
    static let tokensKey = "tokenizer.ggml.tokens"
    private static let kindsKey = "tokenizer.ggml.token_type"
    /// The longest text of a token; those in use have some hundred bytes.
    private static let maximumBytes = 65_535
    /// The most tokens; the largest vocabularies have some 260,000.
    static let maximumTokens = 1 << 22
    /// How many bytes the tokens that texts are searched for may have together; files have some 100,000.
    static let maximumSearchedBytes = 1 << 22

    /// By the numbers that files have for them.
    enum Kind: Int {
        case undefined, normal, unknown, control, userDefined, unused, byte
    }

    /// Entries and ids are the same.
    let table: ByteTable
    private(set) var kinds: [Kind]

    var count: Int { kinds.count }

    /// - Throws: `EngineFormatError` if the tokens are missing, one is there twice or not UTF-8, or the kinds aren't as
    ///   many.
    init(_ metadata: GGUFMetadata) throws(EngineFormatError) {
        let field = try metadata.required(Self.tokensKey)
        let tokens = try field.elements()
        guard tokens.kind == .string, tokens.count > 0 else {
            throw field.fault("must be strings, at least one; the file is damaged")
        }
        guard tokens.count <= Self.maximumTokens else {
            throw field.fault("has \(tokens.count) tokens; supported are \(Self.maximumTokens)", .unsupported)
        }
        var table = ByteTable(capacity: tokens.count)
        for token in tokens {
            guard try token.bytes().count <= Self.maximumBytes else {
                throw token.fault("has more than \(Self.maximumBytes) bytes; the file is damaged")
            }
            let text = try token.text()
            let id = Int32(table.count)
            // As in llama.cpp, a text ends at NUL, and each token has one.
            let isNew = table.insert(id: id) { bytes in
                let start = bytes.count
                bytes.append(contentsOf: text.utf8)
                if let end = bytes[start...].firstIndex(of: 0) { bytes.removeSubrange(end...) }
                if bytes.count == start { bytes.append(contentsOf: "[EMPTY_\(id)]".utf8) }
            }
            guard isNew else { throw token.fault("is there twice as a token; the file is damaged") }
        }
        self.table = table
        kinds = try Self.kinds(metadata, count: table.count)
        try findSpecialTokens(metadata)
    }

    private static func kinds(_ metadata: GGUFMetadata, count: Int) throws(EngineFormatError) -> [Kind] {
        guard let field = metadata[kindsKey] else { return Array(repeating: .normal, count: count) }
        let numbers = try field.elements()
        try check(numbers, of: field, count: count)
        var kinds: [Kind] = []
        kinds.reserveCapacity(count)
        for number in numbers { kinds.append(Kind(rawValue: try number.int()) ?? .undefined) }
        return kinds
    }

    /// - Throws: `EngineFormatError` if there isn't one element for each token.
    static func check(_ elements: GGUFElements, of field: GGUFValue, count: Int) throws(EngineFormatError) {
        guard elements.count == count else {
            throw field.fault("has \(elements.count) elements for \(count) tokens; the file is damaged")
        }
    }

    func text(of id: Int) -> ArraySlice<UInt8> { table.key(at: id) }

    /// The tokens that texts are searched for, and those that decode to something else than the vocabulary's spelling.
    ///
    /// - Parameter decodesBytes: whether decoders know that a token like `<0x0A>` stands for a byte.
    /// - Throws: `EngineFormatError` if one of them is too long to be searched for.
    func addedTokens(_ metadata: GGUFMetadata, decodesBytes: Bool) throws(EngineFormatError) -> AddedTokens {
        var tokens: [AddedTokens.Token] = []
        var searchedBytes = 0
        for (id, kind) in kinds.enumerated() {
            let text = Array(text(of: id))
            var (content, form) = (text, text)
            switch kind {
            case .normal: continue
            case .byte where decodesBytes: continue
            case .unknown, .control, .userDefined:
                guard text.count <= TokenTrie.maximumTokenBytes else {
                    throw try metadata.required(Self.tokensKey).fault(
                        "has a special token of \(text.count) bytes, number \(id); supported are "
                            + "\(TokenTrie.maximumTokenBytes)",
                        .unsupported
                    )
                }
                searchedBytes += text.count
                guard searchedBytes <= Self.maximumSearchedBytes else {
                    throw try metadata.required(Self.tokensKey).fault(
                        "has special tokens of more than \(Self.maximumSearchedBytes) bytes together, which is not "
                            + "supported",
                        .unsupported
                    )
                }
            case .byte: (content, form) = ([], TokenDecoder.byte(of: text).map { [$0] } ?? text)
            case .unused, .undefined: (content, form) = ([], [])
            }
            tokens.append(
                AddedTokens.Token(
                    id: Int32(id),
                    content: content,
                    isSingleWord: false,
                    stripsLeft: false,
                    stripsRight: false,
                    isNormalized: false,
                    isSpecial: kind == .control || kind == .unknown,
                    normalForm: form,
                    isVerbatim: true
                )
            )
        }
        return AddedTokens(tokens, preference: .longest)
    }
}

// MARK: - Special tokens by their texts

extension GGUFVocabulary {
    /// What ends an answer or a part of it.
    private static let endOfGeneration = [
        "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
        "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
        "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
    ]
    /// What is put around the parts of a text that another is filled in between: the keys by which files say so, and
    /// texts, of which the first that is there counts.
    private static let fillInTheMiddle: [(names: [String], texts: [String])] = [
        (
            ["fim_pre", "prefix"],
            [
                "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
                "<|code_prefix|>", "<|prefix|>",
            ]
        ),
        (
            ["fim_suf", "suffix"],
            [
                "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
                "<|code_suffix|>", "<|suffix|>",
            ]
        ),
        (
            ["fim_mid", "middle"],
            [
                "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
                "<|code_middle|>", "<|middle|>",
            ]
        ),
        (["fim_pad"], ["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
        (["fim_rep"], ["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"]),
        (["fim_sep"], ["<|file_sep|>"]),
    ]
    /// What an answer's parts are marked with, which are always shown.
    private static let marks = ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"]

    private func id(of text: String) -> Int? { table[Array(text.utf8)].map(Int.init) }

    private mutating func findSpecialTokens(_ metadata: GGUFMetadata) throws(EngineFormatError) {
        for filling in Self.fillInTheMiddle {
            var isNamed = false
            for name in filling.names {
                guard let value = metadata[GGUFMetadata.tokenKey(name)] else { continue }
                // A number outside of the vocabulary counts as none.
                isNamed = try kinds.indices.contains(value.int()) || isNamed
            }
            if isNamed { continue }
            if let text = filling.texts.first(where: { id(of: $0) != nil }), let id = id(of: text) {
                kinds[id] = .control
            }
        }
        for text in Self.endOfGeneration { if let id = id(of: text) { kinds[id] = .control } }
        for text in Self.marks { if let id = id(of: text) { kinds[id] = .userDefined } }
        func has(_ texts: String...) -> Bool { texts.allSatisfy { id(of: $0) != nil } }
        // Among these <|end|> ends a part only.
        if has("<|return|>", "<|call|>") || has("<|return|>", "<|calls|>") || has("<|call|>", "<|flush|>")
            || has("<|calls|>", "<|flush|>"), let id = id(of: "<|end|>")
        {
            kinds[id] = .userDefined
        }
        // Among these </s> is for striking out, as in HTML.
        if has("<|tool_response>"), let id = id(of: "</s>") { kinds[id] = .normal }
    }
}

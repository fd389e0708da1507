public import ByteStorage
internal import JSONText

/// A tokenizer as a Hugging Face `tokenizer.json` or a GGUF file describes it: byte-pair encodings of the GPT-2 and
/// Llama families.
///
/// Of `tokenizer.json`, supported are the models of type BPE with the normalizers, pre-tokenizers, post-processors and
/// decoders that such models come with; anything else is refused by name when the file is read, never left out. The
/// tokens are those of the Python package `tokenizers` 0.23; but the file's `truncation` and `padding`, by which that
/// package shortens or fills up what it encodes, are ignored here.
///
///     let tokenizer = try Tokenizer(path: "tokenizer.json")
///     let tokens = try tokenizer.encode("Hello, world")
///     let text = tokenizer.decode(tokens)
public struct Tokenizer: Sendable {
    /// The longest text that is encoded at once, in bytes. It may take 1 GB of memory, where each byte is split off.
    public static let maximumTextBytes = 1 << 24

    let decoders: [TokenDecoder]?
    private let model: BPEModel
    private let addedTokens: AddedTokens
    private let normalizers: [Normalizer]
    private let preTokenizers: [PreTokenizer]
    private let postProcessor: PostProcessor

    /// One more than the largest token id, added tokens included; not every smaller id need be a token.
    public let vocabularySize: Int

    /// One more than the largest token id of the model's own vocabulary, added tokens not counted.
    ///
    /// Files may add tokens for which a model has no embeddings, e.g. `<pad>` behind the last token of Llama 2.
    public var modelVocabularySize: Int { Int(model.largestID) + 1 }

    /// Reads a tokenizer.
    ///
    /// - Parameter file: the contents of `tokenizer.json`.
    /// - Throws: `TokenizerError` if it isn't JSON, contradicts itself, or asks for something unsupported.
    public init(_ file: SharedBytes) throws(TokenizerError) {
        do {
            try self.init(
                JSONDocument(file, remedy: "save the tokenizer again"),
                budget: WorkBudget(fileBytes: file.count)
            )
        } catch {
            throw TokenizerError(error)
        }
    }

    private init(_ document: JSONDocument, budget: WorkBudget) throws(JSONError) {
        let root = try document.root.object()
        if let version = root.optional("version"), try version.text() != "1.0" {
            throw version.fault("\"\(try version.text())\" is not supported; save the tokenizer again", .unsupported)
        }
        model = try BPEModel(try root.required("model"))
        normalizers = try Component.list(root.optional("normalizer"), "normalizers", budget, Normalizer.init)
        preTokenizers = try Component.list(root.optional("pre_tokenizer"), "pretokenizers", budget, PreTokenizer.init)
        postProcessor = try PostProcessor(root.optional("post_processor"))
        decoders = try TokenDecoder.list(root.optional("decoder"), budget: budget)
        addedTokens = try AddedTokens(
            root.optional("added_tokens"),
            model: model,
            normalizers: normalizers,
            budget: budget
        )
        let largest = max(model.largestID, addedTokens.byID.keys.max() ?? -1)
        vocabularySize = Int(largest) + 1
        for token in postProcessor.before + postProcessor.after where chunk(of: token) == nil {
            let field = try root.required("post_processor")
            throw field.wrong("adds the token \(token), which is neither in the vocabulary nor added")
        }
    }

    /// Reads a tokenizer from a file.
    ///
    /// - Throws: `FileError` if the file can't be read, `TokenizerError` if it can't be used.
    public init(path: String) throws {
        try self.init(try MappedFile.bytes(path: path))
    }

    /// The id of a token of the vocabulary or an added token, by its exact text.
    ///
    /// Vocabularies spell spaces and bytes in their own way: `Ġthe` or `▁the`, not ` the`.
    public func id(of token: String) -> Int32? {
        let content = Array(token.utf8)
        return addedTokens.id(of: content) ?? model.id(of: content)
    }

    /// A tokenizer whose added tokens are all of the model's vocabulary.
    init(
        model: BPEModel,
        normalizers: [Normalizer],
        preTokenizers: [PreTokenizer],
        postProcessor: PostProcessor,
        decoders: [TokenDecoder],
        addedTokens: AddedTokens
    ) {
        self.model = model
        self.normalizers = normalizers
        self.preTokenizers = preTokenizers
        self.postProcessor = postProcessor
        self.decoders = decoders
        self.addedTokens = addedTokens
        vocabularySize = Int(model.largestID) + 1
    }

    // MARK: - Encoding

    /// The tokens of a text.
    ///
    /// The text of special tokens in `text` becomes those tokens, as in the Python package: keep that in mind with
    /// text from strangers.
    ///
    /// - Parameter addingSpecialTokens: whether the tokens that the file's template puts around a text are added, e.g.
    ///   the one for the beginning.
    /// - Throws: `TokenizerError` if the text is longer than `maximumTextBytes`, a pattern of the file takes too long
    ///   on it, or a character is unknown and the token for unknown characters doesn't exist.
    /// - Complexity: O(n log n) in the length of the text.
    public func encode(_ text: String, addingSpecialTokens: Bool = true) throws(TokenizerError) -> [Int32] {
        let bytes = Array(text.utf8)
        guard bytes.count <= Self.maximumTextBytes else {
            throw TokenizerError(
                .textTooLong,
                "the text has \(bytes.count) bytes, more than \(Self.maximumTextBytes); encode it in parts"
            )
        }
        let budget = WorkBudget(textBytes: bytes.count)
        var pieces = try addedTokens.extract(from: bytes, normalizers: normalizers, budget: budget)
        for step in preTokenizers {
            try budget.checkTime()
            try step.apply(to: &pieces, budget: budget)
            try budget.check(byteCount: pieces.bytes.count)
        }
        var tokens = addingSpecialTokens ? postProcessor.before : []
        var encoder = WordEncoder(model, budget: budget)
        for piece in pieces.pieces {
            if let token = piece.token {
                tokens.append(token)
            } else {
                try encoder.encode(pieces.bytes.span.extracting(piece.place), into: &tokens)
            }
        }
        if addingSpecialTokens { tokens += postProcessor.after }
        return tokens
    }

    /// The tokens that are put before a text, such as one that says that it begins.
    public var leadingTokens: [Int32] { postProcessor.before }

    // MARK: - Decoding

    /// The text of tokens. Ids that are no token are left out; U+FFFD stands for bytes that are no UTF-8.
    ///
    /// - Parameter skippingSpecialTokens: whether special tokens are left out, too.
    public func decode(_ tokens: some Sequence<Int32>, skippingSpecialTokens: Bool = true) -> String {
        var stream = TextStream(self, skippingSpecialTokens: skippingSpecialTokens)
        var bytes: [UInt8] = []
        for token in tokens { bytes += stream.appendBytes(token) }
        bytes += stream.finishBytes()
        return String(decoding: bytes, as: UTF8.self)
    }

    /// A decoder that takes one token after the other.
    public func makeTextStream(skippingSpecialTokens: Bool = true) -> TextStream {
        TextStream(self, skippingSpecialTokens: skippingSpecialTokens)
    }

    /// A token as the vocabulary spells it, or nil if there is none or it is left out.
    func chunk(of token: Int32, skippingSpecialTokens: Bool = false) -> TokenChunk? {
        let chunk: TokenChunk
        if let added = addedTokens.byID[token] {
            chunk = TokenChunk(bytes: added.normalForm, endsToken: true, isVerbatim: added.isVerbatim)
        } else if let known = model.token(token) {
            chunk = TokenChunk(bytes: Array(known), endsToken: true)
        } else {
            return nil
        }
        return skippingSpecialTokens && addedTokens.isSpecial(token, text: chunk.bytes) ? nil : chunk
    }
}

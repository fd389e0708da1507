public import EngineFormats

extension Tokenizer {
    /// Reads a tokenizer from a GGUF file's metadata.
    ///
    /// Supported are the models `gpt2` and `llama`, with the pre-tokenizers that Formats/gguf.md lists. The tokens are those of llama.cpp where it parses special tokens, which are also found inside of words, the
    /// longest first; characters that are newer than its Unicode tables may be split otherwise. Decoding a `llama`
    /// text leaves out the space that encoding puts before it, and no others.
    ///
    /// Source: llama.cpp (`llama-vocab.cpp`); GGUF, <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
    ///
    /// - Throws: `TokenizerError` if the file has no tokenizer, one that isn't supported, or one that contradicts itself.
    public init(_ file: GGUFFile) throws(TokenizerError) {
        let parts: GGUFTokenizer
        do { parts = try GGUFTokenizer(file.metadata) } catch { throw TokenizerError(error) }
        self.init(
            model: parts.model,
            normalizers: parts.normalizers,
            preTokenizers: try parts.preTokenizer?.preTokenizers() ?? [],
            postProcessor: parts.postProcessor,
            decoders: parts.decoders,
            addedTokens: parts.addedTokens
        )
    }
}

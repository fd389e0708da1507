internal import JSONText

/// A byte-pair encoding: a vocabulary, and what is merged in which order.
///
/// Source: Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units",
/// <https://arxiv.org/abs/1508.07909>; the details are those of `models/bpe` of Hugging Face tokenizers 0.23.
struct BPEModel: Sendable {
    struct Merge: Sendable {
        /// What is merged first has the lowest.
        let rank: Int32
        let id: Int32
    }

    enum Merges: Sendable {
        /// The pairs that are merged: the first id in the upper half, the second in the lower one.
        case pairs([UInt64: Merge])
        /// As SentencePiece does: what makes a token of the vocabulary together is merged, by the rank of that token,
        /// which its score gives it. Characters that remain and are no tokens are spelt in bytes.
        case scores(ranks: [Int32])
    }

    private let vocabulary: ByteTable
    /// The vocabulary's entry of each id; nil where they are the same.
    private let entries: [Int32: Int32]?
    let largestID: Int32
    private let merges: Merges
    /// Tokens of one character below U+0200, or -1: nearly all characters are, where bytes are written as characters.
    private let shortIDs: [Int32]
    /// The tokens for bytes, of which some may be missing, if unknown characters are spelt in bytes.
    let byteIDs: [Int32?]?
    let unknownToken: [UInt8]?
    let fusesUnknown: Bool
    let ignoresMerges: Bool

    /// Reads a file's `model`.
    ///
    /// - Throws: `JSONError` if it isn't a byte-pair encoding, has something unsupported or contradicts itself.
    init(_ value: JSONValue) throws(JSONError) {
        let fields = try value.object()
        // The first files of GPT-2 don't say the type.
        if let type = fields.optional("type"), try type.text() != "BPE" {
            throw type.fault("\"\(try type.text())\" is not supported; use a tokenizer with BPE", .unsupported)
        }
        if let dropout = fields.optional("dropout"), try dropout.double() != 0 {
            throw dropout.fault("dropout is for training and is not supported; set it to null", .unsupported)
        }
        for name in ["continuing_subword_prefix", "end_of_word_suffix"] {
            guard let affix = fields.optional(name), try !affix.bytes().isEmpty else { continue }
            throw affix.fault("is not supported; use a tokenizer without it", .unsupported)
        }
        let field = try fields.required("vocab")
        let (table, entries, largest) = try Self.readVocabulary(field)
        vocabulary = table
        self.entries = entries
        largestID = largest
        merges = .pairs(try Self.readMerges(try fields.required("merges"), vocabulary: table))
        shortIDs = Self.shortIDs(of: table)
        byteIDs = try fields.optional("byte_fallback")?.bool() == true ? Self.byteIDs(of: table) : nil
        unknownToken = try fields.optional("unk_token")?.bytes()
        fusesUnknown = try fields.optional("fuse_unk")?.bool() ?? false
        ignoresMerges = try fields.optional("ignore_merges")?.bool() ?? false
    }

    /// A model whose ids are the vocabulary's entries.
    init(_ vocabulary: ByteTable, merges: Merges, ignoresMerges: Bool) {
        self.vocabulary = vocabulary
        self.merges = merges
        self.ignoresMerges = ignoresMerges
        entries = nil
        largestID = Int32(vocabulary.count) - 1
        shortIDs = Self.shortIDs(of: vocabulary)
        unknownToken = nil
        fusesUnknown = false
        switch merges {
        case .pairs: byteIDs = nil
        case .scores: byteIDs = Self.byteIDs(of: vocabulary)
        }
    }

    private static func shortIDs(of vocabulary: ByteTable) -> [Int32] {
        (0..<0x200).map { value in
            Unicode.Scalar(UInt32(value)).flatMap { vocabulary[Array(String($0).utf8)] } ?? -1
        }
    }

    private static func byteIDs(of vocabulary: ByteTable) -> [Int32?] {
        (0...255).map { byte in vocabulary[Array("<0x\(Self.hexadecimal(byte))>".utf8)] }
    }

    /// How many tokens the vocabulary has; their ids may have holes.
    var vocabularyCount: Int { vocabulary.count }

    func id(of token: Span<UInt8>) -> Int32? { vocabulary[token] }

    func id(of token: [UInt8]) -> Int32? { vocabulary[token] }

    /// The token of one character, which `text` is.
    func id(ofCharacter text: Span<UInt8>) -> Int32? {
        switch text.count {
        case 1:
            let id = shortIDs[Int(text[0])]
            return id < 0 ? nil : id
        case 2 where text[0] < 0xC8:
            let id = shortIDs[Int(text[0] & 0x1F) << 6 | Int(text[1] & 0x3F)]
            return id < 0 ? nil : id
        default: return vocabulary[text]
        }
    }

    /// The text of a token.
    func token(_ id: Int32) -> ArraySlice<UInt8>? {
        guard let entries else {
            return (0..<Int32(vocabulary.count)).contains(id) ? vocabulary.key(at: Int(id)) : nil
        }
        return entries[id].map { vocabulary.key(at: Int($0)) }
    }

    /// Whether merges are by the text that they make, instead of by pairs, and characters that are no tokens wait for
    /// them.
    var mergesByScore: Bool {
        switch merges {
        case .pairs: false
        case .scores: true
        }
    }

    /// What two tokens are merged to, by pairs.
    func merge(_ left: Int32, _ right: Int32) -> Merge? {
        guard case .pairs(let pairs) = merges else { return nil }
        return pairs[Self.pair(left, right)]
    }

    /// What is merged to a text, by scores.
    func merge(to text: Span<UInt8>) -> Merge? {
        guard case .scores(let ranks) = merges, text.count <= vocabulary.longestKey, let id = vocabulary[text] else {
            return nil
        }
        return Merge(rank: ranks[Int(id)], id: id)
    }

    static func pair(_ left: Int32, _ right: Int32) -> UInt64 {
        UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
    }

    private static func hexadecimal(_ byte: Int) -> String {
        (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
    }

    // MARK: - Reading

    private static func readVocabulary(
        _ field: JSONValue
    ) throws(JSONError) -> (table: ByteTable, entries: [Int32: Int32], largest: Int32) {
        let members = try field.uncheckedMembers()
        let count = members.reduce(0) { count, _ in count + 1 }
        var table = ByteTable(capacity: count)
        var entries: [Int32: Int32] = [:]
        entries.reserveCapacity(count)
        var largest: Int32 = -1
        for member in members {
            let id = try member.value.number()
            guard table.insert(id: id, { member.name.append(to: &$0) }) else {
                throw member.value.wrong("is there twice")
            }
            guard entries.updateValue(Int32(table.count - 1), forKey: id) == nil else {
                throw member.value.wrong("has the id \(id), as another token has")
            }
            largest = max(largest, id)
        }
        return (table, entries, largest)
    }

    private static func readMerges(
        _ field: JSONValue,
        vocabulary: ByteTable
    ) throws(JSONError) -> [UInt64: Merge] {
        let values = try field.elements()
        var merges: [UInt64: Merge] = [:]
        // Tokens that are merged are of the vocabulary; the same pair may be there twice, but not often.
        merges.reserveCapacity(vocabulary.count)
        var pair = TokenPair()
        var rank: Int32 = 0
        for value in values {
            guard try pair.read(value) else { continue }
            switch pair.ids(in: vocabulary) {
            case .success(let ids):
                // Of a pair that is there twice, the latter counts.
                merges[Self.pair(ids.left, ids.right)] = Merge(rank: rank, id: ids.merged)
            case .failure(let missing):
                throw value.fault("merge \(rank) \(missing.message)")
            }
            rank += 1
        }
        return merges
    }
}

extension TokenPair {
    /// Reads `"a b"` or `["a", "b"]`.
    ///
    /// - Returns: false for a line that only says the version.
    fileprivate mutating func read(_ value: JSONValue) throws(JSONError) -> Bool {
        removeAll()
        switch value.kind {
        case .array:
            var parts = try value.elements()
            guard let first = parts.next(), let second = parts.next(), parts.next() == nil,
                first.kind == .string, second.kind == .string
            else { break }
            try first.string().append(to: &text)
            leftCount = text.count
            try second.string().append(to: &text)
            return true
        case .string:
            try value.string().append(to: &text)
            if text.starts(with: "#version".utf8) { return false }
            guard split() else { break }
            return true
        default: break
        }
        throw value.wrong("a merge must be \"a b\" or [\"a\", \"b\"]")
    }
}

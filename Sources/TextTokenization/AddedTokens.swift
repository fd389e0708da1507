internal import JSONText

/// The tokens that are found in a text before it is split, among them the special ones.
///
/// Source: `added_vocabulary.rs` of Hugging Face tokenizers 0.23.
struct AddedTokens: Sendable {
    /// Which of several tokens counts where they overlap in a text.
    enum Preference: Sendable {
        /// The one that begins first, of several the longest.
        case leftmost
        /// The longest in the whole text, of those as long the one with the least id, as in llama.cpp.
        case longest
    }

    struct Token: Sendable {
        let id: Int32
        let content: [UInt8]
        /// Whether it is found only where no letters or digits adjoin.
        let isSingleWord: Bool
        /// Whether it takes in the white space before it, and behind it.
        let stripsLeft: Bool
        let stripsRight: Bool
        /// Whether it is looked for in the normalized text.
        let isNormalized: Bool
        let isSpecial: Bool
        /// What it decodes to and is looked for as: the content, or what that is normalized to.
        var normalForm: [UInt8]
        /// Whether decoders leave its text as it is.
        var isVerbatim = false
    }

    /// How many sections of a text there are from one look at the clock to the next.
    private static let sectionsPerLook = 64
    /// How many bytes are searched from one look at the clock to the next.
    private static let bytesPerLook = 1 << 12

    private(set) var byID: [Int32: Token] = [:]
    private var ids: [[UInt8]: Int32] = [:]
    private var specialContents: Set<[UInt8]> = []
    private let preference: Preference
    private var exact = TokenTrie()
    private var normalized = TokenTrie()

    /// Reads a file's `added_tokens`.
    ///
    /// - Throws: `TokenizerError` if they contradict each other or the vocabulary.
    init(
        _ value: JSONValue?,
        model: BPEModel,
        normalizers: [Normalizer],
        budget: WorkBudget
    ) throws(JSONError) {
        preference = .leftmost
        guard let entries = try value?.elements() else { return }
        // Tokens that the vocabulary hasn't: the Python package numbers them in a row behind it, whatever ids they say.
        var next = model.vocabularyCount
        for entry in entries {
            let token = try Token(entry, normalizers: normalizers, budget: budget)
            if token.content.isEmpty { continue }
            var expected = next
            if let id = model.id(of: token.content) { expected = Int(id) } else { next += 1 }
            guard token.id == expected else {
                throw try entry.required("id").fault(
                    "is \(token.id); the Python package would take \(expected) for this token, so its number is in "
                        + "doubt: save the tokenizer again"
                )
            }
            guard (1...TokenTrie.maximumTokenBytes).contains(token.normalForm.count) else {
                throw entry.fault(
                    "has \(token.normalForm.count) bytes, must have 1...\(TokenTrie.maximumTokenBytes) after the "
                        + "normalizer; leave the token out",
                    .unsupported
                )
            }
            let former =
                token.isNormalized
                ? normalized.insert(token.normalForm, token: token.id) : exact.insert(token.content, token: token.id)
            guard former == nil, ids.updateValue(token.id, forKey: token.content) == nil else {
                throw entry.fault("the same token is there twice; leave one out")
            }
            if token.isSpecial { specialContents.insert(token.content) }
            byID[token.id] = token
        }
    }

    /// Takes tokens that are the vocabulary's, for which texts are searched by `preference`.
    ///
    /// Tokens without content aren't looked for: they are there to be decoded.
    init(_ tokens: [Token], preference: Preference) {
        self.preference = preference
        for token in tokens {
            if !token.content.isEmpty { _ = exact.insert(token.content, token: token.id) }
            byID[token.id] = token
        }
    }

    func id(of content: [UInt8]) -> Int32? { ids[content] }

    /// Whether decoding may leave out a token, which reads like this.
    func isSpecial(_ token: Int32, text: [UInt8]) -> Bool {
        switch preference {
        // By text, not by id: a special token whose normalized form differs stays, as in the original.
        case .leftmost: specialContents.contains(text)
        case .longest: byID[token]?.isSpecial ?? false
        }
    }

    /// The text with its added tokens found and the rest normalized.
    func extract(
        from text: [UInt8],
        normalizers: [Normalizer],
        budget: WorkBudget
    ) throws(TokenizerError) -> TextPieces {
        var result = TextPieces(bytes: [], pieces: [])
        let sections =
            switch preference {
            case .leftmost: find(exact, in: text[...])
            case .longest: try findLongest(in: text[...], budget: budget)
            }
        for (number, section) in sections.enumerated() {
            if number.isMultiple(of: Self.sectionsPerLook) { try budget.checkTime() }
            guard section.token == nil else {
                result.pieces.append(.init(place: 0..<0, token: section.token, isAtStart: false))
                continue
            }
            let base = result.bytes.count
            var part = Array(text[section.place])
            var isAtStart = section.place.lowerBound == 0
            for step in normalizers {
                let former = part
                part = try step.apply(to: part, budget: budget)
                try budget.check(byteCount: base + part.count)
                if case .strip(left: true, _) = step, Normalizer.leadingSpaces(of: former[...]) > 0 {
                    isAtStart = false
                }
            }
            result.bytes += part
            for inner in find(normalized, in: part[...]) where inner.token != nil || !inner.place.isEmpty {
                result.pieces.append(
                    .init(
                        place: base + inner.place.lowerBound..<base + inner.place.upperBound,
                        token: inner.token,
                        isAtStart: isAtStart && inner.place.lowerBound == 0
                    )
                )
            }
        }
        return result
    }

    private struct Section {
        let place: Range<Int>
        let token: Int32?
    }

    /// The text, cut into added tokens and what lies between.
    private func find(_ trie: TokenTrie, in text: ArraySlice<UInt8>) -> [Section] {
        var sections: [Section] = []
        var done = 0
        var searchStart = 0
        var spaces = 0..<0
        while !trie.isEmpty, let match = trie.firstMatch(in: text, from: searchStart) {
            searchStart = match.place.upperBound
            guard let token = byID[match.token] else { continue }
            var (start, end) = (match.place.lowerBound, match.place.upperBound)
            if token.isSingleWord {
                if let last = Normalizer.lastScalar(of: text[..<start]), last.scalar.isWordCharacter { continue }
                if end < text.endIndex, scalar(at: end, of: text).0.isWordCharacter { continue }
            }
            if token.stripsLeft {
                // Not the spaces that a token before has taken.
                start = start < done ? done : start - Normalizer.trailingSpaces(of: text[done..<start])
            }
            if token.stripsRight {
                // Tokens may be white space themselves: then each of them ends where the first did.
                if !spaces.contains(end) { spaces = end..<end + Normalizer.leadingSpaces(of: text[end...]) }
                end = spaces.upperBound
            }
            if done < start { sections.append(Section(place: done..<start, token: nil)) }
            sections.append(Section(place: min(start, end)..<end, token: token.id))
            done = end
        }
        if done != text.endIndex { sections.append(Section(place: done..<text.endIndex, token: nil)) }
        return sections
    }
}

extension AddedTokens {
    /// The text, cut into added tokens and what lies between: the longest tokens first, of those as long the one with the
    /// least id, from left to right.
    private func findLongest(in text: ArraySlice<UInt8>, budget: WorkBudget) throws(TokenizerError) -> [Section] {
        var lengths: Set<Int> = []
        for index in text.indices {
            if index.isMultiple(of: Self.bytesPerLook) { try budget.checkTime() }
            exact.forEachMatch(in: text, at: index) { lengths.insert($1 - index) }
        }
        var found: [(token: Int32, place: Range<Int>)] = []
        var isTaken = [Bool](repeating: false, count: text.count)
        // Those that are taken are at least as long, so that none lies between the two ends.
        func isFree(_ place: Range<Int>) -> Bool { !isTaken[place.lowerBound] && !isTaken[place.upperBound - 1] }
        for length in lengths.sorted(by: >) {
            var matches: [(token: Int32, start: Int)] = []
            for start in 0...text.count - length {
                if start.isMultiple(of: Self.bytesPerLook) { try budget.checkTime() }
                guard isFree(start..<start + length) else { continue }
                exact.forEachMatch(in: text, at: start) { token, end in
                    if end == start + length { matches.append((token, start)) }
                }
            }
            matches.sort { $0 < $1 }
            for (token, start) in matches where isFree(start..<start + length) {
                found.append((token, start..<start + length))
                for index in start..<start + length { isTaken[index] = true }
            }
        }
        found.sort { $0.place.lowerBound < $1.place.lowerBound }
        var sections: [Section] = []
        var done = 0
        for (token, place) in found {
            if done < place.lowerBound { sections.append(Section(place: done..<place.lowerBound, token: nil)) }
            sections.append(Section(place: place, token: token))
            done = place.upperBound
        }
        if done < text.count { sections.append(Section(place: done..<text.count, token: nil)) }
        return sections
    }
}

extension AddedTokens.Token {
    fileprivate init(_ value: JSONValue, normalizers: [Normalizer], budget: WorkBudget) throws(JSONError) {
        let fields = try value.object()
        id = try fields.required("id").number()
        content = try fields.required("content").bytes()
        isSingleWord = try fields.required("single_word").bool()
        stripsLeft = try fields.required("lstrip").bool()
        stripsRight = try fields.required("rstrip").bool()
        isNormalized = try fields.required("normalized").bool()
        isSpecial = try fields.required("special").bool()
        normalForm = content
        guard isNormalized, content.count <= TokenTrie.maximumTokenBytes else { return }
        do {
            try budget.checkTime()
            for step in normalizers {
                normalForm = try step.apply(to: normalForm, budget: budget)
                try budget.check(byteCount: normalForm.count)
            }
        } catch {
            throw value.fault("the normalizer can't be applied to it: \(error.message)", .unsupported)
        }
    }
}

extension Unicode.Scalar {
    /// What `\w` of Rust's regular expressions stands for: letters, marks, decimal digits, joining characters.
    fileprivate var isWordCharacter: Bool {
        switch properties.generalCategory {
        case .nonspacingMark, .spacingMark, .enclosingMark, .decimalNumber, .connectorPunctuation: true
        default: properties.isAlphabetic || properties.isJoinControl
        }
    }
}

/// Turns words into tokens, with memory that is used again from word to word.
///
/// As in the original, the pair of lowest rank is merged first, of several the leftmost. A heap holds the pairs, so
/// that a word of n characters takes O(n log n) steps.
struct WordEncoder {
    /// How many merges there are from one look at the clock to the next.
    private static let mergesPerLook = 1 << 16

    private struct Symbol {
        /// The token, or -1 for a character that is none.
        var id: Int32
        /// Where it begins in the word, or -1 if it was merged into the one before.
        var start: Int32
        /// The neighbours' places, or -1.
        var previous: Int32
        var next: Int32

        var isMerged: Bool { start < 0 }
    }

    private struct Candidate {
        /// The rank in the upper half, the left symbol's place in the lower one: what comes first is smaller.
        let order: UInt64
        let id: Int32

        var place: Int { Int(order & 0xFFFF_FFFF) }
    }

    private let model: BPEModel
    private let budget: WorkBudget
    private var symbols: [Symbol] = []
    private var heap: [Candidate] = []
    private var mergeCount = 0

    init(_ model: BPEModel, budget: WorkBudget) {
        self.model = model
        self.budget = budget
    }

    /// Appends the tokens of a word, which is UTF-8.
    ///
    /// - Throws: `TokenizerError` if a character is unknown and the token for such isn't in the vocabulary, or the
    ///   budget ends.
    mutating func encode(_ word: Span<UInt8>, into tokens: inout [Int32]) throws(TokenizerError) {
        if model.ignoresMerges, let id = model.id(of: word) {
            tokens.append(id)
            return
        }
        symbols.removeAll(keepingCapacity: true)
        try appendCharacters(of: word)
        try merge(word)
        for symbol in symbols where !symbol.isMerged {
            if symbol.id >= 0 {
                tokens.append(symbol.id)
            } else {
                try appendBytes(of: text(of: symbol, through: symbol, in: word), to: &tokens)
            }
        }
    }

    private mutating func append(_ id: Int32, at start: Int) {
        let place = Int32(symbols.count)
        if place > 0 { symbols[Int(place) - 1].next = place }
        symbols.append(Symbol(id: id, start: Int32(start), previous: place - 1, next: -1))
    }

    /// The text from one symbol through another.
    @_lifetime(copy word)
    private func text(of first: Symbol, through last: Symbol, in word: Span<UInt8>) -> Span<UInt8> {
        word.extracting(Int(first.start)..<(last.next < 0 ? word.count : Int(symbols[Int(last.next)].start)))
    }

    private mutating func appendCharacters(of word: Span<UInt8>) throws(TokenizerError) {
        // An unknown character's token waits for the next character: it may be unknown, too, and be fused with it.
        var waiting: Int32?
        var index = 0
        while index < word.count {
            let start = index
            repeat { index += 1 } while index < word.count && word[index] & 0xC0 == 0x80
            let character = word.extracting(start..<index)
            if let id = model.id(ofCharacter: character) {
                if let unknown = waiting {
                    append(unknown, at: start)
                    waiting = nil
                }
                append(id, at: start)
                continue
            }
            if model.mergesByScore {
                append(-1, at: start)
                continue
            }
            if let byteIDs = model.byteIDs, appendBytes(of: character, at: start, byteIDs) { continue }
            // Without a token for unknown characters they are left out.
            guard let name = model.unknownToken else { continue }
            guard let id = model.id(of: name) else {
                throw TokenizerError(
                    .unknownCharacter,
                    field: "model.unk_token",
                    "a character of the text is unknown, and the vocabulary hasn't the token "
                        + "\"\(String(decoding: name, as: UTF8.self))\" to stand for it; add the token"
                )
            }
            if let unknown = waiting, !model.fusesUnknown { append(unknown, at: start) }
            waiting = id
        }
        if let unknown = waiting { append(unknown, at: word.count) }
    }

    /// Appends the tokens of a character's bytes, if all of them exist.
    private mutating func appendBytes(of character: Span<UInt8>, at start: Int, _ byteIDs: [Int32?]) -> Bool {
        for index in character.indices where byteIDs[Int(character[index])] == nil { return false }
        for index in character.indices {
            if let id = byteIDs[Int(character[index])] { append(id, at: start) }
        }
        return true
    }

    /// Appends the tokens of the bytes of a character that is no token; all of them must exist.
    private func appendBytes(of character: Span<UInt8>, to tokens: inout [Int32]) throws(TokenizerError) {
        for index in character.indices {
            guard let id = model.byteIDs?[Int(character[index])] else {
                throw TokenizerError(
                    .unknownCharacter,
                    "a character of the text is unknown, and the vocabulary hasn't the token of its byte "
                        + "\(character[index]) to spell it; use a vocabulary with tokens for all bytes"
                )
            }
            tokens.append(id)
        }
    }

    private mutating func merge(_ word: Span<UInt8>) throws(TokenizerError) {
        heap.removeAll(keepingCapacity: true)
        for place in symbols.indices.dropLast() { push(place, word) }
        while let candidate = pop() {
            let left = symbols[candidate.place]
            guard !left.isMerged, left.next >= 0 else { continue }
            let rightPlace = Int(left.next)
            let right = symbols[rightPlace]
            // The pair may have changed since it was put on the heap.
            guard merge(of: left, right, word)?.id == candidate.id else { continue }
            symbols[candidate.place].id = candidate.id
            symbols[candidate.place].next = right.next
            symbols[rightPlace].start = -1
            if right.next >= 0 { symbols[Int(right.next)].previous = Int32(candidate.place) }
            if left.previous >= 0 { push(Int(left.previous), word) }
            if right.next >= 0 { push(candidate.place, word) }
            mergeCount += 1
            if mergeCount.isMultiple(of: Self.mergesPerLook) { try budget.checkTime() }
        }
    }

    private func merge(of left: Symbol, _ right: Symbol, _ word: Span<UInt8>) -> BPEModel.Merge? {
        model.mergesByScore
            ? model.merge(to: text(of: left, through: right, in: word)) : model.merge(left.id, right.id)
    }

    // MARK: - The heap

    /// Puts the pair that begins at `place` on the heap, if it can be merged.
    private mutating func push(_ place: Int, _ word: Span<UInt8>) {
        let symbol = symbols[place]
        guard symbol.next >= 0, let merge = merge(of: symbol, symbols[Int(symbol.next)], word) else { return }
        heap.append(Candidate(order: UInt64(UInt32(merge.rank)) << 32 | UInt64(place), id: merge.id))
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard heap[child].order < heap[parent].order else { break }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    private mutating func pop() -> Candidate? {
        guard let first = heap.first, let last = heap.popLast() else { return nil }
        guard !heap.isEmpty else { return first }
        heap[0] = last
        var parent = 0
        while true {
            var child = parent * 2 + 1
            guard child < heap.count else { break }
            if child + 1 < heap.count, heap[child + 1].order < heap[child].order { child += 1 }
            guard heap[child].order < heap[parent].order else { break }
            heap.swapAt(child, parent)
            parent = child
        }
        return first
    }
}

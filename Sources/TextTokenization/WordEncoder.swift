/// Turns words into tokens, with memory that is used again from word to word.
///
/// As in the original, the pair of lowest rank is merged first, of several the leftmost. A heap holds the pairs, so
/// that a word of n characters takes O(n log n) steps.
struct WordEncoder {
    private struct Symbol {
        var id: Int32
        /// The neighbours' places, or -1.
        var previous: Int32
        var next: Int32
        var isMerged = false
    }

    private struct Candidate {
        /// The rank in the upper half, the left symbol's place in the lower one: what comes first is smaller.
        let order: UInt64
        let id: Int32

        var place: Int { Int(order & 0xFFFF_FFFF) }
    }

    private let model: BPEModel
    private var symbols: [Symbol] = []
    private var heap: [Candidate] = []

    init(_ model: BPEModel) { self.model = model }

    /// Appends the tokens of a word, which is UTF-8.
    ///
    /// - Throws: `TokenizerError` if a character is unknown and the token for such isn't in the vocabulary.
    mutating func encode(_ word: Span<UInt8>, into tokens: inout [Int32]) throws(TokenizerError) {
        if model.ignoresMerges, let id = model.id(of: word) {
            tokens.append(id)
            return
        }
        symbols.removeAll(keepingCapacity: true)
        try appendCharacters(of: word)
        merge()
        for symbol in symbols where !symbol.isMerged { tokens.append(symbol.id) }
    }

    private mutating func append(_ id: Int32) {
        let place = Int32(symbols.count)
        if place > 0 { symbols[Int(place) - 1].next = place }
        symbols.append(Symbol(id: id, previous: place - 1, next: -1))
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
                    append(unknown)
                    waiting = nil
                }
                append(id)
                continue
            }
            if let byteIDs = model.byteIDs, appendBytes(of: character, byteIDs) { continue }
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
            if let unknown = waiting, !model.fusesUnknown { append(unknown) }
            waiting = id
        }
        if let unknown = waiting { append(unknown) }
    }

    /// Appends the tokens of a character's bytes, if all of them exist.
    private mutating func appendBytes(of character: Span<UInt8>, _ byteIDs: [Int32?]) -> Bool {
        for index in character.indices where byteIDs[Int(character[index])] == nil { return false }
        for index in character.indices {
            if let id = byteIDs[Int(character[index])] { append(id) }
        }
        return true
    }

    private mutating func merge() {
        heap.removeAll(keepingCapacity: true)
        for place in symbols.indices.dropLast() { push(place) }
        while let candidate = pop() {
            let left = symbols[candidate.place]
            guard !left.isMerged, left.next >= 0 else { continue }
            let rightPlace = Int(left.next)
            let right = symbols[rightPlace]
            // The pair may have changed since it was put on the heap.
            guard model.merge(left.id, right.id)?.id == candidate.id else { continue }
            symbols[candidate.place].id = candidate.id
            symbols[candidate.place].next = right.next
            symbols[rightPlace].isMerged = true
            if right.next >= 0 { symbols[Int(right.next)].previous = Int32(candidate.place) }
            if left.previous >= 0 { push(Int(left.previous)) }
            if right.next >= 0 { push(candidate.place) }
        }
    }

    // MARK: - The heap

    /// Puts the pair that begins at `place` on the heap, if it can be merged.
    private mutating func push(_ place: Int) {
        let symbol = symbols[place]
        guard symbol.next >= 0, let merge = model.merge(symbol.id, symbols[Int(symbol.next)].id) else { return }
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

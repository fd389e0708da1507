/// Added tokens by their text, to find in a text the leftmost and there the longest.
struct TokenTrie: Sendable {
    /// How long the text of an added token may be, in bytes: it bounds the work at each place of a text. The longest in
    /// use have some 90.
    static let maximumTokenBytes = 128

    /// The node that a byte leads to from a node: node * 256 + byte.
    private var edges: [Int: Int32] = [:]
    private var nodeCount: Int32 = 1
    /// The token that ends at a node.
    private var tokens: [Int32: Int32] = [:]
    /// Whether a token begins with a byte.
    private var begins = [Bool](repeating: false, count: 256)

    var isEmpty: Bool { tokens.isEmpty }

    /// Adds a token.
    ///
    /// - Parameter text: not empty.
    /// - Returns: the token that has the same text already, if there is one; then nothing is added.
    mutating func insert(_ text: [UInt8], token: Int32) -> Int32? {
        var node: Int32 = 0
        for byte in text {
            let edge = Int(node) * 256 + Int(byte)
            if let next = edges[edge] {
                node = next
            } else {
                edges[edge] = nodeCount
                node = nodeCount
                nodeCount += 1
            }
        }
        if let former = tokens[node] { return former }
        tokens[node] = token
        if let first = text.first { begins[Int(first)] = true }
        return nil
    }

    /// The first token at or behind `start`, and its place.
    func firstMatch(in text: ArraySlice<UInt8>, from start: Int) -> (token: Int32, place: Range<Int>)? {
        for index in start..<text.endIndex {
            var found: (Int32, Range<Int>)?
            forEachMatch(in: text, at: index) { found = ($0, index..<$1) }
            if let found { return found }
        }
        return nil
    }

    /// Calls `body` with each token that begins at `index`, and where it ends, the shortest first.
    func forEachMatch(in text: ArraySlice<UInt8>, at index: Int, _ body: (_ token: Int32, _ end: Int) -> Void) {
        guard begins[Int(text[index])] else { return }
        var node: Int32 = 0
        var end = index
        while end < text.endIndex, let next = edges[Int(node) * 256 + Int(text[end])] {
            node = next
            end += 1
            if let token = tokens[node] { body(token, end) }
        }
    }
}

/// The two tokens of a merge: their texts one behind the other, in memory that is used again from merge to merge.
struct TokenPair {
    struct IDs {
        let left: Int32
        let right: Int32
        /// Of the token that they are merged to.
        let merged: Int32
    }

    /// A merge needs a token that there isn't.
    struct MissingToken: Error {
        let text: [UInt8]

        var message: String {
            "needs the token \"\(String(decoding: text, as: UTF8.self))\", which the vocabulary hasn't; the file is damaged"
        }
    }

    var text: [UInt8] = []
    /// How many bytes of `text` are the left one's.
    var leftCount = 0
    /// The entry after that of the last merged token: vocabularies mostly have them in the order of the merges.
    private var nextMerged = 0

    mutating func removeAll() {
        text.removeAll(keepingCapacity: true)
        leftCount = 0
    }

    /// Takes `text` for two tokens with a space between, and takes out that space.
    ///
    /// - Returns: false if there isn't one space.
    mutating func split() -> Bool {
        guard let space = text.firstIndex(of: UInt8(ascii: " ")) else { return false }
        text.remove(at: space)
        leftCount = space
        return !text[space...].contains(UInt8(ascii: " "))
    }

    /// The ids of the tokens.
    mutating func ids(in vocabulary: ByteTable) -> Result<IDs, MissingToken> {
        func id(_ place: Range<Int>) -> Int32? { vocabulary[text.span.extracting(place)] }
        func missing(_ place: Range<Int>) -> Result<IDs, MissingToken> {
            .failure(MissingToken(text: Array(text[place])))
        }
        guard let left = id(0..<leftCount) else { return missing(0..<leftCount) }
        guard let right = id(leftCount..<text.count) else { return missing(leftCount..<text.count) }
        guard let merged = vocabulary.entry(of: text.span, guess: nextMerged) else {
            return missing(0..<text.count)
        }
        nextMerged = merged + 1
        return .success(IDs(left: left, right: right, merged: vocabulary.id(at: merged)))
    }
}

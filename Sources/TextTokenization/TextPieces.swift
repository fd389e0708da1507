/// A text on its way to tokens: bytes, and the pieces that they are split into.
struct TextPieces {
    struct Piece {
        /// Where the piece lies in `bytes`.
        var place: Range<Int>
        /// The added token that the piece is, if it is one; nothing looks at its text any more.
        var token: Int32?
        /// Whether it begins where the text begins: then `prepend_scheme: first` puts a space before it.
        ///
        /// The Python package asks for the offset 0 of the text before normalization instead. That differs where a
        /// normalizer removes the beginning (of which `Strip` is minded), or where what it made of the first character
        /// is split.
        var isAtStart: Bool
    }

    /// UTF-8.
    var bytes: [UInt8]
    var pieces: [Piece]

    /// The pieces with those that aren't tokens split; empty parts vanish.
    mutating func split(
        _ body: (Range<Int>) throws(TokenizerError) -> [Range<Int>]
    ) throws(TokenizerError) {
        var result: [Piece] = []
        result.reserveCapacity(pieces.count)
        for piece in pieces {
            guard piece.token == nil else {
                result.append(piece)
                continue
            }
            for place in try body(piece.place) where !place.isEmpty {
                let isFirst = place.lowerBound == piece.place.lowerBound
                result.append(Piece(place: place, token: nil, isAtStart: piece.isAtStart && isFirst))
            }
        }
        pieces = result
    }

    /// Rewrites each piece that isn't a token: `body` appends its new text.
    mutating func rewrite(_ body: (Piece, ArraySlice<UInt8>, inout [UInt8]) -> Void) {
        var result: [UInt8] = []
        result.reserveCapacity(bytes.count + bytes.count / 4)
        for index in pieces.indices where pieces[index].token == nil {
            let start = result.count
            body(pieces[index], bytes[pieces[index].place], &result)
            pieces[index].place = start..<result.count
        }
        bytes = result
    }
}

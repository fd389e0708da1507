/// Which of the cache's tokens a layer has keys and values of: Formats/snapshot.md, "How a cache is cut".
public enum HeldTokens: Sendable, Equatable {
    /// All of them.
    case all
    /// The last ones, as many as the layer has rows: sliding-window attention.
    case last
    /// For each KV head the numbers of the tokens, ascending, as many as the layer has rows: token eviction.
    case listed([[UInt32]])

    /// Whether a layer's first rows are those of the cache's first `count` tokens, so that these can be its sinks.
    package func beginsWithFirst(_ count: Int) -> Bool {
        switch self {
        case .all: true
        case .last: count == 0
        case .listed(let lists): lists.allSatisfy { $0.starts(with: 0..<UInt32(count)) }
        }
    }

    /// Why a layer can't hold these tokens, or nil.
    ///
    /// - Parameters:
    ///   - rows: tokens that each KV head of the layer has.
    ///   - tokenCount: tokens of the cache.
    package func fault(kvHeads: Int, rows: Int, tokenCount: Int) -> String? {
        switch self {
        case .all: return rows == tokenCount ? nil : "\(rows) tokens of the cache's \(tokenCount)"
        case .last: return rows < tokenCount ? nil : "the last \(rows) tokens of \(tokenCount)"
        case .listed(let lists):
            if lists.count != kvHeads { return "lists of tokens of \(lists.count) KV heads, and there are \(kvHeads)" }
            for list in lists {
                if list.count != rows { return "a list of \(list.count) tokens for \(rows)" }
                if zip(list, list.dropFirst()).contains(where: { $0 >= $1 }) { return "a list that does not ascend" }
                if let last = list.last, last >= tokenCount { return "token \(last) of \(tokenCount)" }
            }
            return nil
        }
    }

    /// Which token of the cache a place of a head is of: Formats/snapshot.md, "How a cache is cut".
    package func token(atPlace place: Int, head: Int) -> Int {
        guard case .listed(let lists) = self else { return place }
        return Int(lists[head][place])
    }

    /// The place of a head's first token from one on: Formats/snapshot.md, "How a cache is cut".
    package func place(ofTokensFrom token: Int, head: Int) -> Int {
        guard case .listed(let lists) = self else { return token }
        let list = lists[head]
        var (low, high) = (0, list.count)
        while low < high {
            let middle = (low + high) / 2
            if Int(list[middle]) < token { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// Which token of the cache a row of a head is of.
    ///
    /// - Parameter firstToken: the token of row 0, unless tokens are listed.
    package func token(ofRow row: Int, head: Int, firstToken: Int) -> Int {
        guard case .listed(let lists) = self else { return firstToken + row }
        return Int(lists[head][row])
    }
}
